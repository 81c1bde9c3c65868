"""What is to be learned, by whom and how: `FederationPlan`, from TOML."""
