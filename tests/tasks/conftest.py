"""The two real servers in one temporary folder, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkable.servers import configs, missing
from dualtune_edge.runtime.agent.servers import Servers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work").resolve()


@pytest.fixture(scope="module")
def servers(root: Path) -> Iterator[Servers]:
    if fault := missing():
        pytest.skip(fault)
    with Servers(configs(root)) as opened:
        yield opened
