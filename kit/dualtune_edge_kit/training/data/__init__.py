"""What the kit learns from: words, values and tools, and the conversations that are made of them."""
