"""A model as one HTML file that classifies in the browser, with ONNX Runtime for WebAssembly inside."""
