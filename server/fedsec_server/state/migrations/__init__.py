"""Steps from one schema to the next, run by the coordinator at its start."""
