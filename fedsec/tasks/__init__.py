"""What can be learned: a model, data as tensors, a loss and metrics."""
