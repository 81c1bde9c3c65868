"""What the coordinator remembers, in SQL: nodes, invites, certificates, runs, events."""
