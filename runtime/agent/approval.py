"""Who may call what: rules from a file, and a person's word where the rules say `ask`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import Field

from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import validate

Rule: TypeAlias = Literal["ask", "allow", "deny"]
Reply: TypeAlias = Literal["once", "tool", "server", "no", "never"]


class ServerRules(Frozen):
    """Rules for one server. A tool's own rule wins over the server's."""

    default: Rule | None = None
    tools: dict[str, Rule] = Field(default_factory=dict)


class Policy(Frozen):
    """The rules of a run.

    A tool's rule wins over its server's, that over `default`. Where neither the tool nor its server has a rule, a tool
    that a `trusted` server annotates as read-only is allowed: annotations are hints, and others' are not believed.
    """

    default: Rule = "ask"
    trusted: tuple[str, ...] = ()
    servers: dict[str, ServerRules] = Field(default_factory=dict)

    def rule(self, call: PendingCall) -> tuple[Rule, str]:
        """The rule for a call, and where it stands."""
        own = self.servers.get(call.server, ServerRules())
        if call.tool in own.tools:
            return own.tools[call.tool], f"the policy's rule for {call.server}.{call.tool}"
        if own.default:
            return own.default, f"the policy's rule for {call.server}"
        if call.read_only and call.server in self.trusted:
            return "allow", f"{call.server} is trusted and says that the tool only reads"
        return self.default, "the policy's default"


def read_policy(path: Path) -> Policy:
    """Read a policy's TOML file.

    Raises:
        SpecError: no TOML, an unknown key, or a rule that is none of `ask`, `allow` and `deny`.

    """
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(str(path), found=str(error), expected="a TOML file", fix="Check the file.") from None
    return validate(Policy, value, where=str(path), error=SpecError)


@dataclass(frozen=True)
class PendingCall:
    """A call that waits for approval: its arguments are what the server will be sent."""

    server: str
    tool: str
    arguments: dict[str, Any]
    read_only: bool  # as the server says: a hint


@dataclass(frozen=True)
class Approval:
    """Whether a call may be made, and why."""

    allowed: bool
    reason: str


class Approver(Protocol):
    """Decides over calls, one at a time."""

    def rule(self, call: PendingCall) -> tuple[Rule, str]:
        """The rule that holds for the call now, and where it stands."""

    def ask(self, call: PendingCall) -> Approval:
        """The decision where the rule is `ask`; it may wait for a person."""


@dataclass
class PolicyApprover:
    """A policy, and what its user said in this session.

    Without `prompt` nobody can be asked, so what the policy does not allow is denied.
    """

    policy: Policy
    prompt: Callable[[PendingCall], Reply] | None = None
    _said: dict[tuple[str, str | None], Rule] = field(default_factory=dict)  # (server, tool; None: all of them)

    def rule(self, call: PendingCall) -> tuple[Rule, str]:
        """The session's word where there is one, except that it never overrules a `deny` of the policy."""
        rule, where = self.policy.rule(call)
        if rule != "ask":
            return rule, where
        for key in ((call.server, call.tool), (call.server, None)):
            if key in self._said:
                return self._said[key], "the user's word for this session"
        return rule, where

    def ask(self, call: PendingCall) -> Approval:
        """Ask the person, and remember an answer for the session."""
        if self.prompt is None:
            return Approval(allowed=False, reason="nobody is here to be asked, and no policy allows it")
        reply = self.prompt(call)
        if reply == "tool":
            self._said[call.server, call.tool] = "allow"
        elif reply == "server":
            self._said[call.server, None] = "allow"
        elif reply == "never":
            self._said[call.server, call.tool] = "deny"
        allowed = reply in {"once", "tool", "server"}
        return Approval(allowed, "the user allowed it" if allowed else "the user denied it")
