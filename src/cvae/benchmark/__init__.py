"""What a training step costs here, against what it has to cost."""
