"""How the kit was made: its texts, its base model, its adapters, and what they reach."""
