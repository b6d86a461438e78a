"""A tool's schema as a grammar: what may be written, token by token."""
