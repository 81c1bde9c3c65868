"""Differential privacy: what a release costs, what was spent, and what may still be."""
