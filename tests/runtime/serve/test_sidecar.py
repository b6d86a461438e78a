"""As an app's sidecar: a Unix socket of this user alone, an end with the app, and the examples of docs/sidecar.md."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from dualtune_edge import cli
from dualtune_edge.toolkit.errors import EdgeError, OutputError, SpecError

if sys.platform == "win32":
    pytest.skip("there are no such sockets", allow_module_level=True)

from dualtune_edge.runtime.serve import sidecar
from dualtune_edge.runtime.serve.sidecar import listening

EXAMPLES = Path(__file__).parents[3] / "docs" / "sidecar"
LOOK = 60  # seconds: longer than any of it takes


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A path that is short enough."""
    folder = tmp_path_factory.mktemp("s")
    with contextlib.chdir(folder):
        yield folder / "app.sock"


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(LOOK)
    connection.connect(str(path))
    return connection


class TestTheSocket:
    def test_it_is_of_this_user_and_goes_with_its_server(self, place: Path) -> None:
        with listening(place) as own:
            assert stat.S_IMODE(place.stat().st_mode) == 0o600
            with connect(place), own.accept()[0]:
                pass
        assert not place.exists()

    def test_whoever_comes_early_waits(self, place: Path) -> None:
        with listening(place) as own, connect(place) as early:
            early.sendall(b"hello")
            with own.accept()[0] as late:
                assert late.recv(5) == b"hello"

    def test_one_that_a_killed_server_left_is_replaced(self, place: Path) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as killed:
            killed.bind(str(place))
        with listening(place), connect(place):
            pass

    def test_one_on_which_somebody_listens_is_refused(self, place: Path) -> None:
        with listening(place) as own:
            with pytest.raises(OutputError, match="a server that listens there"), listening(place):
                pass
            with own.accept()[0]:  # the refused one looked
                pass
            with connect(place), own.accept()[0]:
                pass

    def test_one_whose_queue_is_full_is_refused(self, place: Path) -> None:
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            full.bind(str(place))
            full.listen(0)
            stack.enter_context(connect(place))
            with pytest.raises(OutputError, match="a server that listens there"), listening(place):
                pass

    @pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
    def test_what_is_no_socket_is_left_alone(self, kind: str, place: Path) -> None:
        {
            "file": place.touch,
            "folder": place.mkdir,
            "link": lambda: place.symlink_to("nowhere"),
            "pipe": lambda: os.mkfifo(place),
        }[kind]()
        before = place.lstat()
        with pytest.raises(OutputError, match="no socket"), listening(place):
            pass
        assert os.path.samestat(before, place.lstat())

    def test_one_of_another_user_is_left_alone(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
            other.bind(str(place))
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(OutputError, match=f"a socket of user {user}"), listening(place):
            pass
        assert place.is_socket()

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_a_folder_in_which_others_can_replace_it(self, mode: int, place: Path) -> None:
        place.parent.chmod(mode)
        with pytest.raises(OutputError, match=f"mode {mode:o}"), listening(place):
            pass
        place.parent.chmod(mode | stat.S_ISVTX)  # as /tmp
        with listening(place):
            pass

    @pytest.mark.parametrize("name", ["x" * 200, "nowhere/app.sock"])
    def test_a_path_where_none_can_be(self, name: str, place: Path) -> None:
        with pytest.raises(EdgeError), listening(place.parent / name):
            pass
        assert list(place.parent.iterdir()) == []

    def test_whoever_took_its_place_keeps_it(self, place: Path) -> None:
        with listening(place):
            place.unlink()
            place.touch()
        assert place.is_file()


def serve(bundle: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dualtune_edge", "serve", str(bundle), *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def line(log: IO[str] | None, event: str) -> dict[str, Any]:
    """The next line of this event."""
    for text in log or ():
        if text.startswith("{") and (found := json.loads(text))["event"] == event:
            return dict(found)
    raise AssertionError(f"no line {event!r}")


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LOOK)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path)


def status(path: Path, asked: str, **headers: str) -> int:
    connection = Connection(path)
    connection.request("GET", asked, headers=headers)
    return connection.getresponse().status


