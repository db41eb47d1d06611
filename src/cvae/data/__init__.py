"""Data: sources of bytes, views that say what is x and y, the LightningDataModule."""
