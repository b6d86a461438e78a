"""The entry for no tool stands in a prompt once, whoever writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.no_tool import lists_entry, no_tool_entry, selection_prompter
from dualtune_edge.toolkit.tools.toolset import Tool

BUILT_IN = Path(__file__).parents[3] / "toolkit" / "templates"
KIT = Path(__file__).parents[3] / "kit" / "dualtune_edge_kit" / "templates"
TOOLS = (Tool(name="water", description="Water it"), Tool(name="prune", description="Prune {it}"))
JSON = "{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
INDENTED = "{% for t in tools %}{{ t | tojson(indent=2) }},\n\n{% endfor %}"
FUNCTIONS = "<tools>{% for t in tools %}\n{{ t.function | tojson }}{% endfor %}"
NAMES = "{% for t in tools %}- {{ t.function.name }}\n{% endfor %}"
ENTRY = '{"function": {"name": "summarize"}, "type": "function"}'
TURNS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}"
    "{% else %}{{ m.content }}{% endif %};\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
LISTED = {
    "behind": JSON + ENTRY + "\n",
    "before": ENTRY + "\n" + JSON,
    "with a description": JSON + '{"type": "function", "function": {"description": "Sum up", "name": "summarize"}}\n',
    "with parameters": FUNCTIONS + '\n{"name": "summarize", "parameters": {}}</tools>\n',
    "indented": INDENTED + '{\n  "function": {\n    "name": "summarize"\n  }\n}\n',
    "in a list": "[{% for t in tools %}{{ t | tojson }}, {% endfor %}" + ENTRY + "]",
    "from a variable": JSON + "{% set own = '" + ENTRY + "' %}{{ own }}\n",
    "as a name": "Choose:\n" + NAMES + "- summarize\nOne of these.\n",
    "as a name before": "- summarize\n" + NAMES,
    "as a name with words": "{% for t in tools %}{{ t.function.name }}: x\n{% endfor %}summarize: answer in words\n",
    "as markup": '{% for t in tools %}<tool id="{{ t.function.name }}"/>\n{% endfor %}<tool id="summarize"/>\n',
}
NOT_LISTED = {
    "nothing": JSON,
    "no tools": "",
    "in a sentence": "Call `summarize` when none fits.\n" + JSON,
    "in a sentence behind": NAMES + "\nIf none fits, say summarize.\n",
    "as an example": JSON + '</tools>\nSay {"name": "summarize"} when none fits.\n',
    "in a longer name": JSON + '{"function": {"name": "summarize_page"}}\n',
    "as a longer name": NAMES + "- summarize_page\n",
    "names alone": NAMES,
    "built-in": (BUILT_IN / "selection.jinja").read_text(encoding="utf-8"),
    "kit": (KIT / "selection.jinja").read_text(encoding="utf-8"),
    "a failure": "{{ raise_exception('no') }}",
}


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, where="test.jinja")


def tokenizer() -> Tokenizer:
    made = Tokenizer(BPE({letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    return made


@pytest.mark.parametrize("name", LISTED)
def test_a_template_that_lists_the_entry_is_not_given_another(name: str) -> None:
    prompter = selection_prompter(template(LISTED[name] + TURNS), tokenizer(), TOOLS, "summarize")
    assert prompter.text([user("x")], generate=True).count("summarize") == 1
    assert (prompter.tools, prompter.choices) == (TOOLS, ("water", "prune", "summarize"))


@pytest.mark.parametrize("name", NOT_LISTED)
def test_a_template_that_only_speaks_of_it_is_given_the_entry(name: str) -> None:
    prompter = selection_prompter(template(NOT_LISTED[name] + TURNS), tokenizer(), TOOLS, "summarize")
    assert [tool.name for tool in prompter.tools] == ["water", "prune", "summarize"]
    assert prompter.choices == ("water", "prune", "summarize")


def test_an_entry_of_another_name_is_another_tool() -> None:
    assert lists_entry(template(JSON + ENTRY), "summarize")
    assert not lists_entry(template(JSON + ENTRY), "nothing")


def test_the_entry_is_that_of_every_bundle_there_is() -> None:
    """Prompts that show all toolsets hold it, and adapters have learnt it."""
    assert no_tool_entry("none").model_dump_json() == (
        '{"name":"none","description":"Answer the user without calling a tool",'
        '"parameters":{"type":"object","properties":{},"additionalProperties":false}}'
    )