@pytest.mark.parametrize("end", ["stdin", "SIGTERM"])
def test_the_same_service_until_it_is_stopped(end: str, place: Path, exported: Path) -> None:
    with serve(exported, "--socket", "app.sock", "--until-stdin-closes") as process:
        assert process.stdin
        ready = line(process.stderr, "ready")
        assert (ready["socket"], ready["model"]) == (str(place), exported.name)
        assert "url" not in ready
        process.stdin.write("what an app writes is passed over\n")
        process.stdin.flush()
        assert [status(place, path) for path in ("/health", "/v1/toolsets", "/nowhere")] == [200, 200, 404]
        assert status(place, "/health", Host="app.example") == 403  # of a proxy in front of it, for a page
        assert status(place, "/health", Origin="https://app.example") == 403
        if end == "stdin":
            process.stdin.close()
        else:
            process.terminate()
        assert line(process.stderr, "stopping")
        assert process.wait(LOOK) == (0 if end == "stdin" else 128 + signal.SIGTERM)
        assert not place.exists()


def test_it_ends_with_an_app_that_is_killed(place: Path, exported: Path) -> None:
    command = [sys.executable, "-m", "dualtune_edge", "serve", str(exported), "--socket", str(place)]
    app = (
        "import subprocess, sys\n"
        f"subprocess.Popen({[*command, '--until-stdin-closes']!r}, stdin=subprocess.PIPE)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", app], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line(process.stderr, "ready")
        process.kill()
        assert line(process.stderr, "stopping")
        assert process.stderr
        assert process.stderr.read() == ""  # until the sidecar has closed it, at its end
    assert not place.exists()


class TestStdin:
    @pytest.mark.parametrize("kind", ["pipe", "socket"])
    def test_it_is_noticed_that_it_closes(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pair = os.pipe() if kind == "pipe" else tuple(end.detach() for end in socket.socketpair())
        monkeypatch.setattr(sidecar, "_STDIN", pair[0])
        closed = sidecar.when_stdin_closes()
        os.write(pair[1], b"what an app writes is passed over\n" * 1000)
        assert not closed.is_set()
        os.close(pair[1])
        assert closed.wait(LOOK)
        os.close(pair[0])

    @pytest.mark.parametrize(("kind", "found"), [("null", "a file"), ("file", "a file"), ("closed", "no stdin")])
    def test_one_that_says_nothing_of_the_app(
        self, kind: str, found: str, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.touch()
        descriptor = os.open("/dev/null" if kind == "null" else place, os.O_RDONLY)
        if kind == "closed":
            os.close(descriptor)
        monkeypatch.setattr(sidecar, "_STDIN", descriptor)
        with pytest.raises(SpecError, match=f"found {found}"):
            sidecar.when_stdin_closes()
        if kind != "closed":
            os.close(descriptor)


@pytest.mark.parametrize("option", ["--port=0", "--host=127.0.0.1"])
def test_one_place_to_listen_on(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "nowhere", "--socket", "app.sock", option])
    assert ended.value.code == SpecError.exit_code
    assert "one place to listen on" in capsys.readouterr().err


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dualtune-edge` on the path, as an installation has it."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "dualtune-edge"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dualtune_edge "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("command")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the example")
def test_the_example_in_c(place: Path, exported: Path) -> None:
    words = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", "sidecar"]
    subprocess.run([*words, str(EXAMPLES / "sidecar.c")], check=True)
    tools = [{"type": "function", "function": {"name": "log"}}]
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": exported.name, "messages": messages, "tools": tools, "tool_choice": "required"}
    Path("request.json").write_text(json.dumps(body), encoding="utf-8")
    arguments = ["./sidecar", str(exported), str(place), "request.json"]
    ran = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=True, timeout=2 * LOOK)
    (choice,) = json.loads(ran.stdout)["choices"]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "log"
    assert not place.exists()
    assert subprocess.run(["./sidecar", "nowhere", str(place), "request.json"], capture_output=True).returncode == 1  # noqa: PLW1510


@pytest.mark.usefixtures("command")
def test_the_example_in_javascript(place: Path, exported: Path, node: Callable[..., str]) -> None:
    script = (EXAMPLES / "sidecar.mjs").read_text(encoding="utf-8")
    assert json.loads(node(script, str(exported), str(place), "log", "hello"))["name"] == "log"
    assert not place.exists()
