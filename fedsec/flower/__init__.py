"""The two halves of a round as Flower parts: strategy (coordinator), mod (node)."""
