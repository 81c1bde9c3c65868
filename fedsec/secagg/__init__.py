"""Secure aggregation: the coordinator learns the sum of the nodes' vectors, and no vector.

parameters     how many neighbours, which threshold
graph          who is whose neighbour
session        what one attempt at one sum is about, and its transcript
codec          canonical fields
messages       what nodes and coordinator say to each other
keys           agreed and derived keys
shamir         shares of a secret
sealing        shares sealed to their holders
masks          keystreams added to a vector, modulo 2^16 or 2^32

Spec: docs/spec/secagg.md. Pure: bytes, integers and arrays in and out, no input or output, no
clock, randomness as an argument; no torch.
"""
