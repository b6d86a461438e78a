"""The page in headless Chromium, at a desktop's width and at a phone's, by keyboard alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome

SCRIPT = Path(__file__).parent / "clients" / "page.mjs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tools:
    """One tool, whose calls are counted. What it says looks like a page of its own."""

    count = 0

    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return Offer({"git": frozenset({"log"})}, frozenset(), ())

    def call(self, *_: object, **__: object) -> ToolOutcome:
        self.count += 1
        return ToolOutcome("<script>document.title = 'gone'</script>\n<b>two</b> commits")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_task_by_keyboard(start: Callable[..., Any], node: Callable[..., str]) -> None:
    tools = Tools()
    running = start(tools=tools, policy=Policy())
    running.agent.calls = 2
    seen = json.loads(node(SCRIPT.read_text(encoding="utf-8"), running.url, str(CHROMIUM)))
    assert tools.count == 2  # one at each width: the others were denied
    for width in ("desktop", "phone"):
        page = seen[width]
        assert (page["faults"], page["troubles"], page["wider"]) == ([], [], False)
        assert [text.partition(":")[0] for text in page["approvals"]] == ["Allowed", "Denied"]
        allowed, denied = page["results"]
        assert "<b>two</b> commits" in allowed
        assert denied.startswith("error: the call was not made")
        assert page["arguments"] == ["path", '"größe"'] * 2
        assert page["said"] == ["what changed?", "It is done."]
        assert page["bars"].count("log") == 2
        assert page["waterfall"][-1] == "answer"
