"""A teacher by script for the notes of `server.py`: it speaks chat/completions, and draws from the wordings below.

It stands in for a large model, so that the page can be run without one. It knows the requests that it has written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final

PORT: Final = 8791
_WORDS: Final = (
    "anchor",
    "bridge",
    "candle",
    "copper",
    "desert",
    "engine",
    "falcon",
    "garden",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "marble",
    "needle",
    "orange",
    "pepper",
    "quartz",
    "ribbon",
    "saddle",
    "temple",
    "umbrella",
    "valley",
    "window",
    "yellow",
)
_SAID: Final = {  # what people say → the call; names and texts are drawn
    "list_notes": (
        "list all notes",
        "which notes are there?",
        "what notes do i have",
        "show me the names of my notes",
        "notes overview",
        "what did I write down so far?",
    ),
    "read_note": (
        "read the note {name}",
        "what does {name} say?",
        "show me {name}",
        "open the note {name}, I forgot what it says",
        "whats in {name}",
        "I need to see my note {name}",
    ),
    "add_note": (
        'add a note {name} with the text "{text}"',
        'write "{text}" into a new note {name}',
        'new note {name}: "{text}"',
        'please note down "{text}" as {name}',
        'keep "{text}" under the name {name}',
        'could you save "{text}" as the note {name}?',
    ),
    "remove_note": (
        "remove the note {name}",
        "delete {name}",
        "get rid of {name}",
        "i dont need {name} any more, throw it away",
        "drop the note {name}",
        "can you erase {name}?",
    ),
}
_TALK: Final = (
    "thanks, {name} was all I wanted",
    "good morning! I slept well in {name}",
    "what is the capital of {name}?",
    "you are quick today, {name}",
    "bye, I am off to {name}",
    "do you like the word {name}?",
)
_OPENINGS: Final = ("", "please ", "hey, ", "ok, ", "now ", "hi! ", "one thing: ")
_THEN: Final = " and then "


def requests(prompt: str, seed: int) -> str:
    """Requests of the kind that the prompt asks for, a line each."""
    rng = Random(seed)  # noqa: S311 - wordings, not secrets
    count, wanted = re.findall(r"^Write (\d+) different (.*)", prompt, re.MULTILINE)[0]
    there = re.findall(r"^(\S+)\.txt$", prompt, re.MULTILINE)
    if "need no tool" in wanted:
        lines = [_filled(rng, rng.choice(_TALK), there) for _ in range(int(count))]
    else:
        tool = re.findall(r"the tool (\w+)", wanted)[0]
        names = [] if tool == "add_note" else there
        lines = [_filled(rng, rng.choice(_SAID[tool]), names) for _ in range(int(count))]
        if "more calls" in wanted:
            lines = [line.rstrip("?") + _THEN + rng.choice(_SAID["list_notes"]) for line in lines]
    return "\n".join(lines)


def _filled(rng: Random, wording: str, names: Sequence[str]) -> str:
    """The wording with a name of these, or a new one where there are none."""
    name = rng.choice(names) if names else "-".join(rng.sample(_WORDS, 2))
    return rng.choice(_OPENINGS) + wording.format(name=name, text=" ".join(rng.sample(_WORDS, rng.randint(2, 4))))


def calls(request: str) -> list[tuple[str, dict[str, str]]]:
    """The calls that a request of ours needs."""
    return [call for part in request.split(_THEN) if (call := _call(part))]


def _call(text: str) -> tuple[str, dict[str, str]] | None:
    opening = next(opening for opening in reversed(_OPENINGS) if text.startswith(opening))
    text = text.removeprefix(opening)
    for tool, wordings in _SAID.items():
        for wording in wordings:
            pattern = (
                re.escape(wording).replace(r"\{name\}", r"(?P<name>[\w-]+)").replace(r"\{text\}", '(?P<text>[^"]+)')
            )
            if match := re.fullmatch(pattern.removesuffix(r"\?") + r"\??", text):
                return tool, match.groupdict()
    return None


def message(body: dict[str, Any]) -> dict[str, Any]:
    """The assistant's next message."""
    messages = body["messages"]
    if not body.get("tools"):
        return {"role": "assistant", "content": requests(messages[-1]["content"], body["seed"])}
    done = [entry["content"] for entry in messages if entry["role"] == "tool"]
    wanted = calls(messages[1]["content"])
    if len(done) == len(wanted):
        return {"role": "assistant", "content": f"Done: {done[-1]}" if done else "Gladly."}
    name, arguments = wanted[len(done)]
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "tool_calls": [{"id": f"call_{len(done)}", "type": "function", "function": function}]}


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions."""

    def do_POST(self) -> None:
        """Answer a request; four characters count as a token."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = message(body)
        usage = {"prompt_tokens": len(json.dumps(body)) // 4, "completion_tokens": len(json.dumps(said)) // 4}
        usage["total_tokens"] = sum(usage.values())
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        data = json.dumps(answer | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else PORT), Handler).serve_forever()
