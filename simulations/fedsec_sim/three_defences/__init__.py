"""The map of three defences: which of them hold together, at how many nodes, epsilon, attackers.

cell       one federation: who attacks, what the coordinator sees, how it is combined; its outcome
plans      the plan that an operator would write for it
attack     what hostile nodes send, and which they are
running    simulates the plan under the attack
recipes    how a cell is learned: rounds, steps, features
grid       which cells there are, in the order in which they are worth computing
results    what was measured, kept line by line
pictures   heatmaps, and the thumbnail that the demo shows

Run by `simulations/experiments/three_defences/run.py`; read in `docs/three-defences.md`.
"""
