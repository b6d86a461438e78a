"""What the kit exports, and how many of the held-out turns a bundle answers right."""
