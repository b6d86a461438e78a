"""The base model: its tokenizer, its first weights, its texts, and its pretraining."""
