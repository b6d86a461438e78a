from pathlib import Path

import pytest

from dualtune_edge.runtime.agent.offer import LiveTool, Offer, offer
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.bundle.manifest import Manifest


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    return open_bundle(exported).manifest


@pytest.fixture
def live(manifest: Manifest) -> dict[str, tuple[LiveTool, ...]]:
    """Servers that list just what the bundle was made for."""
    return {
        entry.toolset.name: tuple(LiveTool(tool.name, tool) for tool in entry.toolset.tools)
        for entry in manifest.toolsets
    }


def lines(found: Offer, start: str) -> list[str]:
    return [line for line in found.notes if line.startswith(start)]


def test_equal_lists_are_offered_whole(manifest: Manifest, live: dict[str, tuple[LiveTool, ...]]) -> None:
    found = offer(manifest, live)
    assert found.tools == {"files": {"read", "sort", "roots"}, "git": {"log"}}
    assert found.notes == ()


def test_another_schema_is_refused_by_name(manifest: Manifest, live: dict[str, tuple[LiveTool, ...]]) -> None:
    (log,) = live["git"]
    assert log.tool
    wider = log.tool.model_copy(update={"parameters": {"type": "object"}})
    found = offer(manifest, live | {"git": (LiveTool("log", wider),)})
    assert set(found.tools) == {"files"}
    assert "git.log: the server's schema is not the one" in lines(found, "git.log")[0]


def test_new_tools_are_named_and_not_offered(manifest: Manifest, live: dict[str, tuple[LiveTool, ...]]) -> None:
    found = offer(manifest, live | {"git": (*live["git"], LiveTool("push", None, unreadable="x"))})
    assert found.tools["git"] == {"log"}
    assert lines(found, "git.push") == ["git.push: new on the server; the bundle has no adapter for it"]


def test_a_schema_that_cannot_be_read_says_why(manifest: Manifest, live: dict[str, tuple[LiveTool, ...]]) -> None:
    found = offer(manifest, live | {"git": (LiveTool("log", None, unreadable="no object"),)})
    assert "no object" in lines(found, "git.log")[0]


def test_a_server_without_a_toolset_is_named(manifest: Manifest, live: dict[str, tuple[LiveTool, ...]]) -> None:
    found = offer(manifest, live | {"mail": (LiveTool("send", None),)})
    assert lines(found, "mail") == ["mail: the bundle has no toolset of this name, so its tools are not offered"]
