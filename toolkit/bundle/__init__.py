"""What a bundle says of itself: the manifest and the reports beside it."""
