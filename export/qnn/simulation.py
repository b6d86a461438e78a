"""A variant for an NPU, simulated prompt by prompt and compared with the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import Progress

from dualtune_edge.export.publish.amend import put, refuse_unwritable
from dualtune_edge.export.qnn.verify import (
    Turn,
    Verifier,
    calls,
    heldout_turns,
    is_known,
    made_up_turns,
    right,
    whole,
)
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import QnnOptions, SessionSettings
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.runtime.engines.qnn import by_simulation, compiler, find_htp
from dualtune_edge.runtime.engines.static_engine import StaticEngine
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.layout import PRIMARY, VARIANTS_DIR
from dualtune_edge.toolkit.bundle.verification import SIMULATED, Verification
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories
from dualtune_edge.toolkit.validation import listing, nearest


class Simulation:
    """The simulation of one variant of a bundle. `run` makes the report, `keep` puts it into the bundle."""

    def __init__(self, bundle: Path, profile: str) -> None:
        """Open the bundle.

        Raises:
            BundleError: it has no compiled variant for this profile.
            OutputError: the bundle cannot be replaced by one with the report.

        """
        self._opened = open_bundle(bundle, verify="once")
        self._model = _model(self._opened, profile)
        self._profile = profile
        refuse_unwritable(self._opened)

    def run(self, heldout: Path | None, limit: int) -> Verification:
        """Simulate at most `limit` prompts made from the tools, and as many turns of the conversations in `heldout`."""
        variant = self._opened.on(self._model)
        turns = _spread(list(made_up_turns(variant, 2)), limit)
        if heldout:
            turns += _spread(list(heldout_turns(variant, read_trajectories(heldout))), limit)
        Random(0).shuffle(turns)  # noqa: S311 - an order: a run that is stopped has had some of every kind
        return _verify(variant, self._opened, self._profile, turns)

    def keep(self, report: Verification) -> None:
        """Put the report into the bundle."""
        put(self._opened, f"{VARIANTS_DIR}/{self._model}/{SIMULATED}", (report.model_dump_json() + "\n").encode())


def _verify(variant: Bundle, opened: Bundle, profile: str, turns: Sequence[Turn]) -> Verification:
    """Simulate the turns; `variant` is the opened bundle on the variant's model."""
    context, asked = variant.entry.contexts[0], sum(map(len, turns))
    settings = SessionSettings(detect().cpu.physical_cores, spinning=False)
    htp = find_htp(QnnOptions(soc_model=context.soc_model, htp_arch=context.htp_arch), simulate=True)
    with StaticEngine(variant.model, settings, by_simulation(htp, settings)) as simulated, _bar() as bar:
        verifier = Verifier(variant, simulated)
        task = bar.add_task("simulate", total=len(turns))
        answered = verifier.answer(turns, lambda: bar.advance(task))
        if len(answered) < asked:
            console.warn(f"stopped: the report is of {len(answered)} of {asked} prompts")
        with open_engine(variant.model, settings) as same:
            against = [verifier.compare("the same graphs on the CPU provider", same, answered)]
        with open_engine(opened.on(PRIMARY).model, settings) as primary:
            against.append(verifier.compare("the primary model on the CPU provider", primary, answered))
    return Verification(
        profile=profile,
        compiler=compiler(),
        asked=asked,
        prompts=len(answered),
        known=sum(is_known(answer.case) for answer in answered),
        right=right(answered),
        calls=len(calls(answered)),
        whole=whole(answered),
        forwards=verifier.forwards,
        seconds=round(verifier.seconds, 3),
        against=tuple(against),
    )


def _bar() -> Progress:
    stderr = Console(stderr=True)
    return Progress(console=stderr, disable=not stderr.is_terminal)


def _model(bundle: Bundle, profile: str) -> str:
    """The model of a compiled variant."""
    compiled = {
        variant.profile: variant.model
        for variant in bundle.manifest.variants
        if bundle.manifest.model(variant.model).contexts
    }
    if profile not in compiled:
        raise BundleError(
            f"{bundle.root}, variant {profile!r}",
            found="no compiled variant of this name",
            expected=listing(compiled) if compiled else "one for an NPU",
            fix=nearest(profile, compiled) if compiled else "Export with a profile for an NPU, as qnn-x-elite.",
        )
    return compiled[profile]


def _spread(turns: list[Turn], limit: int) -> list[Turn]:
    """At most `limit` turns, evenly spaced over the list."""
    count = min(limit, len(turns))
    return [turns[index * len(turns) // count] for index in range(count)]
