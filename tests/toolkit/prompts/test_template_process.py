"""The process that renders: bounded whatever a template does, and there again for the next one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.prompts import template_process
from dualtune_edge.toolkit.prompts.template_process import TemplateFault, TemplateProcess, ToolList

NO_TOOLS = ToolList("null")
ENDLESS = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
# 2⁴⁰ texts in forty lists, each of which holds the one before twice.
GROW = "{% for i in range(40) %}{% set ns.$ = [ns.$, ns.$] %}{% endfor %}"
NEST = "{% set ns = namespace(x=['x'], y=['x'], z=[['x']]) %}" + GROW.replace("$", "x") + "{% set x = ns.x %}"
USES = {
    "tojson": "{{ x | tojson }}",
    "string": "{{ x | string }}",
    "printed": "{{ x }}",
    "pprint": "{{ x | pprint }}",
    "format": "{{ '%s' | format(x) }}",
    "percent": "{{ '%s' % x }}",
    "format method": "{{ '{}'.format(x) }}",
    "join": "{{ [x] | join }}",
    "concatenation": "{{ x ~ '' }}",
    "equality": GROW.replace("$", "y") + "{{ x == ns.y }}",
    "order": GROW.replace("$", "y") + "{{ x < ns.y }}",
    "membership": GROW.replace("$", "y") + "{{ x in [ns.y] }}",
    "sort": GROW.replace("$", "y") + "{{ [x, ns.y] | sort | length }}",
    "sum": "{% for i in range(40) %}{% set ns.z = ns.z + ns.z %}{% endfor %}{{ ns.z | sum(start=[]) }}",
    "hash": "{% set ns.t = (1,) %}"
    + GROW.replace("$", "t").replace("[", "(").replace("]", ")")
    + "{{ {ns.t: 1} | length }}",
    "namespace": "{{ namespace(a=x) }}",
    "xmlattr": "{{ {'a': x} | xmlattr }}",
    "urlencode": "{{ {'a': x} | urlencode }}",
    "replace": "{{ 'x' | replace('x', x) }}",
    "unique": "{{ [x, x] | map('string') | unique | list }}",
}
FOLDED = {
    "repetition": "{{ 'x' * 1000000000 }}",
    "padding": "{{ 'x' | center(1000000000) }}",
    "power": "{{ 9 ** 999999999 }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') | length }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "shift by power": "{{ (2 ** (2 ** 40)) | string }}",
}
NO_TEMPLATES = {
    "loops": "{% for i in [1] %}" * 25 + "{% endfor %}" * 25,
    "parentheses": "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
    "lists": "{{ " + "[" * 3_000 + "]" * 3_000 + " }}",
    "negations": "{{ " + "not " * 20_000 + "1 }}",
    "signs": "{{ " + "-" * 50_000 + "1 }}",
    "conditions": "{% if 1 %}" * 2_000 + "{% endif %}" * 2_000,
    "sums": "{{ " + "1+" * 60_000 + "1 }}",
    "filters": "{{ 1" + "|string" * 20_000 + " }}",
    "attributes": "{{ a" + ".b" * 50_000 + " }}",
}


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[TemplateProcess]:
    monkeypatch.setattr(limits, "RENDER_SECONDS", 0.3)
    process = TemplateProcess()
    yield process
    process.close()


def text(process: TemplateProcess, source: str, **variables: object) -> str:
    return process.render(source, variables, NO_TOOLS, where="test")


def pid(process: TemplateProcess) -> int:
    process.start()
    assert process._process is not None
    return process._process.pid


@pytest.mark.parametrize("name", [*USES, *FOLDED])
def test_whatever_a_template_does_it_is_stopped(process: TemplateProcess, name: str) -> None:
    source = f"{NEST}{USES[name]}" if name in USES else FOLDED[name]
    with pytest.raises(TemplateFault):
        text(process, source)
    assert text(process, "{{ word }}", word="next") == "next"


@pytest.mark.slow
def test_its_memory_is_bounded() -> None:
    sources = [f"{NEST}{USES[name]}" for name in ("string", "sum")] + [FOLDED["bytes"]]
    code = (
        "import resource\n"
        "from dualtune_edge.toolkit.prompts.template_process import TEMPLATES, TemplateFault, ToolList\n"
        f"for source in {sources!r}:\n"
        "    try:\n        TEMPLATES.render(source, {}, ToolList('null'), where='test')\n"
        "    except TemplateFault:\n        pass\n"
        "TEMPLATES.close()\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    kilobytes = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert int(kilobytes) * 1024 <= limits.RENDER_BYTES


@pytest.mark.parametrize("name", NO_TEMPLATES)
def test_what_is_nested_too_deeply_is_no_template_or_renders(process: TemplateProcess, name: str) -> None:
    """Some of it Python compiles; none of it is a traceback."""
    with contextlib.suppress(TemplateFault):
        text(process, NO_TEMPLATES[name])
    assert text(process, "{{ word }}", word="next") == "next"


def test_the_fault_says_what_was_too_much(process: TemplateProcess) -> None:
    with pytest.raises(TemplateFault, match=r"over 0\.3 s of CPU time, 256 MB of memory"):
        text(process, ENDLESS)
    with pytest.raises(TemplateFault, match="MemoryError"):
        text(process, FOLDED["repetition"])
    with pytest.raises(TemplateFault, match="over 4194304 characters"):
        text(process, "{% for i in range(90000) %}{{ 'x' * 100000 }}{% endfor %}")


def test_one_process_serves_many_renders(process: TemplateProcess) -> None:
    first = pid(process)
    assert [text(process, "{{ n }}", n=n) for n in range(100)] == [str(n) for n in range(100)]
    with pytest.raises(TemplateFault, match="nothing"):
        text(process, "{{ nothing.here }}")
    assert pid(process) == first


def test_tool_lists_are_kept_by_their_content(process: TemplateProcess) -> None:
    lists = [ToolList(f'["{number}"]') for number in range(20)]
    for tools in (*lists, *reversed(lists), ToolList('["0"]')):
        assert process.render("{{ tools | tojson }}", {}, tools, where="test") == tools.text


def test_all_toolsets_are_kept_as_well_beside_the_tools(process: TemplateProcess) -> None:
    lists = [(ToolList(f'["{number}"]'), ToolList(f'{{"toolsets": [{number % 7}]}}')) for number in range(20)]
    for tools, shown in (*lists, *reversed(lists), lists[0]):
        written = process.render("{{ tools | tojson }} {{ toolsets | tojson }}", {}, tools, shown, where="test")
        assert written == f"{tools.text} {json.loads(shown.text)['toolsets']}"
    assert process.render("{{ toolsets is defined }}", {}, lists[0][0], where="test") == "False"


def test_a_process_that_ended_is_started_again(process: TemplateProcess) -> None:
    first = pid(process)
    os.kill(first, signal.SIGKILL)
    assert text(process, "{{ word }}", word="next") == "next"
    assert pid(process) != first
    process.close()
    assert text(process, "{{ word }}", word="next") == "next"


def test_an_interrupted_render_leaves_no_answer_behind(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_stream: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(template_process, "_read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            text(process, "{{ word }}", word="first")
    assert text(process, "{{ word }}", word="second") == "second"


def test_threads_get_their_own_answers(process: TemplateProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda number: text(process, "{{ n }}", n=number), range(200)))
    assert texts == [str(number) for number in range(200)]


def test_ctrl_c_is_not_for_it(process: TemplateProcess) -> None:
    assert os.getsid(pid(process)) != os.getsid(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_its_own(process: TemplateProcess) -> None:
    text(process, "first")
    child = os.fork()
    if child == 0:
        os._exit(0 if text(process, "{{ word }}", word="child") == "child" else 1)
    assert text(process, "{{ word }}", word="parent") == "parent"
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system waits for its own children only")
def test_it_ends_though_who_asked_was_killed() -> None:
    code = (
        "from dualtune_edge.toolkit.prompts.template_process import TEMPLATES, ToolList\n"
        "TEMPLATES.start()\nprint(TEMPLATES._process.pid, flush=True)\n"
        f"TEMPLATES.render({ENDLESS!r}, {{}}, ToolList('null'), where='test')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        ended = os.pidfd_open(int(asking.stdout.readline()))
        asking.kill()
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    assert poll.poll(60_000)
    os.close(ended)


def test_without_an_interpreter_it_says_so(process: TemplateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(TemplateFault, match="no Python interpreter"):
        text(process, "{{ word }}", word="next")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TemplateFault, match=r"no process to render it: .*No such file"):
        text(process, "{{ word }}", word="next")


@pytest.mark.parametrize("value", [object(), {1: {2: object()}}, {"a": b"bytes"}])
def test_a_value_that_is_no_json_is_told(process: TemplateProcess, value: object) -> None:
    with pytest.raises(TemplateFault, match="JSON cannot hold"):
        text(process, "{{ value }}", value=value)


def test_half_of_a_surrogate_pair_is_no_text(process: TemplateProcess) -> None:
    with pytest.raises(TemplateFault, match="UnicodeEncodeError"):
        text(process, r"{{ '\ud800' }}")


def test_a_frozen_program_renders_by_a_command_of_its_own(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(TemplateFault, match="no Python interpreter"):
        text(process, "{{ 1 + 1 }}")
    process.command = (sys.executable, "-c", "from dualtune_edge.toolkit.prompts.template_worker import main; main()")
    assert text(process, "{{ 1 + 1 }}") == "2"
