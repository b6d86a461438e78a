"""BFCL v4, all 600 rows: each gold call is reachable under its functions' constraint; mutated calls are not."""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dualtune_edge.runtime.decode.choice import choose
from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of
from dualtune_edge.toolkit.prompts.messages import call
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.tool_files import parse_tools
from dualtune_edge.toolkit.tools.toolset import Tool

DATA = Path(os.environ.get("DUALTUNE_BFCL", Path(__file__).parents[3] / "shared" / "data" / "bfcl"))
FILES = ("BFCL_v4_simple_python.json", "BFCL_v4_multiple.json")
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(),
    reason=f"the BFCL data is not at {DATA}: it lies beside the checkout, or where DUALTUNE_BFCL says",
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
VOCABULARY = 1_024  # of the logits: more than the tokenizer's own, as in real models

# Accepted values of the gold answers that the row's own schema refuses: they are the data's mistakes.
CONTRADICTIONS = {
    ("simple_python_17", "formatted", ""): "may be left out, and is required",
    ("simple_python_149", "company_names", '[["Apple"], ["Microsoft"]]'): "lists in a list of strings",
    ("simple_python_200", "fuel_efficiency", ""): "may be left out, and is required",
    ("simple_python_307", "venue", "true"): "a boolean for a string",
    ("simple_python_358", "diet", '["GF"]'): "not in the enum",
    ("simple_python_358", "diet", '["gluten free"]'): "not in the enum (case)",
    ("multiple_76", "material", '"bronze"'): "not in the enum (case)",
}
# A value that is wrong for each of BFCL's types. `any` has none.
WRONG: dict[str, Any] = {
    "string": 17,
    "integer": "17",
    "float": "1.5",
    "boolean": "yes",
    "array": {"0": 1},
    "tuple": "1, 2",
    "dict": [1],
}
LEFT_OUT = object()


@dataclass(frozen=True, eq=False)
class Row:
    """One row: its functions as BFCL has them and as tools, and the gold call's accepted values for each argument."""

    name: str
    functions: dict[str, dict[str, Any]]
    tools: dict[str, Tool]
    tool: Tool  # the gold call's
    accepted: dict[str, list[Any]]

    @property
    def required(self) -> list[str]:
        return list(self.functions[self.tool.name]["parameters"].get("required", []))

    def gold(self) -> dict[str, Any]:
        """The gold call with each argument's first value that its schema allows."""
        values = {name: next(self.values(name)) for name in self.accepted}
        return {name: value for name, value in values.items() if value is not LEFT_OUT}

    def values(self, argument: str) -> Iterator[Any]:
        """Every accepted value of an argument, `LEFT_OUT` among them, without the data's mistakes."""
        for value in self.accepted[argument]:
            if (self.name, argument, written(value)) not in CONTRADICTIONS:
                yield LEFT_OUT if value == "" else plain(value)

    def calls(self) -> Iterator[dict[str, Any]]:
        """The gold call, and each call that differs from it by one accepted value."""
        gold = self.gold()
        yield gold
        for argument in self.accepted:
            for value in islice(self.values(argument), 1, None):
                yield changed(gold, argument, value)


@functools.cache
def rows() -> tuple[Row, ...]:
    result = []
    for file in FILES:
        questions = (DATA / file).read_text(encoding="utf-8").splitlines()
        answers = (DATA / "possible_answer" / file).read_text(encoding="utf-8").splitlines()
        for question, answer in zip(map(json.loads, questions), map(json.loads, answers), strict=True):
            assert question["id"] == answer["id"]
            tools = {tool.name: tool for tool in parse_tools(question["function"], where=question["id"])}
            functions = {function["name"]: function for function in question["function"]}
            ((name, accepted),) = answer["ground_truth"][0].items()
            result.append(Row(question["id"], functions, tools, tools[name], accepted))
    return tuple(result)


