"""Federated learning over mutual TLS, with privacy, secure aggregation and robustness.

The library. Programs stand on it: `fedsec_server` (coordinator), `fedsec_client` (node),
`fedsec_sim` (many nodes on one machine). Errors: `fedsec.errors`.
"""

__version__ = "0.1.0"
