"""What an export is made of, before anything is built: the spec, inputs, prompts, models, steps."""
