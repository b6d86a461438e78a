"""What the variants of a bundle share, and what each adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dualtune_edge.toolkit.bundle.graph_form import GraphForm
from dualtune_edge.toolkit.bundle.manifest import KvType, Manifest, ModelEntry, QdqQuantization, Quantization
from dualtune_edge.toolkit.frozen import Frozen

_TEXTS: Final = (".jinja", ".json", ".model", ".txt")  # tokenizer and configs, in a graph's folder


class VariantSize(Frozen):
    """A variant in bytes. `shares` names the variants that run the very same model.

    `size_bytes` is of all files that it reads, `added_bytes` of those that no other variant reads: without it the
    bundle would be so much smaller. Prompts and tokenizer are everybody's and in neither; the primary model's files
    are never anybody's own, for every device can fall back to them.
    """

    profile: str
    model: str
    graph: GraphForm
    quantization: Quantization | QdqQuantization
    kv_type: KvType
    shares: tuple[str, ...]
    size_bytes: int
    added_bytes: int


def variant_sizes(manifest: Manifest) -> tuple[VariantSize, ...]:
    """One for each variant, in the manifest's order; none where there are no variants."""
    sizes = {file.path: file.size for file in manifest.files}
    read = {each.profile: _files(manifest.model(each.model), sizes) | {each.file} for each in manifest.variants}
    fallback = _files(manifest.primary, sizes)
    result = []
    for variant in manifest.variants:
        files, entry = read[variant.profile], manifest.model(variant.model)
        others = fallback.union(*(each for profile, each in read.items() if profile != variant.profile))
        same = (each.profile for each in manifest.variants if each.model == variant.model)
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
    """Bytes of graphs and external adapters that a model holds open once each was used.

    Where there are context binaries, they are all.
    """
    graphs = [entry.folder, *(each.path for each in entry.adapters if each.mode == "merged")]
    files = {each.path for each in entry.contexts} or {each.path for each in entry.adapters if each.mode == "external"}
    below = () if entry.contexts else tuple(f"{folder}/" for folder in graphs)
    return sum(
        file.size
        for file in manifest.files
        if file.path in files or (file.path.startswith(below) and not file.path.endswith(_TEXTS))
    )


def variant_lines(variants: Iterable[VariantSize]) -> Iterator[str]:
    """A line each: `variant openvino: a dynamic graph, the same as cpu-x64; 27.6 MB, 1.6 kB its alone`."""
    for each in variants:
        kind = f"a {each.graph.form} graph" if each.graph.form == "dynamic" else "static graphs"
        kind += " with a KV cache in int8" if each.kv_type == "int8" else ""
        with_whom = f"{kind}, the same as {' and '.join(each.shares)}" if each.shares else kind
        sizes = f"{_told(each.size_bytes)}, {_told(each.added_bytes)} its alone"
        yield f"variant         {each.profile}: {with_whom}; {sizes}"


def _told(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def _files(entry: ModelEntry, sizes: Mapping[str, int]) -> frozenset[str]:
    """Paths of the files that a model reads: its folders whole, and single ones."""
    places = {entry.folder, *(each.path for each in entry.adapters), *(each.path for each in entry.states)}
    places |= {each.path for each in entry.contexts}
    return frozenset(path for path in sizes if path in places or any(path.startswith(f"{each}/") for each in places))
