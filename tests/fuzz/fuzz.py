"""Coverage-guided fuzzing of what is read from others, by atheris: `pip install -r tests/fuzz/requirements.txt`, then

    python tests/fuzz/fuzz.py seeds BUNDLE CORPUS          # a folder of first inputs for each target
    python tests/fuzz/fuzz.py TARGET CORPUS/TARGET -max_total_time=600

A target hands bytes to one reader. What may come out are the reader's own errors; anything else, a hang or a crash is a
finding. libFuzzer's flags follow the corpus. Each finding becomes a test of its kind; pytest collects nothing here.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import atheris

with atheris.instrument_imports(include=["dualtune_edge", "jinja2", "json"]):
    from pydantic import ValidationError

    from dualtune_edge.profiles import catalog
    from dualtune_edge.runtime.bundle import checks, graph_checks, prompt_checks
    from dualtune_edge.runtime.cache.filesystems import mount_of
    from dualtune_edge.runtime.engines.adapter_file import map_adapter
    from dualtune_edge.runtime.engines.plain_inputs import without_defaults
    from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
    from dualtune_edge.toolkit import limits, strict_json
    from dualtune_edge.toolkit.bundle.manifest import Manifest
    from dualtune_edge.toolkit.errors import BundleError, EdgeError, ToolsError
    from dualtune_edge.toolkit.expressions import ExpressionError, refuse_backtracking
    from dualtune_edge.toolkit.patterns import PatternError, compile_pattern
    from dualtune_edge.toolkit.prompts.prompt_plan import Frame, PromptPlan
    from dualtune_edge.toolkit.prompts.template_process import TemplateFault, TemplateProcess, ToolList
    from dualtune_edge.toolkit.prompts.template_sandbox import Template
    from dualtune_edge.toolkit.prompts.tokenizer_file import TokenizerError, load_tokenizer, refuse_harmful
    from dualtune_edge.toolkit.tools.tool_files import parse_tools
    from dualtune_edge.toolkit.validation import validate

Target = Callable[[bytes], object]
_FOLDER: Final = Path(tempfile.mkdtemp(prefix="fuzz-"))
_ALPHABET: Final = [chr(byte) for byte in range(32, 127)]
_KIT: Final = Path(__file__).parents[2] / "kit" / "dualtune_edge_kit"


def _manifest() -> Target:
    def read(data: bytes) -> None:
        manifest = validate(Manifest, strict_json.loads(data), where="manifest.json", error=BundleError)
        checks.check_paths(manifest, Path("bundle"))
        checks.check_references(manifest, Path("bundle"))
        manifest.to_bytes()
        manifest.seal()

    return read


def _prompt() -> Target:
    manifest = validate(Manifest, _EXAMPLE, where="example", error=BundleError)
    stages = list(manifest.stages)

    def read(data: bytes) -> None:
        plan = validate(PromptPlan, strict_json.loads(data), where="prompt.json", error=BundleError)
        for stage in stages:
            list(prompt_checks.prompt_faults(plan, stage, manifest))

    return read


def _adapter() -> Target:
    path = _FOLDER / "a.onnx_adapter"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for tensor in map_adapter(path).values():
            tensor.tobytes()

    return read


def _tools() -> Target:
    tokenizer = open_tokenizer(_tokenizer_json(), vocab_size=limits.VOCABULARY // 1024, end_of_turn=[0])
    frame = Frame(tokens=(), pending="", tail="\n", item_separator=", ", key_separator=": ", ascii_only=False)
    values: tuple[Any, ...] = ({}, {"a": 1}, {"path": "x", "count": [1, {"b": None}]})

    def read(data: bytes) -> None:
        for tool in parse_tools(strict_json.loads(data), where="tools.json"):
            for value in values:
                tool.reading.fault(value)
            compile_grammar(tool, frame, tokenizer)

    return read


def _template() -> Target:
    """Compiled here, where coverage is seen; rendered where time and memory are bounded."""
    process = TemplateProcess()
    variables = {"messages": [{"role": "user", "content": "hi"}], "tool": None, "add_generation_prompt": True}

    def read(data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        if len(source) < 2_000 and not any(character.isdigit() for character in source):  # nothing large is folded
            try:
                Template(source)
            except Exception:  # noqa: BLE001 - the other process says the same
                return
        process.render(source, variables, ToolList("null"), where="fuzz")

    return read


def _graph() -> Target:
    def read(data: bytes) -> None:
        list(graph_checks.graph_faults(data, frozenset({"model.onnx.data"})))
        without_defaults(data)

    return read


def _tokenizer() -> Target:
    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        refuse_harmful(text)
        tokenizer, _ = load_tokenizer(text)
        tokenizer.encode("a tool, 7 times\n" * 4, add_special_tokens=False)

    return read


def _pattern() -> Target:
    def read(data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        with contextlib.suppress(ExpressionError):
            refuse_backtracking(source)
        compile_pattern(source).search("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab 7\n")

    return read


def _profile() -> Target:
    return lambda data: catalog.parse(data, where="x.toml")


def _mounts() -> Target:
    return lambda data: mount_of(Path("/opt/bundle"), data.decode("utf-8", "surrogateescape").splitlines())


TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "manifest": _manifest,
    "prompt": _prompt,
    "adapter": _adapter,
    "tools": _tools,
    "template": _template,
    "graph": _graph,
    "tokenizer": _tokenizer,
    "pattern": _pattern,
    "profile": _profile,
    "mounts": _mounts,
}
_OWN: Final = (
    EdgeError, strict_json.JsonError, ToolsError, PatternError, TokenizerError, TemplateFault, ValidationError,
)  # fmt: skip
_PLAIN: Final = {"graph": (ValueError,)}  # errors that the caller makes its own


_JSON: Final = frozenset({"manifest", "prompt", "tools", "tokenizer"})  # targets that are mutated as values too
_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 2**31, 2**63, 2**70, 1e308, 1e-308, 0.1, "", "..", "../x", "x\0", "\u202e", "a" * 5_000, [], {},
    [[]],
    "(a+)+b", "a{1000}", "(?=a)", {"$ref": "#"}, {"not": {"$ref": "#"}}, {"type": "object"}, {"enum": [1, "a", None]},
    {"pattern": "^a+$"}, {"multipleOf": 7}, {"allOf": [{}, {}]}, {"anyOf": [{"type": "null"}, {"type": "integer"}]},
)  # fmt: skip
_KEYS: Final = (
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties",
    "items",
    "prefixItems", "contains", "minItems", "maxLength", "minimum", "maximum", "multipleOf", "pattern", "format", "enum",
    "const", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "$ref", "$defs", "$schema", "$id", "$anchor",
    "dependentSchemas", "type", "name", "inputSchema", "parameters", "Regex", "String", "normalizer", "pre_tokenizer",
)  # fmt: skip


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one place of a JSON value; where it is none, or at times, bytes."""
    draw = random.Random(seed)  # noqa: S311 - of no secret
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if value is None or draw.random() < 0.2:
        return bytes(atheris.Mutate(data, max_size))
    for _ in range(draw.randint(1, 3)):
        value = _changed(value, draw)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")[:max_size]
    except (ValueError, RecursionError):
        return data


