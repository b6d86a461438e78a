"""The words that both sides share, and the command shell."""
