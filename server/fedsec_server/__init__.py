"""The coordinator: enrols nodes, runs plans, keeps models and the log."""