def _changed(value: Any, draw: random.Random) -> Any:
    """The value with one place of it replaced, removed, doubled, or with a key more."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.1:
        return draw.choice(_VALUES)
    if isinstance(value, dict):
        key = draw.choice(list(value))
        changed = dict(value)
        what = draw.random()
        if what < 0.1:
            del changed[key]
        elif what < 0.25:
            changed[draw.choice(_KEYS)] = draw.choice((*_VALUES, value[key]))
        else:
            changed[key] = _changed(value[key], draw)
        return changed
    at = draw.randrange(len(value))
    if draw.random() < 0.2:
        return [*value, value[at]] if draw.random() < 0.5 else [*value[:at], *value[at + 1 :]]
    return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]


def _tokenizer_json() -> str:
    files = sorted(_KIT.rglob("tokenizer.json"))
    return files[0].read_text(encoding="utf-8")


def write_seeds(bundle: Path, corpus: Path) -> None:
    """First inputs: what an export wrote, and templates and tools of the project."""
    root = Path(__file__).parents[2]
    seeds = {
        "manifest": [bundle / "manifest.json"],
        "prompt": sorted((bundle / "prompts").iterdir()),
        "adapter": sorted((bundle / "adapters").iterdir()),
        "tools": sorted(root.glob("kit/**/*.json")),
        "template": sorted(root.glob("**/*.jinja")),
        "graph": [bundle / "model" / "model.onnx"],
        "tokenizer": [bundle / "model" / "tokenizer.json"],
        "profile": sorted((root / "profiles" / "data").iterdir()),
    }
    for name in TARGETS:
        (corpus / name).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(seeds.get(name, ())):
            if path.is_file() and path.stat().st_size < 1 << 20:
                (corpus / name / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    (corpus / "pattern" / "0").write_text(r"^([a-z]+\d{1,3}|\p{L}?)*[^x-z]$", encoding="utf-8")
    (corpus / "mounts" / "0").write_text("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n", encoding="utf-8")


_EXAMPLE: Final[Any] = json.loads(
    (Path(__file__).parents[1] / "toolkit" / "bundle" / "golden" / "manifest-2.json").read_text(encoding="utf-8")
)


def main() -> None:
    """Run one target, or write the seeds."""
    if sys.argv[1] == "seeds":
        write_seeds(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    name = sys.argv.pop(1)
    target, allowed = TARGETS[name](), (*_OWN, *_PLAIN.get(name, ()))

    def run(data: bytes) -> None:
        with contextlib.suppress(allowed):
            target(data)

    atheris.Setup(sys.argv, run, **({"custom_mutator": _mutate} if name in _JSON else {}))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
