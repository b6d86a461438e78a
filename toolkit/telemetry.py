"""Silence: both onnxruntime packages send telemetry unless the environment forbids it before their first import."""

from __future__ import annotations

import os


def disable() -> None:
    """Turn the telemetry of onnxruntime and onnxruntime-genai off; each wing calls this as it is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
