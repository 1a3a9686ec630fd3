"""Tools for GGUF bundles: importable and useful without the extension."""
