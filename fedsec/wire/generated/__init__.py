"""Made by `make proto` from proto/fedsec/v1; do not edit."""
