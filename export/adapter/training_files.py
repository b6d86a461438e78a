"""What our fine-tuning leaves beside an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dualtune_edge.toolkit import strict_json

BASE_FINGERPRINT: Final = "base_fingerprint.txt"  # one line, `Checkpoint.fingerprint`
TRAINING_RECORD: Final = "training.json"


def learnt_toolsets(folder: Path) -> dict[str, str] | None:
    """The toolsets that the prompts of an adapter showed when it was trained: name → `Toolset.sha256`, in their order.

    None: it is not known, or they showed the tools of one alone.
    """
    try:
        record: Any = strict_json.loads((folder / TRAINING_RECORD).read_bytes())
        return {str(entry["name"]): str(entry["sha256"]) for entry in record["all_toolsets"]}
    except (OSError, strict_json.JsonError, KeyError, TypeError):
        return None
