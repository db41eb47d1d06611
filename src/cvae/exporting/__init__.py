"""A trained model in other forms: ONNX files, and a page that writes digits."""
