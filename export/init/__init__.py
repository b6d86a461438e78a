"""A spec for adapters that are still to be trained."""
