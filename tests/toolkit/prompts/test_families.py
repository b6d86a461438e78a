"""Prompts and calls of the families whose templates know tools, token by token as transformers renders them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of
from dualtune_edge.toolkit.prompts.messages import Message, call
from dualtune_edge.toolkit.prompts.no_tool import selection_prompter
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.tool_files import parse_tools

FOLDER = Path(__file__).parent / "families"
CALLING = (
    "qwen2.5", "qwen3", "llama3.1", "llama3.2", "hermes", "mistral", "granite", "phi4-mini", "gpt-oss",
)  # fmt: skip
WITHOUT_CALLS = ("granite3", "phi4-mini-plain", "smollm3")  # they show tools, or not even these
DATED = {"llama3.2", "granite", "granite3", "smollm3", "gpt-oss"}
SPECIAL = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|start|>",
    "<|end|>", "<|call|>", "<|message|>", "<|channel|>", "<|return|>", "<|end_of_text|>", "<|start_of_role|>",
    "<|end_of_role|>", "<|system|>", "<|user|>", "<|assistant|>", "[INST]", "[/INST]", "[TOOL_CALLS]",
]  # fmt: skip
LIST = [
    {
        "type": "function",
        "function": {
            "name": "show_file",
            "description": 'Show a "file" ü',
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "Where"},
                    "head": {"type": "integer", "default": 5},
                    "mode": {"type": "string", "enum": ["r", "b"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["path"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "show_roots",
            "description": "List",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
TOOLS = parse_tools(LIST, where="test")
ARGUMENTS = {"head": 3, "path": "/a/ü b", "tags": ["x", "y"]}


def called(name: str, arguments: dict[str, Any], identity: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": identity, "type": "function", "function": function}],
    }


def result(identity: str, name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "name": name, "content": content}


ASK = [{"role": "user", "content": "Show 'a'"}]
TURN = [*ASK, called("show_file", ARGUMENTS, "abcdefgh1"), result("abcdefgh1", "show_file", "one\ntwo")]
LATER = [*TURN, called("show_roots", {}, "abcdefgh2"), result("abcdefgh2", "show_roots", '{"x": 1}')]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "first turn": ASK,
    "after a result": TURN,
    "after two": LATER,
    "after an answer": [*LATER, {"role": "assistant", "content": "Two lines."}, {"role": "user", "content": "And?"}],
    "with a system message": [{"role": "system", "content": "Be brief."}, *ASK],
    "later, with a system message": [{"role": "system", "content": "Be brief."}, *LATER],
    "with thoughts": [*ASK, {**TURN[1], "reasoning_content": "I look", "thinking": "I look"}, TURN[2]],
}


@cache
def tokenizer() -> Tokenizer:
    """Byte-level, with merges that straddle the borders of the templates' texts."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevelDecoder()
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(
        ['{"name": "show_file", "arguments": {"path": "a"}}\n</tool_call>', "assistant to="] * 9, trainer
    )
    return made


@cache
def source(family: str) -> str:
    return (FOLDER / f"{family}.jinja").read_text(encoding="utf-8")


def prompter(family: str, tool: str | None = None) -> Prompter:
    template = ChatTemplate(source(family), where=f"{family}.jinja", bos="<s>", eos="</s>")
    return Prompter(template, tokenizer(), TOOLS, tool)


def theirs(family: str, messages: list[dict[str, Any]], *, generate: bool = True) -> list[int]:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        chat_template=source(family),
        bos_token="<s>",  # noqa: S106 - a token of text
        eos_token="</s>",  # noqa: S106
    )
    ids: list[int] = fast.apply_chat_template(messages, tools=LIST, add_generation_prompt=generate, return_dict=False)
    return ids


def test_every_family_is_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == {*CALLING, *WITHOUT_CALLS}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("family", [*CALLING, *WITHOUT_CALLS])
def test_a_prompt_is_what_transformers_renders(family: str, conversation: str) -> None:
    messages = CONVERSATIONS[conversation]
    assert list(prompter(family).tokens(read_messages(messages))) == theirs(family, messages)


# Hermes ends the last result otherwise than one in between: there, no longer text begins with the prompt.
CALLED = [
    (family, conversation)
    for family in CALLING
    for conversation in ("first turn", "after a result", "after an answer")
    if (family, conversation) != ("hermes", "after a result")
]


@pytest.mark.parametrize(("family", "conversation"), CALLED)
def test_a_call_is_what_transformers_renders(family: str, conversation: str) -> None:
    messages = CONVERSATIONS[conversation]
    under_test = prompter(family, "show_file")
    frame = frame_of(under_test)
    before = under_test.tokens(read_messages(messages))
    written = tokenizer().decode([*before, *frame.tokens], skip_special_tokens=False)
    ours = written + frame.pending + frame.dumps(ARGUMENTS) + frame.tail
    whole = theirs(family, [*messages, called("show_file", ARGUMENTS, "answer000")], generate=False)
    assert tokenizer().decode(whole, skip_special_tokens=False).startswith(ours)


@pytest.mark.parametrize("family", CALLING)
def test_every_choice_has_a_call_of_its_own(family: str) -> None:
    selection = selection_prompter(prompter(family).template, tokenizer(), TOOLS, "summarize")
    completions = {name: selection.completion(call(name)) for name in selection.choices}
    assert len(set(completions.values())) == 3
    for name, tokens in completions.items():
        whole = theirs_of(selection, [*ASK, called(name, {}, "answer000")], family)
        assert [*selection.tokens(read_messages(ASK)), *tokens] == whole


def theirs_of(selection: Prompter, messages: list[dict[str, Any]], family: str) -> list[int]:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        chat_template=source(family),
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
    )
    shown = [tool.for_template() for tool in selection.tools]
    ids: list[int] = fast.apply_chat_template(messages, tools=shown, return_dict=False)
    return ids


@pytest.mark.parametrize("family", WITHOUT_CALLS)
def test_a_template_that_writes_no_calls_gives_no_frame(family: str) -> None:
    with pytest.raises(TemplateError, match=rf"{family}\.jinja.*the arguments once"):
        frame_of(prompter(family, "show_file"))


@pytest.mark.parametrize("family", [*CALLING, *WITHOUT_CALLS])
def test_a_date_is_known_to_be_one(family: str) -> None:
    assert prompter(family).writes_date() == (family in DATED)
    assert prompter(family).reads_date_string() == (family == "llama3.1")


def test_roles_that_a_template_refuses_are_an_error_of_its_own() -> None:
    two = [Message(role="user", content="a"), Message(role="user", content="b")]
    with pytest.raises(TemplateError, match="take turns"):
        prompter("mistral").tokens(two)
