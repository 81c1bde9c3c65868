"""Ways to train many nodes on one machine, all with the same result."""
