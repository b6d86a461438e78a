import pytest

from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.decode.sources import Sources
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
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
    return list(Drafter.of(Sources.of([user(text)], frame), tool).guesses(frame.pending + written))


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
    assert not list(Drafter.of(Sources.of([user("look at a.txt")], FRAME)).guesses('"'))


def test_the_latest_text_comes_first_and_earlier_calls_are_texts_too() -> None:
    turns = [user("see a.txt"), call("read", {"path": "b.txt"}), Message(role="tool", content="c.txt")]
    found = list(Drafter.of(Sources.of(turns, FRAME)).guesses('": {"path": "'))
    assert [guess.partition('"')[0] for guess in found] == ["c.txt", "b.txt", "a.txt"]


def test_a_guess_is_written_as_the_template_writes_json() -> None:
    dense = FRAME.model_copy(update={"item_separator": ",", "key_separator": ":", "ascii_only": True})
    assert guesses("say `größe`", '{"text":"', dense)[0] == 'gr\\u00f6\\u00dfe"}}'
    assert guesses("open a.txt and b.txt", '{"paths":["', dense)[0] == 'a.txt","b.txt"]}}'


@pytest.mark.parametrize(
    ("text", "written", "every"),
    [
        ("from 46 to 5 in a.txt", '{"a": 46, "b": ', ["5}}", "true}}", '"a.txt"}}', '"46"}}', '"5"}}']),
        ("nothing here", '{"a": ', ["true}}"]),
        ("nothing here", '{"a": "', []),
        ("plain 3.5 -2 x1 word", '{"p": ', ["3.5}}", "-2}}", "true}}", '"x1"}}', '"3.5"}}', '"-2"}}']),
        ("don't see it's", '{"p": "', []),
        (
            "say \"a b\" and 'c d' or `e f` then “g h” or /x.y, 7",
            '{"a": "',
            ['a b"}}', 'c d"}}', 'e f"}}', 'g h"}}', '/x.y"}}', '7"}}'],
        ),
        ("7 of a.txt b.txt", '{"p": "', ['a.txt"}}', 'b.txt"}}', '7"}}']),  # numbers are seldom texts
        ("a.txt b.txt c.txt", '{"p": ["', ['a.txt", "b.txt"]}}', 'b.txt", "c.txt"]}}', 'c.txt"]}}']),
        ("a.txt b.txt c.txt", '{"p": ["a.txt"', [', "b.txt"]}}', ', "c.txt"]}}', "]}}"]),
        ("a.txt b.txt c.txt", '{"p": "a.txt"', ["}}"]),
        ("a.txt abc.txt", '{"p": "a', ['.txt"}}', 'bc.txt"}}', '.txt"}}']),
    ],
)
def test_all_guesses_in_their_order(text: str, written: str, every: list[str]) -> None:
    assert guesses(text, written) == every


@pytest.mark.parametrize(
    ("text", "begun", "rest"),
    [
        ("open it", "op", "en"),  # a text's very beginning
        ("please open it", "op", "en"),
        ("please open it", "please o", "pen it"),  # with a space in it, more than a word
        ("line one\nline two end", "line o", "ne"),  # but not more than a line
        ("the word here.", "he", ""),
        ("the word, here", "wo", "rd"),
        ("abc def ghi", "zz de", "f ghi"),  # of what begins otherwise, its last word
        ("abc def ghi", "zz d", None),  # of which a letter is too little
        ("abc def ghi", "zz xde", None),
        ("see " + "y" * 250 + " end", "yy", "y" * 200),
    ],
)
def test_a_text_goes_on_as_one_of_the_conversation(text: str, begun: str, rest: str | None) -> None:
    assert Drafter.of(Sources.of([user(text)], FRAME))._rest(begun) == rest


@pytest.mark.parametrize(("length", "guessed"), [(199, 199), (200, 200), (250, 200)])
def test_a_guess_has_at_most_200_characters(length: int, guessed: int) -> None:
    assert guesses(f"see `{'x' * length}`", '{"a": "') == ["x" * guessed + '"}}']


@pytest.mark.parametrize(
    ("written", "every"),
    [
        ('{"path": "a", "größe": true, ', ['"lines": 7}}', '"inner": ']),
        ('{"path": "a", "größe": true, "i', ['nner": ']),
        ('{"path": "a", "größe": true, "lines": 7, "inner": {}, ', []),
        ('{"größe": true, ', ['"path": "/etc/hosts"}}', '"lines": 7, "path": ', '"inner": ']),
    ],
)
def test_a_property_that_is_left_comes_with_a_value_of_its_type(written: str, every: list[str]) -> None:
    assert guesses("the first 7 of /etc/hosts", written, tool=READ) == every
