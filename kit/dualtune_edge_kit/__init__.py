"""The kit: a small base model with adapters for two real MCP servers, and the code that made them.

`random_checkpoint` makes models of real shapes with random weights, for tests and benchmarks.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