def plain(value: Any) -> Any:
    """An accepted value as it is called with: inside of a dict, BFCL lists the accepted values of each key."""
    if isinstance(value, dict):
        return {key: plain(options[0]) for key, options in value.items() if options[0] != ""}
    return [plain(item) for item in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    return "" if value == "" else json.dumps(value)


def changed(arguments: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    rest = {key: other for key, other in arguments.items() if key != name}
    return rest if value is LEFT_OUT else {**rest, name: value}


def backwards(value: Any) -> Any:
    """The properties of every object in the reverse order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@functools.cache
def tokenizer() -> Tokenizer:
    """A byte-level BPE whose merges straddle the borders of JSON, learnt from the functions themselves."""
    result = Tokenizer(models.BPE())
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 64,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    result.train_from_iterator((json.dumps(row.accepted) + "}\n</tool_call>" for row in rows()), trainer)
    return result


@functools.cache
def frame() -> Frame:
    """Behind the name, the built-in template's frame is the same for every tool."""
    tool = Tool(name="any", parameters={"type": "object", "properties": {"a": {}}})
    return frame_of(prompter("arguments", (tool,), tool.name))


def prompter(template: str, tools: tuple[Tool, ...], tool: str | None = None) -> Prompter:
    file = resources.files("dualtune_edge.toolkit") / "templates" / f"{template}.jinja"
    return Prompter(ChatTemplate(file.read_text(encoding="utf-8"), where=template), tokenizer(), tools, tool)


class Constraint:
    """The constraint on one tool's arguments, asked about whole calls."""

    def __init__(self, tool: Tool) -> None:
        grammar = compile_grammar(tool, frame(), constraint_tokenizer())
        assert grammar.unenforced == ()
        self.tool, self.matcher = tool, grammar.matcher()

    def reaches(self, arguments: dict[str, Any]) -> bool:
        """Whether the model could write exactly these arguments, token by token, to the end."""
        text = frame().pending + frame().dumps(arguments) + frame().tail
        tokens = tokenizer().encode(text, add_special_tokens=False).ids
        matcher: LLMatcher = self.matcher
        matcher.reset()
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@functools.cache
def constraint(row: Row) -> Constraint:
    """On the arguments of a row's gold tool."""
    return Constraint(row.tool)


@functools.cache
def constraint_tokenizer() -> Any:
    end = tokenizer().token_to_id("<|im_end|>")
    return open_tokenizer(tokenizer().to_str(), vocab_size=VOCABULARY, end_of_turn=[end])


class Insisting:
    """An engine whose model wants one token sequence after the prompt, and nothing else."""

    def __init__(self, wanted: tuple[int, ...]) -> None:
        self.wanted, self.tokens = wanted, (0,)

    def logits(self) -> NDArray[np.float32]:
        result = np.zeros(VOCABULARY, dtype=np.float32)
        at = len(self.tokens) - 1
        if self.tokens[1:] == self.wanted[:at] and at < len(self.wanted):
            result[self.wanted[at]] = 30
        return result

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self.tokens += tuple(tokens)
        return self.logits()

    def rewind(self, length: int) -> None:
        self.tokens = self.tokens[:length]


@functools.cache
def selection(row: Row) -> tuple[Prompter, dict[str, tuple[int, ...]]]:
    """How the functions of a row are chosen among: each one's completion."""
    renders = prompter("selection", tuple(row.tools.values()))
    return renders, {name: renders.completion(call(name)) for name in row.tools}


def chosen(row: Row, name: str) -> tuple[str, float]:
    """What is chosen among a row's functions when the model insists on `name`, and its probability."""
    renders, completions = selection(row)
    wanted = completions[name] if name in completions else renders.completion(call(name))
    engine: Any = Insisting(wanted)
    choice = choose(engine, engine.logits(), completions)
    return choice.winner, choice.probability


def test_all_rows_are_there() -> None:
    assert len(rows()) == 600


@pytest.mark.parametrize("order", ["as written", "reversed"])
def test_every_gold_call_is_reachable(order: str) -> None:
    unreachable = []
    for row in rows():
        calls = [backwards(call) if order == "reversed" else call for call in row.calls()]
        unreachable += [(row.name, arguments) for arguments in calls if not constraint(row).reaches(arguments)]
    assert unreachable == []


def test_every_gold_tool_is_chosen_where_the_model_wants_it() -> None:
    for row in rows():
        name, probability = chosen(row, row.tool.name)
        assert (row.name, name) == (row.name, row.tool.name)
        assert probability == pytest.approx(1)


def test_the_contradictions_are_refused_as_the_schema_says() -> None:
    seen = set()
    for row in rows():
        for argument, options in row.accepted.items():
            for value in options:
                key = (row.name, argument, written(value))
                if key in CONTRADICTIONS:
                    seen.add(key)
                    wrong = changed(row.gold(), argument, LEFT_OUT if value == "" else plain(value))
                    assert not constraint(row).reaches(wrong), key
    assert seen == set(CONTRADICTIONS)


def test_a_wrong_type_is_not_reachable() -> None:
    reached, tried = [], 0
    for row in rows():
        gold = row.gold()
        declared = row.functions[row.tool.name]["parameters"]["properties"]
        for argument in gold:
            if declared[argument].get("type", "any") != "any":
                wrong = changed(gold, argument, WRONG[declared[argument]["type"]])
                reached += [(row.name, wrong)] if constraint(row).reaches(wrong) else []
                tried += 1
    assert reached == []
    assert tried > 1_400


def test_a_missing_required_argument_is_not_reachable() -> None:
    reached, tried = [], 0
    for row in rows():
        gold = row.gold()
        for argument in row.required:
            wrong = changed(gold, argument, LEFT_OUT)
            reached += [(row.name, wrong)] if constraint(row).reaches(wrong) else []
            tried += 1
    assert reached == []
    assert tried > 1_200


def test_an_undeclared_argument_is_not_reachable() -> None:
    wrong = [(row.name, {**row.gold(), "undeclared": 1}) for row in rows()]
    assert [value for row, value in zip(rows(), wrong, strict=True) if constraint(row).reaches(value[1])] == []


def test_an_unknown_tool_is_not_chosen_however_much_the_model_wants_it() -> None:
    for at, row in enumerate(rows()):
        unknown = (f"{row.tool.name}_", row.tool.name[:-1], "unknown")[at % 3]
        assert unknown not in row.tools
        assert chosen(row, unknown)[0] in row.tools
