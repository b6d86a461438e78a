import pytest

from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

FRAME = Frame(tokens=(), pending='": ', tail="}", item_separator=", ", key_separator=": ", ascii_only=False)


READ = Tool(
    name="read",
    parameters={
        "properties": {
            "path": {"type": "string"},
            "lines": {"type": "integer"},
            "größe": {"type": "boolean"},
            "inner": {"type": "object"},
        },
        "required": ["path", "größe"],
    },
)


def guesses(text: str, written: str, frame: Frame = FRAME, tool: Tool | None = None) -> list[str]:
    return list(Drafter.of([user(text)], frame, tool).guesses(frame.pending + written))


@pytest.mark.parametrize(
    ("text", "written", "first"),
    [
        ("show /etc/hosts.", '{"path": "', '/etc/hosts"}}'),
        ("show `my notes` in /srv", '{"path": "', 'my notes"}}'),
        ("move a.txt to b.txt", '{"source": "a.txt", "target": "', 'b.txt"}}'),
        ("move a.txt to b.txt", '{"source": "a.t', 'xt"}}'),
        ("open a.txt and b.txt", '{"paths": ["a.txt"', ', "b.txt"]}}'),
        ("open a.txt and b.txt", '{"paths": ["', 'a.txt", "b.txt"]}}'),
        ("open a.txt and b.txt", '{"paths": ["a.txt", "b.txt"', "]}}"),
        ("the last 46 lines of a.txt", '{"path": "a.txt", "tail": ', "46}}"),
        ("the last 46 lines of a.txt", '{"path": "a.txt", "tail": 46', "}}"),
        ("commit it as fix the parser", '{"message": "fix the p', 'arser"}}'),
        ("commit it as fix the parser", '{"message": "fix', '"}}'),
        ("show \tx/y", '{"path": "/abs/x/', 'y"}}'),
        ("see C:\\temp\\a", '{"path": "', 'C:\\\\temp\\\\a"}}'),
        ("say “größe” loudly", '{"text": "', 'größe"}}'),
    ],
)
def test_the_first_guess(text: str, written: str, first: str) -> None:
    assert guesses(text, written)[0] == first


@pytest.mark.parametrize("written", ["{", '{"pa', '{"a": "x", '])
def test_names_are_not_guessed_without_the_tool(written: str) -> None:
    assert not guesses("look at /etc/hosts", written)


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ("{", '"path": "/etc/hosts", "größe": '),
        ('{"', 'path": "/etc/hosts", "größe": '),
        ('{"l', 'ines": 7, "path": '),
        ('{"path": "', '/etc/hosts", "größe": '),
        ('{"path": "a"', ', "größe": '),
        ('{"path": "a", ', '"lines": 7, "größe": '),
        ('{"path": "a", "gr', 'öße": true}}'),
        ('{"path": "a", "größe": true, "', 'lines": 7}}'),
    ],
)
def test_properties_that_are_left_are_guessed_in_the_order_of_the_schema(written: str, first: str) -> None:
    assert guesses("the first 7 of /etc/hosts", written, tool=READ)[0] == first


@pytest.mark.parametrize(
    "written", ['{"path": "a", "inner": {"', '{"path": "a", "lines": 1, "größe": true, "inner": {}, "']
)
def test_no_name_is_guessed_inside_a_value_or_where_none_is_left(written: str) -> None:
    assert not guesses("the first 7 of /etc/hosts", written, tool=READ)


def test_nothing_is_guessed_before_the_arguments_begin() -> None:
    assert not list(Drafter.of([user("look at a.txt")], FRAME).guesses('"'))


def test_the_latest_text_comes_first_and_earlier_calls_are_texts_too() -> None:
    turns = [user("see a.txt"), call("read", {"path": "b.txt"}), Message(role="tool", content="c.txt")]
    found = list(Drafter.of(turns, FRAME).guesses('": {"path": "'))
    assert [guess.partition('"')[0] for guess in found] == ["c.txt", "b.txt", "a.txt"]


def test_a_guess_is_written_as_the_template_writes_json() -> None:
    dense = FRAME.model_copy(update={"item_separator": ",", "key_separator": ":", "ascii_only": True})
    assert guesses("say `größe`", '{"text":"', dense)[0] == 'gr\\u00f6\\u00dfe"}}'
    assert guesses("open a.txt and b.txt", '{"paths":["', dense)[0] == 'a.txt","b.txt"]}}'
