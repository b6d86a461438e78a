"""The whole bench: open, first call, gold and free calls, adapter swaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.resolve import Resolution
from dualtune_edge.runtime.bench.machine import read_memory, versions
from dualtune_edge.runtime.bench.replay import Replay, weight_bytes
from dualtune_edge.runtime.bench.report import (
    BenchReport,
    CallRun,
    OpenTimes,
    Pass,
    Spread,
    SwapTimes,
    Where,
    summarize,
)
from dualtune_edge.runtime.bench.requests import Request, made_requests, made_task, read_requests, read_tasks
from dualtune_edge.runtime.bench.roofline import measure_roofline
from dualtune_edge.runtime.bench.scripts import ScriptWriter
from dualtune_edge.runtime.bench.steps import measure_steps
from dualtune_edge.runtime.bench.watched import Watched, watch
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import EngineKind, open_engine
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.result import Placement
from dualtune_edge.runtime.reuse.kv_reuse import KvReuse
from dualtune_edge.runtime.trust.policy import Trust
from dualtune_edge.runtime.variants import Ways
from dualtune_edge.toolkit.errors import RequestError

_SWAPS: Final = 15
_TASKS: Final = 5  # of a file's conversations, at most


@dataclass(frozen=True)
class Wanted:
    """What is to be measured. `requests`: a file of conversations; None: made out of the bundle's tools.

    `copied`: whether free answers hold copied properties to the conversation. Gold calls may have any values.
    """

    engine: EngineKind
    requests: Path | None
    calls: int
    free: bool
    trust: Trust | None = None
    copied: bool = True


def bench(path: Path, resolve: Callable[[Bundle], Ways], wanted: Wanted, on_step: Callable[[str], None]) -> BenchReport:
    """Measure a bundle.

    Args:
        path: its folder.
        resolve: how it can run here; the best way is measured.
        wanted: what to measure.
        on_step: is called with the name of each step before it begins.

    Raises:
        BundleError: no bundle, or a damaged one.
        DataError: the requests cannot be read, or a gold call does not fit its tool's schema.
        EngineError: the engine fails.

    """
    on_step("opening")
    found = resolve(open_bundle(path, trust=wanted.trust))  # whatever reads the files first reads them from the disk
    bundle, resolution = found.best.bundle, found.best.resolution
    manifest = bundle.manifest
    requests = (
        read_requests(wanted.requests, manifest, wanted.calls)
        if wanted.requests
        else made_requests(manifest, wanted.calls)
    )
    tasks = read_tasks(wanted.requests, manifest, _TASKS) if wanted.requests else [made_task(manifest)]
    unhashed, hashing = _bundle_times(path, wanted.trust)
    roofline = measure_roofline(bundle, resolution.settings.intra_op_threads)
    started = time.perf_counter()
    with open_engine(bundle.model, resolution.settings, wanted.engine) as engine:
        engine_ms, memory = _ms(time.perf_counter() - started), read_memory()
        watched = watch(engine)
        replay = Replay(bundle, watched, roofline, copied=wanted.copied)
        on_step("first calls")
        first = replay.first(requests[0])
        for request in requests:
            replay.first(request)
        used = read_memory()  # the naive path, which needs more, has not run yet
        passes = _passes(replay, requests, on_step, free=wanted.free)
        on_step("tasks of several steps")
        steps = measure_steps(replay, tasks)
        on_step("adapter swaps")
        return BenchReport(
            where=where_of(resolution, wanted.engine, watched.placement),
            base=manifest.base.name,
            weights_bytes=weight_bytes(bundle, None),
            bandwidth=round(roofline.rates.bandwidth),
            operations=round(roofline.rates.integer),
            float_operations=round(roofline.rates.floats),
            open_ms=OpenTimes(hash=hashing, bundle=unhashed, engine=engine_ms, first_call=first),
            memory_opened=memory,
            memory_used=used,
            swap_ms=_swaps(bundle, watched, requests[0]),
            passes=passes,
            steps=steps,
        )


def _bundle_times(path: Path, trust: Trust | None) -> tuple[float, float]:
    """Milliseconds of opening without hashes, and of hashing besides."""
    started = time.perf_counter()
    open_bundle(path, verify="never", trust=trust)
    unhashed = time.perf_counter()
    open_bundle(path, trust=trust)
    hashed = time.perf_counter()
    return _ms(unhashed - started), _ms(max(0.0, hashed - unhashed - (unhashed - started)))


def _passes(
    replay: Replay, requests: Sequence[Request], on_step: Callable[[str], None], *, free: bool
) -> tuple[Pass, ...]:
    gold: list[CallRun] = []
    answered: list[CallRun] = []
    refused = 0
    for number, request in enumerate(requests, start=1):
        on_step(f"call {number} of {len(requests)}")
        gold.append(replay.gold(request))
        if free:
            try:
                answered.append(replay.free(request))
            except RequestError:
                refused += 1
    decode = replay.decode_per_s
    passes = [summarize("gold", gold, decode=decode)]
    if answered:
        passes.append(summarize("free", answered, refused=refused, decode={}))
    return tuple(passes)


def _swaps(bundle: Bundle, engine: Watched, request: Request) -> SwapTimes | None:
    """Of the request's stage with the longest prompt, coming from KV state of another adapter."""
    computes = bundle.model.prefix_adapter
    writer, call = ScriptWriter(bundle), request.call
    stages = [stage for _, stage in writer.stages(request.toolset, call.name if call else None)]
    prompts = {stage: writer.prompt(stage, request.messages) for stage in stages}
    longest = max(stages, key=lambda stage: len(prompts[stage]))
    adapter = computes(longest.adapter)
    others = [computes(stage.adapter) for stage in stages if computes(stage.adapter) != adapter]
    if not others:
        return None
    prompt, prefix = prompts[longest], bundle.plan(longest).prefix
    # A tool list may take minutes.
    held = KvReuse(engine, bundle, Levers(), budget=0).begin(longest, prefix, prompt).tokens
    if held < len(prompt):
        engine.forward(prompt[held:])
    if adapter != longest.adapter:
        engine.switch(None)
    state = engine.snapshot()
    swaps, restores = [], []
    for _ in range(_SWAPS + 1):
        engine.use(others[0])
        start = time.perf_counter()
        engine.use(adapter)
        swapped = time.perf_counter()
        swaps.append(_ms(swapped - start))
        if state.state is not None:
            engine.restore(state)
            restores.append(_ms(time.perf_counter() - swapped))
    restore = Spread.of(restores[1:]) if restores else None  # the first is a warm-up
    return SwapTimes(swap=Spread.of(swaps[1:]), restore=restore, tokens=len(prompt))


def where_of(resolution: Resolution, engine: EngineKind, placement: Placement) -> Where:
    """The machine and what runs on it."""
    machine = detect()
    asked = {feature for profile in catalog.profiles() for feature in profile.features}
    return Where(
        system=machine.system,
        architecture=machine.architecture,
        cpu=machine.cpu.name,
        features=tuple(feature for feature in machine.cpu.features if feature in asked),
        physical_cores=machine.cpu.physical_cores,
        threads=resolution.settings.intra_op_threads,
        engine=engine,
        placement=placement,
        profile=resolution.profile.name,
        versions=dict(versions()),
    )


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)
