"""A model as a file for other programs: ONNX, StableHLO, or timm's layout."""
