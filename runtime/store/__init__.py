"""Bundles on a device: packs are installed into a store, which switches between versions in one step."""
