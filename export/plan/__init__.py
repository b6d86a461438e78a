"""What an export is asked for, and what follows from it before anything is built: inputs, prompts, models, steps."""
