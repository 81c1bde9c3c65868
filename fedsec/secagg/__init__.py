"""Secure aggregation: the coordinator learns the sum of the nodes' vectors, and no vector.

parameters     how many neighbours, which threshold
graph          who is whose neighbour

Spec: docs/spec/secagg.md. Pure: no input, no output, no clock; no torch.
"""
