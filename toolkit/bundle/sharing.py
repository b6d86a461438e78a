"""What the variants of a bundle share, and what each adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dualtune_edge.toolkit.bundle.graph_form import GraphForm
from dualtune_edge.toolkit.bundle.kv_states import CacheType
from dualtune_edge.toolkit.bundle.manifest import Manifest, ModelEntry
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization, Quantization
from dualtune_edge.toolkit.frozen import Frozen

_TEXTS: Final = (".jinja", ".json", ".model", ".txt")  # tokenizer and configs, in a graph's folder


class VariantSize(Frozen):
    """A variant in bytes. `shares` names the variants that run the same model.

    `size_bytes`: of all files that it reads. `added_bytes`: of those that no other variant reads, so that the bundle
    would be smaller by them. Neither has prompts and tokenizer, which every variant reads; the primary model's files
    are never added ones, because every device can fall back to them.
    """

    profile: str
    model: str
    graph: GraphForm
    quantization: Quantization | QdqQuantization
    kv_type: CacheType
    shares: tuple[str, ...]
    size_bytes: int
    added_bytes: int


def variant_sizes(manifest: Manifest) -> tuple[VariantSize, ...]:
    """One for each variant, in the manifest's order; none where there are no variants."""
    sizes = {file.path: file.size for file in manifest.files}
    read = {
        variant.profile: _files(manifest.model(variant.model), sizes) | {variant.file} for variant in manifest.variants
    }
    fallback = _files(manifest.primary, sizes)
    result = []
    for variant in manifest.variants:
        files, entry = read[variant.profile], manifest.model(variant.model)
        others = fallback.union(*(files for profile, files in read.items() if profile != variant.profile))
        same = (other.profile for other in manifest.variants if other.model == variant.model)
        result.append(
            VariantSize(
                profile=variant.profile,
                model=variant.model,
                graph=entry.graph,
                quantization=entry.quantization,
                kv_type=entry.cache.dtype,
                shares=tuple(profile for profile in same if profile != variant.profile),
                size_bytes=sum(sizes[path] for path in files),
                added_bytes=sum(sizes[path] for path in files - others),
            )
        )
    return tuple(result)


def weight_bytes(manifest: Manifest, entry: ModelEntry) -> int:
    """Bytes of the graphs and external adapters that a model holds open once all are used.

    Where it has context binaries, it holds these alone.
    """
    graphs = [entry.folder, *(adapter.path for adapter in entry.adapters if adapter.mode == "merged")]
    files = {context.path for context in entry.contexts} or {
        adapter.path for adapter in entry.adapters if adapter.mode == "external"
    }
    below = () if entry.contexts else tuple(f"{folder}/" for folder in graphs)
    return sum(
        file.size
        for file in manifest.files
        if file.path in files or (file.path.startswith(below) and not file.path.endswith(_TEXTS))
    )


def variant_lines(variants: Iterable[VariantSize]) -> Iterator[str]:
    """A line each: `variant openvino: a dynamic graph, the same as cpu-x64; 27.6 MB, 1.6 kB not shared`."""
    for variant in variants:
        kind = f"a {variant.graph.form} graph" if variant.graph.form == "dynamic" else "static graphs"
        kind += " with a KV cache in int8" if variant.kv_type == "int8" else ""
        with_whom = f"{kind}, the same as {' and '.join(variant.shares)}" if variant.shares else kind
        sizes = f"{_size(variant.size_bytes)}, {_size(variant.added_bytes)} not shared"
        yield f"variant         {variant.profile}: {with_whom}; {sizes}"


def _size(size: int) -> str:
    """In MB, or in kB where that says more."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _files(entry: ModelEntry, sizes: Mapping[str, int]) -> frozenset[str]:
    """Paths of the files that a model reads: its folders whole, and single ones."""
    paths = {entry.folder, *(adapter.path for adapter in entry.adapters), *(state.path for state in entry.states)}
    paths |= {context.path for context in entry.contexts}
    folders = tuple(f"{path}/" for path in paths)
    return frozenset(path for path in sizes if path in paths or path.startswith(folders))
