from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.serve.current_agent import CurrentAgent


class Opened:
    def __init__(self) -> None:
        self.closings = 0

    def close(self) -> None:
        self.closings += 1


@pytest.fixture
def agents() -> list[Any]:
    return [Opened() for _ in range(3)]


def test_one_that_is_replaced_stays_open_until_its_last_request_has_ended(agents: list[Any]) -> None:
    old, new, _ = agents
    with CurrentAgent(old, "bundle") as current:
        with current.lease() as first:
            with current.lease() as second:
                current.replace(new)
                assert (first, second, current.agent) == (old, old, new)
            assert old.closings == 0
            with current.lease() as third:
                assert third is new
        assert (old.closings, new.closings) == (1, 0)
    assert [agent.closings for agent in agents] == [1, 1, 0]


def test_one_that_nobody_uses_is_closed_at_once(agents: list[Any]) -> None:
    with CurrentAgent(agents[0], "bundle") as current:
        for number in (1, 2):
            current.replace(agents[number])
            assert [agent.closings for agent in agents] == [1] * number + [0] * (3 - number)
    assert [agent.closings for agent in agents] == [1, 1, 1]


def test_a_request_that_fails_counts_as_ended(agents: list[Any]) -> None:
    current = CurrentAgent(agents[0], "bundle")

    def fail() -> None:
        with current.lease():
            current.replace(agents[1])
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        fail()
    assert agents[0].closings == 1


def test_a_link_keeps_its_own_name(agents: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop-7").mkdir()
    (tmp_path / "shop").symlink_to("shop-7")
    monkeypatch.chdir(tmp_path / "shop-7")
    for root, name in (("../shop", "shop"), (".", "shop-7"), (tmp_path / "shop" / "x" / "..", "shop")):
        assert CurrentAgent(agents[0], root).name == name
