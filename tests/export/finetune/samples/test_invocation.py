"""The tokens with which a template begins an assistant's turn."""

from __future__ import annotations

from importlib import resources

import pytest

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.samples.invocation import invocation_of
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of
from dualtune_edge.toolkit.prompts.no_tool import selection_prompter
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool

TOOLS = (Tool(name="read", parameters={"properties": {"path": {"type": "string"}}}), Tool(name="status"))
TURNS = "{% for message in messages %}<|im_start|>{{ message.role }}: {{ message.content }}<|im_end|>{% endfor %}"


def builtin(name: str) -> str:
    return (resources.files("dualtune_edge.toolkit") / "templates" / f"{name}.jinja").read_text("utf-8")


@pytest.mark.parametrize("name", ["activated", "selection", "arguments"])
def test_of_the_built_in_templates_it_is_the_assistant_s_header(base: Base, name: str) -> None:
    prompter = Prompter(ChatTemplate(builtin(name), where=name), base.checkpoint.tokenizer, TOOLS, "read")
    found = invocation_of(prompter)
    text = base.checkpoint.tokenizer.decode(list(found), skip_special_tokens=False)
    assert text == "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "source",
    [
        TURNS,  # none
        TURNS + "{% if add_generation_prompt %}<|im_start|>{{ messages[-1].role }}, go on{% endif %}",  # of the turn
        "{% if add_generation_prompt %}Answer.{% endif %}" + TURNS,  # before the conversation
    ],
)
def test_a_template_without_one_is_refused(base: Base, source: str) -> None:
    prompter = Prompter(ChatTemplate(source, where="own"), base.checkpoint.tokenizer, TOOLS)
    with pytest.raises(TemplateError, match="generation prompt"):
        invocation_of(prompter)


def test_selection_and_arguments_have_one_prompt_up_to_the_answer(base: Base) -> None:
    """The built-in template for activated adapters: the same tools, the entry for none among them, the same turns."""
    from dualtune_edge.toolkit.prompts.messages import Message, call, user

    template = ChatTemplate(builtin("activated"), where="activated")
    selection = selection_prompter(template, base.checkpoint.tokenizer, TOOLS, "summarize")
    arguments = Prompter(template, base.checkpoint.tokenizer, TOOLS, "read")
    assert selection.unlisted == ("summarize",)
    assert selection.prefix() == arguments.prefix()
    messages = [user("read a"), call("read", {"path": "a"}), Message(role="tool", content="text"), user("and b")]
    assert selection.tokens(messages) == arguments.tokens(messages)
    frame = frame_of(arguments)
    written = base.checkpoint.tokenizer.decode(list(frame.tokens), skip_special_tokens=False) + frame.pending
    assert written == '{"name": "read", "parameters": '
