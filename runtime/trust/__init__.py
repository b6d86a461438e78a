"""Who may sign a bundle, and whether it did: read and checked before anything else of the bundle."""
