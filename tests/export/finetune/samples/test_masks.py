from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from dualtune_edge.export.finetune.samples.masks import MASKS, Sample
from dualtune_edge.export.finetune.settings import Objective
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.no_tool import no_tool_entry
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool

TEMPLATES = Path(__file__).parents[4] / "toolkit" / "templates"
PATHS = {"type": "object", "properties": {"path": {"type": "string"}, "head": {"type": "integer"}}}
TOOLS = (Tool(name="read", parameters=PATHS), Tool(name="read_file", parameters=PATHS), no_tool_entry())
CONTEXT = (user("list"), call("read", {"path": "b"}), Message(role="tool", content="ok"), user("and ä?"))


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    """Its tokens straddle the borders: `_file"}` and `"}}` are single tokens."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    lines = ['_file"}', 'read_file"', '"}}', ': {"', '{"name": "', '"parameters": ', "<tool_call>\n"] * 9
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def sample(tokenizer: Tokenizer, objective: Objective, name: str, arguments: dict[str, object]) -> tuple[str, str]:
    """(what is fed before, what is learnt) as text."""
    source = (TEMPLATES / f"{'selection' if objective == 'selection' else 'arguments'}.jinja").read_text(
        encoding="utf-8"
    )
    tool = name if objective == "arguments" else None
    prompter = Prompter(ChatTemplate(source, where="test"), tokenizer, TOOLS, tool)
    made: Sample = MASKS[objective](prompter).sample(CONTEXT, call(name, arguments))
    cut = len(made.tokens) - made.learnt
    decode = tokenizer.decode
    before, learnt = (decode(list(part), skip_special_tokens=False) for part in (made.tokens[:cut], made.tokens[cut:]))
    assert before.startswith(prompter.text(CONTEXT, generate=True))
    return before, learnt


@pytest.mark.parametrize(
    ("name", "learnt"), [("read", 'read"}'), ("read_file", 'read_file"}'), ("summarize", 'summarize"')]
)
def test_selection_learns_the_name_and_the_token_that_closes_it(merging: Tokenizer, name: str, learnt: str) -> None:
    before, found = sample(merging, "selection", name, {"path": "x"})
    assert found == learnt
    assert before.endswith('<tool_call>\n{"name": "')


def test_the_token_that_closes_a_name_tells_it_from_a_longer_one(merging: Tokenizer) -> None:
    _, short = sample(merging, "selection", "read", {})
    _, long = sample(merging, "selection", "read_file", {})
    assert not short.startswith(long)
    assert not long.startswith(short)


def test_arguments_learn_what_follows_the_frame_as_it_was_written(merging: Tokenizer) -> None:
    before, learnt = sample(merging, "arguments", "read", {"head": 2, "path": "ä"})
    whole = before + learnt
    call_text = whole[whole.rindex('{"name"') :]
    assert call_text.startswith('{"name": "read", "parameters": {"head": 2, "path": "ä"}')
    assert call_text in '{"name": "read", "parameters": {"head": 2, "path": "ä"}}'
    assert '"read"' not in learnt
    assert "path" in learnt


def test_arguments_end_with_the_token_that_holds_their_last_character(merging: Tokenizer) -> None:
    _, straddling = sample(merging, "arguments", "read", {"path": "x"})
    assert straddling.endswith('"}}')  # one token
    _, exact = sample(merging, "arguments", "read", {"head": 1})
    assert exact.endswith("1}")


def test_joint_learns_the_whole_call_to_the_end_of_the_turn(merging: Tokenizer) -> None:
    before, learnt = sample(merging, "joint", "read_file", {"path": "x"})
    assert learnt == '{"name": "read_file", "parameters": {"path": "x"}}<|im_end|>'
    assert before.endswith("<|im_start|>assistant\n")


def test_joint_learns_a_call_behind_a_control_token(merging: Tokenizer) -> None:
    """As Llama 3.1's turns begin a call."""
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.tool_calls %}<|endoftext|>{{ c.function.name }}"
        "{% endfor %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    prompter = Prompter(ChatTemplate(source, where="test"), merging, TOOLS)
    made = MASKS["joint"](prompter).sample(CONTEXT, call("read"))
    assert merging.decode(list(made.tokens[-made.learnt :]), skip_special_tokens=False) == "<|endoftext|>read<|im_end|>"


@pytest.mark.parametrize("text", ["Done.", " ä\n\n- two", "}}"])
def test_answers_are_learnt_to_the_end_of_the_turn(merging: Tokenizer, text: str) -> None:
    template = ChatTemplate((TEMPLATES / "answer.jinja").read_text(encoding="utf-8"), where="test")
    prompter = Prompter(template, merging, ())
    made = MASKS["answer"](prompter).sample(CONTEXT, Message(role="assistant", content=text))
    prompt = prompter.tokens(CONTEXT)
    assert made.tokens[: -made.learnt] == prompt
    assert merging.decode(list(made.tokens[-made.learnt :]), skip_special_tokens=False) == f"{text}<|im_end|>"


@pytest.mark.parametrize("objective", ["selection", "arguments", "joint"])
def test_training_sees_the_tokens_that_inference_feeds(merging: Tokenizer, objective: Objective) -> None:
    source = (TEMPLATES / f"{'selection' if objective == 'selection' else 'arguments'}.jinja").read_text(
        encoding="utf-8"
    )
    tool = "read" if objective == "arguments" else None
    prompter = Prompter(ChatTemplate(source, where="test"), merging, TOOLS, tool)
    made = MASKS[objective](prompter).sample(CONTEXT, call("read", {"path": "x"}))
    prompt = prompter.tokens(CONTEXT)
    follow = {
        "selection": lambda: prompter.completion(call("read")),
        "arguments": lambda: frame_of(prompter).tokens,
        "joint": lambda: prompter.completion(call("read", {"path": "x"})),
    }[objective]()
    fed = (*prompt, *follow)
    common = min(len(fed), len(made.tokens))
    assert made.tokens[:common] == fed[:common]
    assert made.learnt < len(made.tokens) - len(prompt) + 1


TWICE = "{% for m in messages %}{{ m.role }}:{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.name }}{% endfor %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"  # noqa: E501
COUNTING = "{% for m in messages %}{% set n = loop.index %}{{ m.role }}:{% for c in m.tool_calls %}{{ n }} {{ c.function.name }}{% endfor %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"  # noqa: E501


@pytest.mark.parametrize(("source", "found"), [(TWICE, "readread"), (COUNTING, "after this conversation")])
def test_a_template_that_writes_names_otherwise_is_refused(merging: Tokenizer, source: str, found: str) -> None:
    prompter = Prompter(ChatTemplate(source, where="odd.jinja"), merging, TOOLS)
    with pytest.raises(TemplateError, match=r"odd\.jinja") as error:
        MASKS["selection"](prompter).sample(CONTEXT, call("read"))
    assert found in error.value.found
