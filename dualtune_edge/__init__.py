"""Edge deployment of DualTune: LoRA adapters in, tool calls out, on a CPU."""

from importlib import metadata
from typing import Final

__version__: Final = metadata.version("dualtune-edge")
