"""Made-up servers like the kit's two: nothing of the real ones' names is left, and every call fits."""

from collections import Counter
from random import Random

import pytest
from dualtune_edge_kit.training.data import kin, toolsets, trajectories
from dualtune_edge_kit.training.data.typed import conversations

REAL = {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}


@pytest.mark.parametrize("toolset", toolsets.NAMES)
def test_every_tool_has_words_of_its_own(toolset: str) -> None:
    known = {tool: words for (owner, tool), words in kin.table().tools.items() if owner == toolset}
    assert set(known) == {tool.name for tool in toolsets.load(toolset).toolset.tools}
    names = Counter(name for words in known.values() for name in words.names)
    assert [name for name, count in names.items() if count > 1] == []
    assert min(len(words.names) for words in known.values()) >= 8
    assert min(len(set(words.said)) for words in known.values()) >= 6


@pytest.mark.parametrize("toolset", toolsets.NAMES)
def test_a_server_has_no_real_name_and_one_name_a_tool_and_an_argument(toolset: str) -> None:
    for seed in range(200):
        server = kin.make(Random(seed), toolset)  # noqa: S311
        names = [tool.name for tool in server.tools.values()]
        assert len(set(names)) == len(names)
        assert not REAL & set(names)
        for real in toolsets.load(toolset).toolset.tools:
            made = server.tools[real.name].parameters
            assert len(made["properties"]) == len(real.parameters.get("properties", {}))
            assert set(made["required"]) <= set(made["properties"])


@pytest.mark.parametrize("toolset", toolsets.NAMES)
def test_a_renamed_conversation_calls_the_servers_tools_with_arguments_that_fit(toolset: str) -> None:
    rng = Random(toolset)  # noqa: S311
    tools = [tool.name for tool in toolsets.load(toolset).toolset.tools]
    for tool in tools * 4:
        server = kin.make(rng, toolset)
        real = trajectories.conversation(rng, toolset, tool, "train")
        renamed = server.renamed(real)
        by_name = {made.name: made for made in server.tools.values()}
        for before, after in zip(real, renamed, strict=True):
            assert before.role == after.role
            for called, call in zip(before.tool_calls, after.tool_calls, strict=True):
                assert call.function.name == server.tools[called.function.name].name
                assert list(call.function.arguments.values()) == list(called.function.arguments.values())
                assert by_name[call.function.name].reading.fault(call.function.arguments) is None


def test_a_request_that_says_a_tools_name_says_the_servers() -> None:
    rng = Random(8)  # noqa: S311
    said = 0
    for _ in range(150):
        server = kin.make(rng, "git")
        (asked, *_) = server.renamed(conversations.single(rng, "git_reset", "train"))
        assert not REAL & set(str(asked.content).split())
        said += server.tools["git_reset"].name in str(asked.content)
    assert said > 0
