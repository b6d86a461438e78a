"""Tasks on real MCP servers: each begins with files, and is done if what is there afterwards is what it says."""
