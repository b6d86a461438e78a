"""A teacher by script for the notes of `server.py`: it speaks chat/completions, and draws from the wordings below.

It stands in for a large model, so that the page can be run without one. It knows the requests that it has written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

PORT: Final = 8791
WORDS: Final = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
_ASK: Final = "[|please |hey, |ok, |now |hi! ][|please |can you |could you ]"
_BEGIN: Final = "[|hey, |ok, |now |hi! |sorry, ]"
_NOTE: Final = "[|the note |my note |note ]{name}"
_NEW: Final = "[a note|a new note|the note|a note named] {name}"
_AS: Final = "[as|as the note|under the name|in a new note|in the note] {name}"
_MY: Final = "[all|the|my|all my] notes"
# What people say → the call: of [these|those] one is drawn, and so are names and texts.
_SAID: Final = {
    "list_notes": (
        _ASK + "[list|show|show me|name|give me] " + _MY,
        _BEGIN + "[which|what] notes [are there|do I have|do i have|have I got|did I write]?",
        _ASK + "[list|show me|tell me] the names of " + _MY,
        _BEGIN + "[notes overview|overview of my notes|all notes|my notes][|, please]",
        _BEGIN + "what [did I write down|have I written down|did i note] so far?",
        _BEGIN + "how many notes [are there|do I have|have I got]?",
    ),
    "read_note": (
        _ASK + "[read|open|show|show me|print|look up] " + _NOTE,
        _BEGIN + "what does " + _NOTE + " [say|tell me|contain]?",
        _BEGIN + "[whats|what is|what's|what stands] in " + _NOTE + "?",
        _BEGIN + "I [need|want|have] to [see|read|check] " + _NOTE,
        _ASK + "[read me|tell me|show me] what [stands in|is in] " + _NOTE,
        _BEGIN + "I [forgot|do not know any more] what " + _NOTE + " says",
    ),
    "add_note": (
        _ASK + "[add|create|write|make] " + _NEW + ' [with the text|that says|saying] "{text}"',
        _ASK + '[write|put|save|keep|note down] "{text}" ' + _AS,
        _BEGIN + '[new note|note] {name}: "{text}"',
        _BEGIN + 'I [want|need|would like] "{text}" [kept|saved|written down] ' + _AS,
        _BEGIN + '"{text}" [goes|belongs] into ' + _NEW,
    ),
    "remove_note": (
        _ASK + "[remove|delete|erase|drop|throw away|get rid of] " + _NOTE,
        _BEGIN + "I [do not|don't|dont|no longer] need " + _NOTE + "[| any more][|, throw it away|, delete it]",
        _BEGIN + _NOTE + " [can go|is obsolete, remove it|may be deleted]",
        _ASK + "[take away|clear away|wipe] " + _NOTE,
        _BEGIN + "[away|off] with " + _NOTE,
    ),
}
_TALK: Final = (
    "[thanks|thank you|great][|, {name} was all I wanted|, that was it|, that helps a lot]",
    "[good morning|good evening|hello|hi there]![| I slept well in {name}| how are you?| it rains in {name}]",
    "what is the [capital|weather|price] of {name}?",
    "you are [quick|slow|kind|clever] today[|, {name}]",
    "[bye|goodbye|see you][|, I am off to {name}|, until tomorrow]",
    "do you [like|know|trust] [the word {name}|music|people|{name}]?",
    "[how are you|who are you|are you there][| today| now|, {name}]?",
    "[tell me a joke|sing a song|say something nice][| about {name}]",
)
_THEN: Final = "[ and then | and after that |, then |; then ]"
_LAST: Final = "[list|show me|tell me|give me] [|the names of ]" + _MY
_CHOICE: Final = re.compile(r"\[([^]]*)\]")


def requests(prompt: str, seed: int) -> str:
    """Requests of the kind that the prompt asks for, a line each."""
    rng = Random(seed)  # noqa: S311 - wordings, not secrets
    count, wanted = re.findall(r"^Write (\d+) different (.*)", prompt, re.MULTILINE)[0]
    there = re.findall(r"^(\S+)\.txt$", prompt, re.MULTILINE)
    if "need no tool" in wanted:
        return "\n".join(_drawn(rng, rng.choice(_TALK), there) for _ in range(int(count)))
    tool = re.findall(r"the tool (\w+)", wanted)[0]
    names = [] if tool == "add_note" else there
    lines = [_drawn(rng, rng.choice(_SAID[tool]), names) for _ in range(int(count))]
    if "more calls" in wanted:
        lines = [line.rstrip("?") + _drawn(rng, _THEN + _LAST, names) for line in lines]
    return "\n".join(lines)


def _drawn(rng: Random, wording: str, names: Sequence[str]) -> str:
    """The wording with a name of these, or a new one where there are none."""
    name = rng.choice(names) if names else "-".join(rng.sample(WORDS, 2))
    text = " ".join(rng.sample(WORDS, rng.randint(2, 4)))
    return _CHOICE.sub(lambda choice: rng.choice(choice[1].split("|")), wording).format(name=name, text=text)


def calls(request: str) -> list[tuple[str, dict[str, str]]]:
    """The calls that a request of ours needs."""
    return [call for part in re.split(_pattern(_THEN), request) if (call := _call(part))]


def _call(text: str) -> tuple[str, dict[str, str]] | None:
    for tool, wordings in {**_SAID, "list_notes": (*_SAID["list_notes"], _LAST)}.items():
        for wording in wordings:
            if match := re.fullmatch(_pattern(wording.removesuffix("?")) + r"\??", text):
                return tool, dict(sorted(match.groupdict().items()))  # as the schema has them
    return None


def _pattern(wording: str) -> str:
    """A regular expression of all that can be drawn of a wording."""
    plain = re.escape(wording).replace(r"\[", "(?:").replace(r"\]", ")").replace(r"\|", "|")
    return plain.replace(r"\{name\}", r"(?P<name>\w+-\w+)").replace(r"\{text\}", '(?P<text>[^"]+)')


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
