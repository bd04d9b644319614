"""What computes a classifier's answers: JAX, or ONNX Runtime from a graph that is made here."""
