"""What a plain HTTP client sees: hosts, origins, keys, queues and clients that leave."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.serve.guard import BODY_BYTES, LOOPBACK, Guard
from dualtune_edge.toolkit.errors import StoreError


def ask(
    url: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """(status, headers in lower case, the JSON or text of the body)."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request("GET" if data is None else "POST", path, data, dict(headers or {}))
    response = connection.getresponse()
    text = response.read().decode()
    kind = response.headers.get_content_type()
    return (
        response.status,
        {k.lower(): v for k, v in response.headers.items()},
        json.loads(text) if "json" in kind else text,
    )


def chat(running: Any, text: str = "hello", **settings: object) -> dict[str, Any]:
    return {"model": running.service.model, "messages": [{"role": "user", "content": text}], **settings}


CHAT = "/v1/chat/completions"


def test_health_and_metrics(running: Any) -> None:
    assert ask(running.url, "/health")[2]["status"] == "ok"
    ask(running.url, CHAT, chat(running))
    text = ask(running.url, "/metrics")[2]
    assert f'dualtune_edge_requests_total{{path="{CHAT}",status="200"}} 1.0' in text
    assert "dualtune_edge_answer_seconds_count 1.0" in text


def test_health_names_what_the_store_has_by_now(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ask(running.url, "/health")[2]
    assert (state["release"], state["superseded"]) == (None, None)
    monkeypatch.setattr(Bundle, "superseded", property(lambda _: "helper 8"))
    assert ask(running.url, "/health")[2]["superseded"] == "helper 8"

    def damaged(_: Bundle) -> str:
        raise StoreError("store.json", found="nothing", expected="a store", fix="Install it.")

    monkeypatch.setattr(Bundle, "superseded", property(damaged))
    status, _, state = ask(running.url, "/health")
    assert (status, state["status"], state["superseded"]) == (200, "ok", None)
    assert "store.json" in state["store_error"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/completions", "/nowhere"])
def test_another_path_or_method_has_openais_error(path: str, running: Any) -> None:
    status, _, body = ask(running.url, path)
    assert status in {404, 405}
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"model": 1}', b'{"a": NaN}', b"[" * 100_000, b"\xff", b'{"a": 1, "a": 2}']
)
def test_a_malformed_body_is_a_400(body: bytes, running: Any) -> None:
    status, _, answer = ask(running.url, CHAT, body)
    assert status == 400
    assert answer["error"]["message"]


def test_a_body_too_large_is_a_413(running: Any) -> None:
    assert ask(running.url, CHAT, b" " * (BODY_BYTES + 1))[0] == 413


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "user@localhost", ""])
def test_a_rebound_host_is_refused(host: str, running: Any) -> None:
    status, _, body = ask(running.url, "/health", headers={"Host": host})
    assert (status, body["error"]["code"]) in {(403, "unknown_host"), (400, None)}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
def test_a_page_of_another_origin_is_refused(origin: str, running: Any) -> None:
    status, headers, body = ask(running.url, CHAT, chat(running), {"Origin": origin})
    assert (status, body["error"]["code"]) == (403, "unknown_origin")
    assert "access-control-allow-origin" not in headers
    assert running.agent.seen == []


def test_its_own_pages_may_ask(running: Any) -> None:
    assert ask(running.url, CHAT, chat(running), {"Origin": running.url})[0] == 200


def test_an_allowed_origin_may_read_the_answer(start: Callable[..., Any]) -> None:
    running = start(guard=Guard(origins=("https://app.example",)))
    status, headers, _ = ask(running.url, CHAT, chat(running), {"Origin": "https://app.example"})
    assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")


def preflight(url: str, origin: str, path: str = CHAT) -> tuple[int, Mapping[str, str]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    connection.request("OPTIONS", path, headers={"Origin": origin, **asked})
    response = connection.getresponse()
    response.read()
    return response.status, {name.lower(): value for name, value in response.headers.items()}


@pytest.mark.parametrize("key", [None, "secret"])
def test_a_browser_may_ask_first_for_an_allowed_origin_only(key: str | None, start: Callable[..., Any]) -> None:
    running = start(guard=Guard(origins=("https://app.example",), key=key))
    status, headers = preflight(running.url, "https://app.example")
    assert status == 204
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in headers["access-control-allow-methods"]
    for origin in ("https://evil.example", "null", "https://app.example.evil"):
        status, headers = preflight(running.url, origin)
        assert status == 403
        assert not [name for name in headers if name.startswith("access-control")]


def test_what_takes_too_long_is_a_504(running: Any) -> None:
    status, _, body = ask(running.url, CHAT, chat(running, "late"))
    assert (status, body["error"]["code"]) == (504, "StoppedError")


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic secret", "secret"])
def test_a_key_is_asked_for(header: str | None, start: Callable[..., Any]) -> None:
    running = start(guard=Guard(LOOPBACK, key="secret"))
    status, _, body = ask(running.url, CHAT, chat(running), {"Authorization": header} if header else {})
    assert (status, body["error"]["type"]) == (401, "authentication_error")
    assert ask(running.url, CHAT, chat(running), {"Authorization": "Bearer secret"})[0] == 200


def test_too_many_that_wait_get_a_429_and_the_others_their_own_answers(start: Callable[..., Any]) -> None:
    running = start(waiting=2)
    running.agent.leave.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, running.url, CHAT, chat(running, "0"))
        running.agent.entered.wait(20)
        others = [pool.submit(ask, running.url, CHAT, chat(running, str(number))) for number in range(1, 7)]
        refused = []
        while len(refused) < 4:
            refused = [other for other in others if other.done()]
        running.agent.leave.set()
        answers = [future.result() for future in (first, *others)]
    assert sorted(status for status, _, _ in answers) == [200] * 3 + [429] * 4
    assert all(headers["retry-after"] == "1" for status, headers, _ in answers if status == 429)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_call_and_frees_the_engine(stream: Any, running: Any) -> None:
    running.agent.leave.clear()
    place = urlsplit(running.url)
    body = json.dumps(chat(running, stream=stream)).encode()
    with socket.create_connection((place.hostname, place.port)) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert running.agent.entered.wait(20)
    assert running.agent.cancelled.wait(20)
    running.agent.leave.set()
    assert ask(running.url, CHAT, chat(running))[0] == 200


def test_fifty_clients_of_whom_ten_leave_get_no_lost_and_no_mixed_answer(start: Callable[..., Any]) -> None:
    running = start(waiting=100)
    place = urlsplit(running.url)
    running.agent.echo = True
    answers: dict[int, str] = {}

    def one(number: int) -> None:
        body = json.dumps(chat(running, f"<{number}>", stream=number % 2 == 0)).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        leaves = number % 5 == 0
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            connection.sendall(head.encode() + (body[: len(body) // 2] if leaves and number % 3 == 0 else body))
            if not leaves:
                answers[number] = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            elif number % 3 == 1:
                connection.recv(1)  # it leaves while its answer comes

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(50)))
    assert sorted(answers) == [number for number in range(50) if number % 5]
    for number, text in answers.items():
        assert text.startswith("HTTP/1.1 200")
        assert re.findall(r"<[0-9]+>", text) == [f"<{number}>"]
    while running.service.queue.length:  # of those that left
        pass
    assert ask(running.url, CHAT, chat(running, "<50>"))[2]["choices"][0]["message"]["content"].strip() == "to <50>"
