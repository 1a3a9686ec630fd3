"""A bundle for programs in other languages: JSON-RPC 2.0 over a pair of byte streams."""
