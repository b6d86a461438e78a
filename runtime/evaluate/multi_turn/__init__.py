"""BFCL's dialogues of several turns: calls change simulated systems, whose states are compared after each turn."""
