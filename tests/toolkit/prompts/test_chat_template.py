"""Our renderer against transformers' own on the same templates, and against hostile ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, ToolCall, call, user
from dualtune_edge.toolkit.strict_json import LFS_POINTER
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

TEMPLATES = Path(__file__).parents[3] / "toolkit" / "templates"
TOOLS = (
    Tool(name="read", description='<b> & "quotes" ü 漢', parameters={"type": "object", "properties": {"p": {}}}),
    Tool(name="ls"),
)
TWO = Message(role="assistant", tool_calls=(*call("ls").tool_calls, *call("read", {"p": "x"}).tool_calls))
CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "user": (user("hi <b>\u2028 \\n"),),
    "system": (Message(role="system", content="Be brief."), user("hi")),
    "turns": (
        user("read ü"),
        call("read", {"p": "ü\n漢", "z": [1.5, None, True]}),
        Message(role="tool", content="text", name="read"),
        Message(role="assistant", content="Done."),
        user("again"),
    ),
    "two calls": (user("a"), TWO, Message(role="tool", content="1"), Message(role="tool", content="2")),
    "identified": (
        user("a"),
        Message(role="assistant", tool_calls=(ToolCall(**call("ls").tool_calls[0].model_dump() | {"id": "1"}),)),
    ),
}
# The shape of Qwen2.5's, and one line for each thing that the dialect has.
QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
SOURCES = {
    "selection": (TEMPLATES / "selection.jinja").read_text(encoding="utf-8"),
    "arguments": (TEMPLATES / "arguments.jinja").read_text(encoding="utf-8"),
    "qwen": QWEN,
    "tojson": "{{ tools | tojson(indent=2) }}{{ messages | tojson(ensure_ascii=true, sort_keys=true) }}",
    "separators": "{{ messages | tojson(separators=(',', ':')) }}",
    "generation": (
        "{% set x = 'out' %}{% for m in messages %}\n  {% generation %}\n{% set x = m.role %}{{ x }}{{ loop.index }}\n"
        "  {% endgeneration %}\n{{ x }}{% endfor %}"
    ),
    "strftime": "{{ strftime_now('%Y-%m-%d %Z') }}",
    "loops": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ loop.last }}{% endfor %}",
    "names": "{{ bos_token }}{{ eos_token }}{{ tool }}{{ documents is none }}{{ missing is defined }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize("generate", [False, True])
def test_renders_as_transformers_does(conversation: str, source: str, tools: tuple[Tool, ...], generate: bool) -> None:  # noqa: FBT001
    messages, text = CONVERSATIONS[conversation], SOURCES[source]
    (theirs,), _ = render_jinja_template(
        [[message.for_template() for message in messages]],
        tools=[tool.for_template() for tool in tools] or None,
        chat_template=text,
        add_generation_prompt=generate,
        tool="read",
        bos_token="<s>",  # noqa: S106 - a token of text
        eos_token="</s>",  # noqa: S106
    )
    ours = ChatTemplate(text, where="test", bos="<s>", eos="</s>")
    assert ours.render(messages, tools, tool="read", generate=generate) == theirs


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("toolset", [None, "git"])
def test_all_toolsets_are_variables_as_any_other(conversation: str, generate: bool, toolset: str | None) -> None:  # noqa: FBT001
    """A prompt does not depend on the stage's toolset; an answer does."""
    messages, text = CONVERSATIONS[conversation], (TEMPLATES / "toolsets.jinja").read_text(encoding="utf-8")
    listed = (Toolset(name="git", description="History", tools=TOOLS), Toolset(name="files", tools=TOOLS[:1]))
    everything = AllToolsets(listed, Tool(name="none"))
    (theirs,), _ = render_jinja_template(
        [[message.for_template() for message in messages]],
        chat_template=text,
        add_generation_prompt=generate,
        **everything.for_template(),
        **({} if generate else {"toolset": toolset}),
    )
    ours = ChatTemplate(text, where="test")
    assert ours.shows_toolsets
    found = ours.render(messages, TOOLS, tool="read", generate=generate, all_toolsets=everything, toolset=toolset)
    assert found == theirs


@pytest.mark.parametrize("kind", ["selection", "arguments"])
def test_the_built_in_templates_follow_dualtune(kind: str) -> None:
    template = ChatTemplate(SOURCES[kind], where=kind)
    text = template.render(CONVERSATIONS["turns"], TOOLS, tool="read", generate=False)
    assert text.count("<tools>\n") == text.count("\n</tools>") == 1
    assert text.index("<tools>") < text.index("read ü")
    if kind == "selection":
        assert '<tool_call>\n{"name": "read"}\n</tool_call><|im_end|>\n' in text
        assert "漢\\n" not in text
        assert '"z"' not in text  # past calls lose their arguments
    else:
        assert text.index("<|im_start|>user") < text.index("<tools>")  # in the first user message
        assert 'assistant\n{"name": "read", "parameters": {"p": "ü\\n漢", "z": [1.5, null, true]}}<|im_end|>' in text


HOSTILE = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__.keys() }}",
    "mutation": "{{ messages.append(1) }}",
    "range": "{% for i in range(1000000000) %}x{% endfor %}",
    "output": "{% for i in range(90000) %}{{ 'x' * 100000 }}{% endfor %}",
    "silent loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "silent macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "power": "{{ 9 ** 999999999 }}",
    "repetition": "{{ ('x' * 1000000000) | length }}",
    "lists": "{{ ([0] * 1000000000) | length }}",
    "doubling": "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "adding": "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 1000000000) }}",
    "center": "{{ 'x' | center(1000000000) }}",
    "ljust": "{{ 'x'.ljust(1000000000) }}",
    "indent": "{{ 'x\\ny' | indent(1000000000) }}",
    "json indent": "{{ [1] | tojson(indent=1000000000) }}",
    "replace": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "join": "{{ range(90000) | join('y' * 100000) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "raising": "{{ raise_exception('no') }}",
    "undefined": "{{ nothing.here }}",
    "include": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_within_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RENDER_SECONDS", 0.2)
    with pytest.raises(TemplateError, match=r"hostile\.jinja"):
        ChatTemplate(HOSTILE[name], where="hostile.jinja").render([user("a")], TOOLS, tool=None, generate=True)


def test_a_source_that_is_too_long_or_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="characters"):
        ChatTemplate("x" * (limits.TEMPLATE_CHARS + 1), where="long")
    with pytest.raises(TemplateError, match="bad, line 2"):
        ChatTemplate("\n{% if %}", where="bad")
    path = tmp_path / "t.jinja"
    path.write_bytes(b"\xff")
    with pytest.raises(TemplateError, match="UTF-8"):
        ChatTemplate.read(path)
    path.write_text(f"{LFS_POINTER}v1\noid sha256:0\nsize 5\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="Git LFS"):
        ChatTemplate.read(path)
    with pytest.raises(TemplateError, match="Check the path"):
        ChatTemplate.read(tmp_path / "none")


def test_the_hash_is_of_the_source() -> None:
    texts: list[Any] = [ChatTemplate(source, where="t").sha256 for source in ("a", "a", "b")]
    assert texts[0] == texts[1] != texts[2]
