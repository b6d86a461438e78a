"""All adapters of a `dualtune.yaml`: what each learns from, what they all take, and their training in turn."""
