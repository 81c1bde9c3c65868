"""Experiments: a cross product of plans, rules, attacks, divisions, adversaries and seeds."""
