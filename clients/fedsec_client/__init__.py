"""The node: joins a federation and trains on data that never leaves it."""
