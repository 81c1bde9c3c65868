"""Secure aggregation: the coordinator learns the sum of the nodes' vectors, and no vector.

parameters     how many neighbours, which threshold
shuffle        a random order that everyone draws alike
graph          who is whose neighbour
groups         who sums with whom, where each group has a sum of its own
group_messages what nodes and coordinator say as groups are drawn
grouping       how the nodes of a run draw the groups together
session        what one attempt at one sum is about, and its transcript
codec          canonical fields
messages       what nodes and coordinator say to each other
keys           agreed and derived keys
shamir         shares of a secret
sealing        shares sealed to their holders
membership     who is in a session, and who is whose neighbour
node           the node's half, as a state machine
disclosure     which shares a node may give up
keeping        its state as bytes
coordinator    the coordinator's half; its states in stages
recovery       from revealed shares to masks, and to who lied
masks          keystreams added to a vector, modulo 2^16 or 2^32

Spec: docs/spec/secagg.md. Pure: bytes, integers and arrays in and out, no input or output, no
clock, randomness as an argument; no torch.
"""
