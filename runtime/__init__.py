"""All that the device needs: open a bundle, and answer a conversation with a tool call.

from dualtune_edge.runtime import Agent

with Agent.open("bundle") as agent:
    answer = agent.call("what changed since yesterday?")
"""

import importlib
from typing import TYPE_CHECKING, Final

from dualtune_edge.toolkit import telemetry

telemetry.disable()  # before anything below imports an engine

if TYPE_CHECKING:
    from dualtune_edge.runtime.bundle.folder import Bundle
    from dualtune_edge.runtime.bundle.model_source import ModelSource
    from dualtune_edge.runtime.bundle.opening import open_bundle
    from dualtune_edge.runtime.decode.overflow import Overflow, shorten_results
    from dualtune_edge.runtime.engines.engine import Engine, EngineKind, open_engine
    from dualtune_edge.runtime.pipeline import Agent
    from dualtune_edge.runtime.result import Alternative, CallResult, Timings, Tokens
    from dualtune_edge.runtime.variants import open_best, ways
    from dualtune_edge.toolkit.errors import EdgeError
    from dualtune_edge.toolkit.prompts.messages import Message

__all__ = [
    "Agent",
    "Alternative",
    "Bundle",
    "CallResult",
    "EdgeError",
    "Engine",
    "EngineKind",
    "Message",
    "ModelSource",
    "Overflow",
    "Timings",
    "Tokens",
    "open_best",
    "open_bundle",
    "open_engine",
    "shorten_results",
    "ways",
]

# Imported at first use: `doctor` runs where onnxruntime or numpy does not load, and says so.
_MODULES: Final = {
    "Agent": "dualtune_edge.runtime.pipeline",
    "Alternative": "dualtune_edge.runtime.result",
    "Bundle": "dualtune_edge.runtime.bundle.folder",
    "CallResult": "dualtune_edge.runtime.result",
    "EdgeError": "dualtune_edge.toolkit.errors",
    "Engine": "dualtune_edge.runtime.engines.engine",
    "EngineKind": "dualtune_edge.runtime.engines.engine",
    "Message": "dualtune_edge.toolkit.prompts.messages",
    "ModelSource": "dualtune_edge.runtime.bundle.model_source",
    "Overflow": "dualtune_edge.runtime.decode.overflow",
    "Timings": "dualtune_edge.runtime.result",
    "Tokens": "dualtune_edge.runtime.result",
    "open_best": "dualtune_edge.runtime.variants",
    "open_bundle": "dualtune_edge.runtime.bundle.opening",
    "open_engine": "dualtune_edge.runtime.engines.engine",
    "shorten_results": "dualtune_edge.runtime.decode.overflow",
    "ways": "dualtune_edge.runtime.variants",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name of `__all__`, from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)
