from pathlib import Path

import pytest

from dualtune_edge.runtime.agent.approval import PendingCall, Policy, PolicyApprover, Reply, ServerRules, read_policy
from dualtune_edge.toolkit.errors import SpecError

COMMIT = PendingCall("git", "commit", {"message": "x"}, read_only=False)
LOG = PendingCall("git", "log", {}, read_only=True)
READ = PendingCall("files", "read", {}, read_only=True)


def rule(policy: Policy, call: PendingCall) -> str:
    return policy.rule(call)[0]


def test_everything_is_asked_for_by_default_annotations_or_not() -> None:
    assert {rule(Policy(), call) for call in (COMMIT, LOG, READ)} == {"ask"}


def test_a_trusted_servers_annotation_is_believed_and_nobody_elses() -> None:
    policy = Policy(trusted=("git",))
    assert [rule(policy, call) for call in (LOG, COMMIT, READ)] == ["allow", "ask", "ask"]


def test_the_nearer_rule_wins() -> None:
    policy = Policy(
        default="allow", trusted=("git",), servers={"git": ServerRules(default="ask", tools={"log": "deny"})}
    )
    assert [rule(policy, call) for call in (LOG, COMMIT, READ)] == ["deny", "ask", "allow"]


def test_nobody_to_ask_is_no() -> None:
    approval = PolicyApprover(Policy()).ask(COMMIT)
    assert not approval.allowed
    assert "no policy allows it" in approval.reason


@pytest.mark.parametrize(
    ("reply", "allowed", "same_tool", "same_server"),
    [
        ("once", True, "ask", "ask"),
        ("tool", True, "allow", "ask"),
        ("server", True, "allow", "allow"),
        ("no", False, "ask", "ask"),
        ("never", False, "deny", "ask"),
    ],
)
def test_an_answer_holds_as_far_as_it_says(reply: Reply, *, allowed: bool, same_tool: str, same_server: str) -> None:
    approver = PolicyApprover(Policy(), lambda _: reply)
    assert approver.ask(COMMIT).allowed is allowed
    assert approver.rule(COMMIT)[0] == same_tool
    assert approver.rule(LOG)[0] == same_server
    assert approver.rule(READ)[0] == "ask"


def test_a_session_never_overrules_the_policys_deny() -> None:
    approver = PolicyApprover(Policy(servers={"git": ServerRules(tools={"log": "deny"})}), lambda _: "server")
    approver.ask(COMMIT)
    assert approver.rule(LOG)[0] == "deny"


def test_a_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('trusted = ["git"]\n[servers.files]\ndefault = "deny"\n[servers.files.tools]\nread = "allow"\n')
    policy = read_policy(path)
    assert [rule(policy, call) for call in (LOG, READ)] == ["allow", "allow"]


@pytest.mark.parametrize("text", ["default = 'perhaps'", "trust = ['git']", "[", "default = 1"])
def test_a_malformed_policy_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"policy\.toml"):
        read_policy(path)
