"""A PEFT adapter's folder: its low-rank pairs, or a refusal by name; and the base with an adapter merged."""
