"""Whether a model fits a profile's memory budget."""

from __future__ import annotations

from typing import Final

from dualtune_edge.profiles.schema import HardwareProfile

_MB: Final = 1_000_000


def over_budget(profile: HardwareProfile, weights: int) -> str:
    """Why weights of so many bytes are too large for the profile, in a few words; empty: they fit."""
    if profile.memory_mb is None or weights <= profile.memory_mb * _MB:
        return ""
    return f"{weights / _MB:,.1f} MB of weights, and its memory_mb allows {profile.memory_mb:,}"
