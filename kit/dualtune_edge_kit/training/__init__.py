"""The making of the kit: its texts, its base model, its adapters, and their evaluation."""
