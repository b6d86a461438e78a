"""Edge deployment of DualTune: LoRA adapters in, tool calls out, on a CPU."""

import pkgutil
from importlib import metadata
from typing import Final

# In a checkout's root this folder hides the installed package, where the wings are.
__path__ = pkgutil.extend_path(__path__, __name__)
__version__: Final = metadata.version("dualtune-edge")
