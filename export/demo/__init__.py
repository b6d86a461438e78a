"""The built-in kit: a small base model, adapters for two real MCP servers, and how they were made."""
