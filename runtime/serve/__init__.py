"""The agent as a service: an OpenAI-compatible endpoint on one engine."""
