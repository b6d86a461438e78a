"""How often a bundle is right, on conversations whose calls are known."""
