"""Differential privacy: exact noise, what a release costs, and what may still be spent."""
