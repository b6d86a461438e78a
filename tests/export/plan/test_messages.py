from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.plan.messages import request
from dualtune_edge.toolkit.tools.toolset import Tool

LOG = Tool(
    name="git_log",
    description="Shows the commit logs. With dates.\n\nArgs: …",
    parameters={
        "type": "object",
        "properties": {
            "repo_path": {"type": "string"},
            "max_count": {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 5}, {"type": "null"}]},
            "order": {"enum": ["date", "topo"]},
        },
        "required": ["repo_path"],
    },
)


def test_a_request_says_what_the_tool_does_with_values_for_what_it_needs() -> None:
    text = request(LOG, 0)
    assert text.startswith("Shows the commit logs: repo_path /srv/")
    assert "max_count" not in text


def test_another_variant_has_all_arguments_and_other_words() -> None:
    text = request(LOG, 1)
    assert any(f"max_count {count}" in text for count in (3, 4, 5))
    assert "order date" in text or "order topo" in text
    assert text != request(LOG, 3) != request(LOG, 5)


def test_the_same_request_is_made_every_time() -> None:
    assert request(LOG, 2) == request(LOG, 2)


def test_a_tool_that_says_nothing_is_asked_for_by_its_name() -> None:
    assert request(Tool(name="list_all_roots"), 0) == "list all roots"


schemas = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean", "null", "array"])}),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=3), inner)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"type": st.tuples(st.just("integer"), st.just("null")).map(list)}),
        st.just({"$ref": "#/$defs/x"}),
        st.booleans(),
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), schemas, max_size=4), st.integers(0, 7))
def test_every_schema_gives_a_text(properties: dict[str, object], variant: int) -> None:
    definitions = {"x": {"type": "integer"}}
    tool = Tool(name="any", parameters={"type": "object", "properties": properties, "$defs": definitions})
    assert request(tool, variant)
