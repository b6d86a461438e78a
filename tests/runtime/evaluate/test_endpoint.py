"""An endpoint: what is sent, what its answers count as, and its failures by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from scripted_answers import request

from dualtune_edge import cli
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.evaluate.answers import answers
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.runtime.evaluate.endpoint import Endpoint, _function_names, http_post
from dualtune_edge.runtime.evaluate.report import Evaluation
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import EngineError, RequestError
from dualtune_edge.toolkit.prompts.messages import Message, call, user


def answer(name: str | None, arguments: Any = "{}") -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": arguments}}] if name else None
    return {"choices": [{"message": {"content": "x", "tool_calls": calls}}]}


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    return open_bundle(exported).manifest


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (answer("log", '{"count": 3}'), ("git", "log", {"count": 3})),
        (answer("log", {"count": 3}), ("git", "log", {"count": 3})),
        (answer("log", ""), ("git", "log", {})),
        (answer("log", "{'count'"), ("git", "log", None)),
        (answer("log", "[1]"), ("git", "log", None)),
        (answer("invented"), ("", "invented", {})),
        (answer(None), ("", None, None)),
    ],
)
def test_the_first_call_of_an_answer_counts(found: Any, expected: tuple[Any, ...], manifest: Manifest) -> None:
    result = Endpoint(lambda _body: found, "m", manifest).call([user("x")])
    assert (result.toolset, result.tool, result.arguments) == expected


@pytest.mark.parametrize("found", [{}, {"choices": []}, {"choices": [{"message": None}]}, [], 3])
def test_another_answer_than_openais_is_named(found: Any, manifest: Manifest) -> None:
    with pytest.raises(EngineError, match="chat/completions"):
        Endpoint(lambda _body: found, "m", manifest).call([user("x")])


def test_tools_and_earlier_calls_are_sent_as_openai_takes_them(manifest: Manifest) -> None:
    sent: list[dict[str, Any]] = []

    def post(body: dict[str, Any]) -> Any:
        sent.append(body)
        return answer(None)

    endpoint = Endpoint(post, "m", manifest)
    endpoint.call([user("x"), call("log", {"count": 1}), Message(role="tool", content="a"), user("y")])
    endpoint.call([user("x")], toolset="git")
    endpoint.call([user("x")], offered={"files": {"read"}})
    names = [[tool["function"]["name"] for tool in body["tools"]] for body in sent]
    assert names == [["read", "sort", "roots", "log"], ["log"], ["read"]]
    assert (sent[0]["model"], sent[0]["temperature"]) == ("m", 0)
    earlier, result = sent[0]["messages"][1:3]
    assert earlier["tool_calls"][0]["function"] == {"name": "log", "arguments": '{"count": 1}'}
    assert earlier["tool_calls"][0]["id"] == result["tool_call_id"]
    two = Message(role="assistant", tool_calls=(*call("log", {}).tool_calls, *call("read", {}).tool_calls))
    endpoint.call([user("x"), two, Message(role="tool", content="a"), Message(role="tool", content="b")])
    calls, *results = sent[-1]["messages"][1:]
    assert [one["id"] for one in calls["tool_calls"]] == [result["tool_call_id"] for result in results]


@pytest.mark.parametrize("found", [answer(None), answer("invented")])
def test_with_one_toolset_on_offer_it_is_asked_once(found: Any, manifest: Manifest) -> None:
    """A second request within it would be the same one."""
    endpoint = Endpoint(lambda _body: found, "m", manifest)
    of_one = manifest.model_copy(update={"toolsets": manifest.toolsets[1:]})
    assert endpoint.call([user("x")], offered={"git": {"log"}}).toolset == "git"
    assert endpoint.call([user("x")], toolset="git").toolset == "git"
    assert Endpoint(lambda _body: found, "m", of_one).call([user("x")]).toolset == "git"
    sent: list[Any] = []
    asked = Endpoint(lambda body: (sent.append(body), found)[1], "m", of_one)
    answers(asked, [Case(request("git", "log"))], lambda _number: None)
    assert len(sent) == 1


def test_names_are_ones_that_openai_takes_and_each_is_one_tools() -> None:
    pairs = [("a", "read"), ("b", "read"), ("a", "math.area"), ("a", "math_area"), ("a", "x" * 90), ("a", "x" * 91)]
    names = _function_names(pairs)
    assert (names["a", "read"], names["b", "read"], names["a", "math.area"]) == ("a__read", "b__read", "math_area")
    assert len(set(names.values())) == len(pairs)
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in names.values())


class Handler(BaseHTTPRequestHandler):
    status, body = 200, json.dumps(answer("log", '{"count": 4}'))

    asked: ClassVar[list[tuple[str, str | None]]] = []  # path and key of each request

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(type(self).body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, "too long", RequestError),
        (401, "no key", EngineError),
        (500, "", EngineError),
        (200, "no JSON", EngineError),
    ],
)
def test_a_refused_request_is_one_answer_and_a_failure_is_the_end(
    status: int, body: str, kind: type[Exception], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    monkeypatch.setattr(Handler, "body", body)
    with pytest.raises(kind) as raised:
        http_post(url, "key")({})
    assert type(raised.value) is kind
    assert Handler.asked[-1] == ("/v1/chat/completions", "Bearer key")


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        http_post("http://127.0.0.1:1/v1", None)({})


def test_the_command_compares_a_bundle_with_an_endpoint(
    exported: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": {"count": 4}}}]}
    line = {"toolset": "git", "messages": [{"role": "user", "content": "four"}, turn]}
    (tmp_path / "h.jsonl").write_text(json.dumps(line), encoding="utf-8")
    flags = ["--data", str(tmp_path / "h.jsonl"), "--against", url, "--against-model", "teacher", "--threads", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(exported), *flags, "--json"])
    assert not ended.value.code
    report = Evaluation.model_validate_json(capsys.readouterr().out)
    assert report.against
    other = report.against.other
    assert (other.name, other.calibration, other.scores.toolsets) == ("teacher", None, None)
    assert (other.scores.routed_calls.right, other.scores.routed_calls.of) == (1, 1)
