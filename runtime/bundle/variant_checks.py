"""What a manifest may say of its variants: models that are there, with the same adapters, each in its own files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dualtune_edge.toolkit.bundle.adapters import AdapterEntry
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.manifest import Manifest, ModelEntry


def variant_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong with the models and variants; each fault is a few words."""
    sizes = {entry.path: entry.size for entry in manifest.files}
    models = [PRIMARY, *(entry.name for entry in manifest.models)]
    yield from _twice("models", models)
    yield from _twice("variants", [variant.profile for variant in manifest.variants])
    for variant in manifest.variants:
        if variant.model not in models:
            yield f"variant {variant.profile!r} with model {variant.model!r}, which is not there"
        if variant.file not in sizes:
            yield f"no {variant.file!r} among the files"
    for entry in manifest.models:
        if all(variant.model != entry.name for variant in manifest.variants):
            yield f"model {entry.name!r}, which is no variant's"
        yield from (f"no {path!r} among the files" for path in _needed(entry) if path not in sizes)
        if list(map(_content, entry.adapters)) != list(map(_content, manifest.adapters)):
            yield f"model {entry.name!r} with other adapters than the primary model"
        yield from _state_faults(entry, sizes, {stage.prompt for stage in manifest.stages})


def _needed(entry: ModelEntry) -> Iterator[str]:
    """Paths of the files without which the model does not open."""
    graphs = (*entry.graph.files, *(() if isinstance(entry.graph, StaticGraph) else ("genai_config.json",)))
    yield from (f"{entry.folder}/{name}" for name in graphs)
    for adapter in entry.adapters:
        if adapter.mode == "external":
            yield adapter.path
        else:
            yield from (f"{adapter.path}/{name}" for name in graphs)
    yield from (context.path for context in entry.contexts)


def _content(adapter: AdapterEntry) -> tuple[str, str, str | None, str | None, str]:
    return adapter.name, adapter.kind, adapter.toolset, adapter.tool, adapter.sha256


def _state_faults(entry: ModelEntry, sizes: dict[str, int], prompts: set[str]) -> Iterator[str]:
    names = [adapter.name for adapter in entry.adapters]
    for context in entry.contexts:
        if context.adapter is not None and context.adapter not in names:
            yield f"{context.path!r} for adapter {context.adapter!r}, which is not there"
    states = [state.path for state in entry.states]
    yield from _twice("prefix states", states)
    for state in entry.states:
        if min(state.key.shape) < 1 or sizes.get(state.path) != state.nbytes:
            yield f"{state.path!r} of {sizes.get(state.path)} bytes for the shape {list(state.key.shape)}"
    for prompt, path in entry.stage_states.items():
        if prompt not in prompts or path not in states:
            yield f"{prompt!r} with prefix state {path!r}: one of the two is not there"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    yield from (f"two {what} named {name!r}" for name in sorted(set(names)) if names.count(name) > 1)
