"""`dualtune-edge inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from dualtune_edge.profiles.resolve import Candidate
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT
from dualtune_edge.runtime.options import BundleFolder, TrustFile
from dualtune_edge.runtime.reuse.prefix_states import PrefixStates
from dualtune_edge.runtime.variants import standings
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.adapters import AdapterIdentity
from dualtune_edge.toolkit.bundle.kv_states import CacheShape, CacheType
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.licences import Licences
from dualtune_edge.toolkit.bundle.manifest import BaseInfo, CopiedProperty, FileEntry, Release, TokenizerInfo
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.bundle.sharing import VariantSize, variant_lines, variant_sizes
from dualtune_edge.toolkit.bundle.verification import Verification
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.tools.toolset import Toolset

_COLUMNS: Final = ("toolset", "stage", "answered by", "mode", "rank", "scale", "sha256")


class StateSummary(Frozen):
    """A stage's prefix and its KV state. `unused`: what else the state is for, where it is not for this bundle."""

    prompt: str
    prefix_tokens: int
    state: str | None
    stored: CacheType | None  # the type of its values in the file; None: there is no state
    unused: str | None


class CopiedSummary(Frozen):
    """The copied properties of one tool."""

    toolset: str
    tool: str
    properties: tuple[CopiedProperty, ...]

    @property
    def line(self) -> str:
        """In a line."""
        return f"{self.toolset}.{self.tool}: " + ", ".join(
            f"{entry.name} ({entry.border})" for entry in self.properties
        )


class Inspection(Frozen):
    """What `inspect --json` prints."""

    base: BaseInfo
    tokenizer: TokenizerInfo
    quantization: Quantization
    cache: CacheShape
    profile: str | None
    toolsets: tuple[Toolset, ...]
    adapters: tuple[AdapterIdentity, ...]
    states: tuple[StateSummary, ...]
    copied: tuple[CopiedSummary, ...]
    files: tuple[FileEntry, ...]
    release: Release | None
    manifest_sha256: str
    licences: Licences | None  # None: a bundle from before they were recorded
    signer: str | None  # the trust policy's name for whoever signed; None: no signature was verified
    size_bytes: int
    variants: tuple[VariantSize, ...]  # none: there is the primary model alone, which all other fields describe
    here: tuple[Candidate, ...]  # how the variants stand on this machine, best first
    parity: ParityReport | None  # None: a bundle from before there was one
    simulated: tuple[Verification, ...]  # of compiled variants, as `verify` left them


def inspect(bundle: BundleFolder, *, trust: TrustFile = None, as_json: console.AsJson = False) -> None:
    """Tell what a bundle holds.

    Every file is hashed: a bundle that is shown here is whole.

    Example:
        dualtune-edge inspect my-bundle --json

    """
    opened = open_bundle(bundle, trust=trust)
    manifest = opened.manifest
    summary = Inspection(
        base=manifest.base,
        tokenizer=manifest.tokenizer,
        quantization=manifest.quantization,
        cache=manifest.cache,
        profile=manifest.profile,
        toolsets=tuple(entry.toolset for entry in manifest.toolsets),
        adapters=tuple(adapter.identity for adapter in manifest.adapters),
        states=tuple(_states(opened)),
        copied=tuple(_copied(opened)),
        files=manifest.files,
        release=manifest.release,
        manifest_sha256=opened.hashes[MANIFEST],
        licences=opened.licences,
        signer=opened.signer,
        size_bytes=opened.size_bytes,
        variants=variant_sizes(manifest),
        here=standings(opened),
        parity=opened.parity,
        simulated=tuple(_simulated(opened)),
    )
    if opened.overdue:
        console.warn(opened.overdue)
    console.result(summary, _describe(opened, summary), as_json=as_json)


def _simulated(bundle: Bundle) -> Iterator[Verification]:
    for entry in bundle.manifest.models:
        if found := bundle.on(entry.name).simulation:
            yield found


def _copied(bundle: Bundle) -> Iterator[CopiedSummary]:
    for entry in bundle.manifest.toolsets:
        for tool, stage in entry.arguments.items():
            if stage.copied:
                yield CopiedSummary(toolset=entry.toolset.name, tool=tool, properties=stage.copied)


