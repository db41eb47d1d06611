"""What a trained model draws and how it uses z, as pictures; a module a question."""
