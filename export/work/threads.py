"""One number of threads for all that is computed, so that an export gives equal bytes on any number of cores.

How a product is shared out among threads decides how its sums are rounded: with PyTorch's own choice 7 tokens give
other logits on one core than on two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import torch

THREADS: Final = 8  # on two cores they take no longer than two; on more than eight the comparison takes longer


@contextlib.contextmanager
def fixed_threads() -> Iterator[None]:
    """Have PyTorch compute with `THREADS` threads, whatever the machine and OMP_NUM_THREADS say."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
