"""One tiny bundle, exported once for all workers: two toolsets, seeded random weights, external and merged adapters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle
from made_once import made_once

MADE_ELSEWHERE = "DUALTUNE_TEST_BUNDLE"  # its folder, on a machine without the build side


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's folder; tests that change it take `bundle`."""
    if made := os.environ.get(MADE_ELSEWHERE):
        return Path(made)
    return made_once("desk", tiny_bundle.export_bundle, tmp_path_factory) / "bundle"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture
def change_manifest(bundle: Path) -> Callable[[Callable[[dict[str, Any]], object]], None]:
    """Apply a change to the manifest, and seal it again."""
    return lambda apply: tiny_bundle.change_manifest(bundle, apply)


@pytest.fixture
def reseal(bundle: Path) -> Callable[[], None]:
    """Bring sizes and hashes in the manifest up to date."""
    return lambda: tiny_bundle.reseal(bundle)
