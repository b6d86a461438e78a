"""Real MCP servers of the official SDK, as processes that misbehave one way each."""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.servers import Servers, Timeouts
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.bundle.manifest import Manifest, ToolsetEntry
from dualtune_edge.toolkit.tools.tool_files import parse_tools

SERVER = Path(__file__).with_name("misbehaving_server.py")
SECONDS = Timeouts(connect=20, list_tools=10, call=2, close=2)
LISTED = [  # as the SDK lists the tools of misbehaving_server.py
    {
        "name": "log",
        "description": "History",
        "inputSchema": {
            "type": "object",
            "properties": {"count": {"title": "Count", "type": "integer"}},
            "required": ["count"],
            "title": "logArguments",
        },
    },
    {"name": "ask", "description": "", "inputSchema": {"type": "object", "properties": {}, "title": "askArguments"}},
    {
        "name": "change",
        "description": "",
        "inputSchema": {"type": "object", "properties": {}, "title": "changeArguments"},
    },
]


def config(fault: str = "") -> ServerConfig:
    return ServerConfig(command=sys.executable, args=(str(SERVER), fault))


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    """A bundle's, whose toolset `git` is what the test server has."""
    manifest = open_bundle(exported).manifest
    files, git = manifest.toolsets
    toolset = git.toolset.model_copy(update={"tools": parse_tools(LISTED, where="test")})
    entry = ToolsetEntry(toolset=toolset, selection=git.selection, arguments=git.arguments)
    return manifest.model_copy(update={"toolsets": (files, entry)})


def connected(fault: str) -> Iterator[Servers]:
    with Servers({"git": config(fault)}, SECONDS) as servers:
        yield servers


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    yield from connected(getattr(request, "param", ""))


def note(offer: Offer, start: str) -> str:
    (found,) = [line for line in offer.notes if line.startswith(start)]
    return found


def test_a_server_is_the_toolset_of_its_name(servers: Servers, manifest: Manifest) -> None:
    offer = servers.offer(manifest)
    assert offer.tools == {"git": {"log", "ask", "change"}}
    assert offer.read_only == {("git", "log")}
    assert note(offer, "files") == "files: no server of this name is connected"
    assert servers.call("git", "log", {"count": 2}).text == "2 commits"


@pytest.mark.parametrize(
    ("fault", "why"), [("broken", "no configuration file"), ("silent", "did not answer within 10 s")]
)
def test_a_server_that_does_not_start_is_left_out_and_the_others_go_on(
    fault: str, why: str, manifest: Manifest
) -> None:
    seconds = Timeouts(connect=10 if fault == "silent" else 30, close=1)
    with Servers({"files": config(fault), "git": config()}, seconds) as servers:
        offer = servers.offer(manifest)
    assert set(offer.tools) == {"git"}
    assert why in note(offer, "files")


@pytest.mark.parametrize(
    ("servers", "expected"),
    [("dies", "Connection closed"), ("hangs", "timed out"), ("raises", "no such revision")],
    indirect=["servers"],
)
def test_a_call_that_fails_is_a_result(servers: Servers, expected: str) -> None:
    outcome = servers.call("git", "log", {"count": 1})
    assert outcome.error
    assert expected in outcome.text


@pytest.mark.parametrize("servers", ["dies"], indirect=True)
def test_a_server_that_died_is_no_longer_offered(servers: Servers, manifest: Manifest) -> None:
    servers.call("git", "log", {"count": 1})
    assert servers.offer(manifest).tools == {}
    assert servers.call("git", "log", {"count": 1}).error


@pytest.mark.parametrize("servers", ["huge"], indirect=True)
def test_a_large_result_arrives_whole(servers: Servers) -> None:
    assert len(servers.call("git", "log", {"count": 1}).text) == 1_000_000


@pytest.mark.parametrize("servers", ["bytes"], indirect=True)
def test_stray_bytes_between_messages_stop_nothing(servers: Servers) -> None:
    assert servers.call("git", "log", {"count": 7}).text == "7 commits"


def test_a_form_is_declined_and_the_result_says_what_it_asked(servers: Servers) -> None:
    outcome = servers.call("git", "ask", {})
    assert "the form: decline" in outcome.text
    assert "Your password?" in outcome.text


def test_a_changed_list_is_followed(servers: Servers, manifest: Manifest) -> None:
    servers.call("git", "change", {})
    offer = servers.offer(manifest)
    assert offer.tools == {"git": {"ask", "change"}}
    assert note(offer, "git.log") == "git.log: the server no longer has it"


@pytest.mark.parametrize("servers", ["hangs"], indirect=True)
def test_a_cancelled_call_ends_at_once(servers: Servers) -> None:
    cancel = threading.Event()
    cancel.set()
    start = time.monotonic()
    assert servers.call("git", "log", {"count": 1}, cancel=cancel).text == "error: the run was stopped"
    assert time.monotonic() - start < SECONDS.call


@pytest.mark.parametrize("servers", ["unlisted"], indirect=True)
def test_a_server_that_lists_nothing_in_time_is_left_out_and_a_run_that_ends_waits_for_none(
    servers: Servers, manifest: Manifest
) -> None:
    cancel = threading.Event()
    cancel.set()
    assert note(servers.offer(manifest, cancel=cancel), "git") == "git: the run was stopped"
    hasty = Servers({"git": config("unlisted"), "files": config("unlisted")}, replace(SECONDS, list_tools=0.2))
    with hasty:
        notes = hasty.offer(manifest).notes
    assert notes == ("git: no answer within 0.2 s", "files: no answer within 0.2 s")
