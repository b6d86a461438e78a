"""What makes a call quick. None of it changes an answer; each can be switched off, to measure and to test it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Levers:
    """Which of them are used; by default all that the engine is able to."""

    states: bool = True  # prefix states of the bundle are mapped and restored
    reuse: bool = True  # KV values are kept from one prompt to the next
    forced: bool = True  # tokens without an alternative ride along with the next decision
    drafts: bool = True  # copied text is verified several tokens at a time
    lookahead: bool = True  # a choice reads on past a decision where the next is likely to be needed


NAIVE = Levers(states=False, reuse=False, forced=False, drafts=False, lookahead=False)
"""Every token a forward, every prompt from its first token on."""
