"""A model behind an OpenAI-compatible endpoint, asked for the same calls as a bundle."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from dualtune_edge.runtime.result import CallResult, Timings, Tokens
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import EngineError, RequestError
from dualtune_edge.toolkit.prompts.messages import Message

Post = Callable[[dict[str, Any]], Any]
_SECONDS: Final = 120.0
_REFUSED: Final = frozenset({400, 413, 422})  # this one request
_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_MOST: Final = 64  # characters of a function's name


class Endpoint:
    """Answers conversations by `chat/completions`, at temperature 0, with the bundle's tools as functions.

    Of several calls in one answer the first counts. It says no probabilities.
    """

    def __init__(self, post: Post, model: str, manifest: Manifest) -> None:
        """`post` sends a request's body and returns the answer's."""
        self._post, self._model = post, model
        self._tools = {entry.toolset.name: entry.toolset.tools for entry in manifest.toolsets}
        pairs = [(toolset, tool.name) for toolset, tools in self._tools.items() for tool in tools]
        self._names = _function_names(pairs)

    def call(
        self,
        request: Sequence[Message],
        *,
        toolset: str | None = None,
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> CallResult:
        """The first call of the model's answer; where it calls none, or no function of ours, `toolset` is empty.

        With the tools of one toolset alone on offer it is that one.

        Raises:
            RequestError: the endpoint refuses this request.
            EngineError: it cannot be reached, fails, or answers otherwise than OpenAI's does.

        """
        functions = [
            {"type": "function", "function": self._function(name, tool.name)}
            for name, tools in self._tools.items()
            for tool in tools
            if toolset in {None, name} and (offered is None or tool.name in offered.get(name, ()))
        ]
        body = {"model": self._model, "temperature": 0, "messages": list(self._messages(request)), "tools": functions}
        answer = self._post(body)
        try:
            calls = answer["choices"][0]["message"].get("tool_calls") or []
            function = calls[0]["function"] if calls else None
            name, text = (str(function["name"]), function.get("arguments")) if function else (None, None)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(
                "endpoint",
                found=f"an answer without {error}"[:200],
                expected="choices with a message",
                fix="Check that it is OpenAI's chat/completions.",
            ) from None
        pairs = {value: key for key, value in self._names.items()}
        among = [toolset] if toolset else list(self._tools if offered is None else offered)
        chosen = pairs.get(name or "", (among[0] if len(among) == 1 else "", name))
        return _result(chosen[0], chosen[1], None if name is None else _arguments(text))

    def _function(self, toolset: str, name: str) -> dict[str, Any]:
        tool = next(tool for tool in self._tools[toolset] if tool.name == name)
        return {
            "name": self._names[toolset, name],
            "description": tool.description,
            "parameters": tool.reading.schema,
        }

    def _messages(self, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
        """With an id for every call, by the names that the endpoint knows."""
        names = {tool: name for (_, tool), name in self._names.items()}
        latest: list[str] = []
        for index, message in enumerate(messages):
            sent: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.tool_calls:
                latest = [call.id or f"call_{index}_{number}" for number, call in enumerate(message.tool_calls)]
                sent["tool_calls"] = [
                    {
                        "id": name,
                        "type": "function",
                        "function": {
                            "name": names.get(call.function.name, call.function.name),
                            "arguments": json.dumps(call.function.arguments, ensure_ascii=False),
                        },
                    }
                    for name, call in zip(latest, message.tool_calls, strict=True)
                ]
            if message.role == "tool":
                sent["tool_call_id"] = message.tool_call_id or (latest.pop(0) if latest else "call")
            yield sent


def http_post(url: str, key: str | None) -> Post:
    """Sends bodies to `url`/chat/completions, with a key if there is one."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def post(body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http or https, as the command has checked
            f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return strict_json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            kind = RequestError if error.code in _REFUSED else EngineError
            raise kind(
                url, found=f"HTTP {error.code}: {said}", expected="an answer", fix="Check the request and the key."
            ) from None
        except (OSError, http.client.HTTPException, strict_json.JsonError) as error:
            raise EngineError(
                url, found=str(error), expected="an OpenAI-compatible endpoint", fix="Check the address."
            ) from None

    return post


def _function_names(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(toolset, tool) → a name that OpenAI takes: the tool's where it is one and no other toolset has it."""
    found: dict[tuple[str, str], str] = {}
    for toolset, tool in pairs:
        alone = sum(name == tool for _, name in pairs) == 1
        plain = _NAME.sub("_", tool if alone else f"{toolset}__{tool}")[:_MOST]
        number, name = 2, plain
        while name in found.values():
            name, number = f"{plain[: _MOST - 3]}_{number}", number + 1
        found[toolset, tool] = name
    return found


def _arguments(text: Any) -> dict[str, Any] | None:
    """None where they are no JSON object: then they are wrong."""
    if isinstance(text, dict):
        return text
    try:
        value = strict_json.loads(text) if text else {}
    except (strict_json.JsonError, TypeError):
        return None
    return value if isinstance(value, dict) else None


def _result(toolset: str, tool: str | None, arguments: dict[str, Any] | None) -> CallResult:
    nothing = Tokens(prompt=0, reused=0, forced=0, decided=0, drafted=0, accepted=0, forwards=0)
    return CallResult(
        toolset=toolset,
        tool=tool,
        arguments=arguments,
        outcome="call" if tool else "no_tool",
        probability=1.0,
        alternatives=(),
        timings_ms=Timings(toolset=0, selection=0, arguments=0, total=0),
        tokens=nothing,
    )
