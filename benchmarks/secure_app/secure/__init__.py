"""An app whose round is all transport and secure aggregation."""
