from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dualtune_edge.export.base.safetensors_file import SafetensorError, digest, stored_tensors


def test_a_file_that_was_cut_off_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.ones((8, 8), dtype=np.float32)}, path)
    tensors = stored_tensors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SafetensorError, match="weight ends 4 bytes early"):
        digest(tensors.values(), {})
