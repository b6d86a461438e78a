"""What a user writes: `dualtune.yaml`, its types, and where it was written."""
