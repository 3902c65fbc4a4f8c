"""Model to file and back: the bundle that is served, and its ONNX form; each is read back before it is trusted."""
