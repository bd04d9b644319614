"""Where the rows of a run go beside metrics.jsonl: TensorBoard, MLflow, Weights & Biases."""