def _states(bundle: Bundle) -> Iterator[StateSummary]:
    states, types = PrefixStates(bundle, ORT_KV_FORMAT), {state.path: state.dtype for state in bundle.entry.states}
    for stage in bundle.manifest.stages:
        prefix = bundle.plan(stage).prefix
        yield StateSummary(
            prompt=stage.prompt,
            prefix_tokens=len(prefix),
            state=stage.state,
            stored=types.get(stage.state or ""),
            unused=states.refusal(stage, prefix),
        )


def _states_line(summary: Inspection) -> str:
    """`28 of 30 prefixes, 5.5 MB (float32)`, and what is wrong with those that are left alone."""
    usable = sum(state.state is not None and state.unused is None for state in summary.states)
    paths = {state.state: state.stored for state in summary.states if state.stored}
    size = sum(file.size for file in summary.files if file.path in paths)
    types = Counter(paths.values())
    stored = ", ".join(dtype if len(types) == 1 else f"{count} in {dtype}" for dtype, count in sorted(types.items()))
    reasons = "".join(f"; {state.state} is for {state.unused}" for state in summary.states if state.unused)
    types_shown = f" ({stored})" if stored else ""
    return f"{usable} of {len(summary.states)} prefixes, {size / 1e6:,.1f} MB{types_shown}{reasons}"


def _describe(bundle: Bundle, summary: Inspection) -> str:
    base, quantization, layers = summary.base, summary.quantization, bundle.manifest.cache.layers
    rows = (
        f"base            {base.name} ({base.architecture}), {base.fingerprint[:12]}",
        f"weights         {quantization.line(layers)}, accuracy level {quantization.accuracy_level}",
        f"context         {base.context_length:,} tokens, KV cache in {summary.cache.dtype}",
        f"parity          {summary.parity.line() if summary.parity else 'not recorded'}",
        f"prefix states   {_states_line(summary)}",
        *(f"copied          {entry.line}" for entry in summary.copied),
        f"profile         {summary.profile or 'the one that fits the device'}",
        *([f"release         {summary.release}"] if summary.release else []),
        f"manifest        {summary.manifest_sha256}",
        f"licences        {summary.licences.line() if summary.licences else 'not recorded'}",
        f"signed by       {summary.signer or 'nobody was asked for: no trust policy'}",
        *variant_lines(summary.variants),
        *(
            f"here            {standing.profile}: {'' if standing.usable else 'not, '}{standing.why}"
            for standing in summary.here
        ),
        *(f"simulated       {report.profile}: {report.line()}" for report in summary.simulated),
        f"size            {summary.size_bytes / 1e6:,.1f} MB in {len(summary.files) + 2} files",
    )
    table = console.table_lines(_COLUMNS, _stage_rows(bundle), left=set(_COLUMNS) - {"rank", "scale"})
    return "\n".join((*rows, "", *table))


def _stage_rows(bundle: Bundle) -> Iterator[tuple[str, ...]]:
    manifest = bundle.manifest
    adapters = {entry.name: entry for entry in manifest.adapters}
    stages = [("", "toolset", manifest.toolset_choice)] if manifest.toolset_choice else []
    for entry in manifest.toolsets:
        named = {"selection": entry.selection, **entry.arguments}
        stages += [(entry.toolset.name, name, stage) for name, stage in named.items()]
    stages += [("", "answer", manifest.answer)] if manifest.answer else []
    for toolset, name, stage in stages:
        adapter = adapters.get(stage.adapter or "")
        cells = (
            (adapter.name, _mode(adapter), str(adapter.rank), f"{adapter.scale:.4g}", adapter.sha256[:12])
            if adapter
            else ("the base", "", "", "", "")
        )
        yield toolset, name, *cells


def _mode(adapter: AdapterIdentity) -> str:
    """How an adapter is held, and from where in a prompt it is in force."""
    return f"{adapter.mode}, activated" if adapter.invocation else adapter.mode
