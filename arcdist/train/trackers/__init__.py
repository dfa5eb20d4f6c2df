"""Where a run's metrics go beside TensorBoard: Weights & Biases, MLflow, each by its own package."""
