"""The kit: a small base model with adapters for two real MCP servers, and how they were made.

Beside it `random_checkpoint`, models of real shapes with random weights, for tests and benchmarks.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
