"""Conversations and prompts: messages, chat templates, and what a stage needs of a template."""
