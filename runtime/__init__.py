"""All that the device needs: open a bundle, and answer a conversation with a tool call.

from dualtune_edge.runtime import Agent

with Agent.open("bundle") as agent:
    answer = agent.call("what changed since yesterday?")
"""

from dualtune_edge.toolkit import telemetry

telemetry.disable()  # before anything below imports an engine

from dualtune_edge.runtime.bundle.folder import Bundle, open_bundle  # noqa: E402
from dualtune_edge.runtime.bundle.model_source import ModelSource  # noqa: E402
from dualtune_edge.runtime.decode.overflow import Overflow, shorten_results  # noqa: E402
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, open_engine  # noqa: E402
from dualtune_edge.runtime.pipeline import Agent  # noqa: E402
from dualtune_edge.runtime.result import Alternative, CallResult, Timings, Tokens  # noqa: E402
from dualtune_edge.runtime.variants import open_best, ways  # noqa: E402
from dualtune_edge.toolkit.errors import EdgeError  # noqa: E402
from dualtune_edge.toolkit.prompts.messages import Message  # noqa: E402

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
