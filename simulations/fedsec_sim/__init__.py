"""Many nodes on one machine: the demo, simulations, attacks, measurements."""
