"""Which of a bundle's variants runs here: ranked by what the machine has, given up with a warning for the next one.

A bundle for one profile has one way to run, as before. One with variants brings its profiles along; the best of those
that can be followed is opened, and where that fails the next one, down to the primary model on the CPU provider.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.budget import over_budget
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.resolve import Candidate, Resolution, passed_over, rank, resolve
from dualtune_edge.profiles.schema import CPU_PROVIDER, HardwareProfile, Machine
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, open_engine
from dualtune_edge.runtime.result import VariantChoice
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.manifest import Variant
from dualtune_edge.toolkit.bundle.sharing import weight_bytes
from dualtune_edge.toolkit.errors import EngineError, ProfileError


@dataclass(frozen=True)
class Way:
    """A bundle seen through one of its models, and how its sessions run. `profile`: of a variant, or empty."""

    bundle: Bundle
    resolution: Resolution
    profile: str = ""


@dataclass(frozen=True)
class Ways:
    """How a bundle can run here, best first: one at least. `candidates`: every variant, with a reason."""

    ways: tuple[Way, ...]
    candidates: tuple[Candidate, ...] = ()

    @property
    def best(self) -> Way:
        """The one that is tried first."""
        return self.ways[0]


@dataclass(frozen=True)
class Opened:
    """A way that opened. `choice`: None where the bundle has no variants."""

    bundle: Bundle
    engine: Engine
    resolution: Resolution
    choice: VariantChoice | None = None


def ways(bundle: Bundle, *, profile: str | None = None, threads: int | None = None) -> Ways:
    """How a bundle can run here.

    `profile` (a variant's name, a profile's name or a .toml file) beats $DUALTUNE_EDGE_PROFILE, and that the ranking.

    Raises:
        ProfileError: no such profile, none for this machine, or the model is too large for the one that was asked for.

    """
    asked, machine = catalog.asked_for(profile), detect()
    if not bundle.manifest.variants:
        name = asked or bundle.manifest.profile
        wanted = catalog.load(name) if name else None
        if wanted:
            _refuse_static(wanted, bundle)
            _refuse_over_budget(wanted, bundle)
        return Ways((Way(bundle, resolve(wanted, machine, threads=threads)),))
    return _Ranking(bundle, machine, threads).ways(asked)


def standings(bundle: Bundle) -> tuple[Candidate, ...]:
    """How each variant of a bundle stands here, best first."""
    return _Ranking(bundle, detect(), None).candidates if bundle.manifest.variants else ()


def open_best(found: Ways, kind: EngineKind = "ort") -> Opened:
    """Open the first way that opens.

    Raises:
        EngineError: none does; it is the last one's, on the CPU provider.

    """
    failures: list[str] = []
    for way, after in zip(found.ways, (*found.ways[1:], None), strict=True):
        resolution = way.resolution
        instead = "; ".join(filter(None, (*failures, resolution.settings.instead)))
        resolution = replace(resolution, settings=replace(resolution.settings, instead=instead))
        try:
            engine = open_engine(way.bundle.model, resolution.settings, kind)
        except EngineError as error:
            if after is None:
                raise
            failures.append(f"variant {way.profile} does not open, so {_named(after)} does: {error.found}")
            continue
        return Opened(way.bundle, engine, resolution, _choice(found, way))
    raise AssertionError("a bundle has one way to run at least")


def _named(way: Way) -> str:
    return f"variant {way.profile}" if way.profile else f"the primary model by {CPU_PROVIDER}"


def _choice(found: Ways, way: Way) -> VariantChoice | None:
    if not found.candidates:
        return None
    return VariantChoice(profile=way.resolution.profile.name, model=way.bundle.chosen, candidates=found.candidates)


class _Ranking:
    """The variants of one bundle on one machine."""

    def __init__(self, bundle: Bundle, machine: Machine, threads: int | None) -> None:
        self._bundle, self._machine, self._threads = bundle, machine, threads
        self._models = {variant.profile: variant.model for variant in bundle.manifest.variants}
        self._profiles: dict[str, HardwareProfile] = {}
        self._refused: dict[str, str] = {}  # variant → why, whatever the machine has
        for variant in bundle.manifest.variants:
            try:
                profile = _profile(bundle, variant)
            except ProfileError as error:  # a later version's, with keys that this one does not know
                self._refused[variant.profile] = f"this version cannot follow its profile: {error.found}"
                continue
            if profile.name != variant.profile:
                self._refused[variant.profile] = f"its profile is that of {profile.name}"
                continue
            self._profiles[variant.profile] = profile
            if fault := _over_budget(profile, bundle.on(variant.model)):
                self._refused[variant.profile] = fault

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every variant, best first, with a reason."""
        fitting = [profile for profile in self._profiles.values() if profile.name not in self._refused]
        refused = (Candidate(profile=name, usable=False, why=why) for name, why in self._refused.items())
        return (*rank(fitting, self._machine), *refused)

    def ways(self, asked: str | None) -> Ways:
        """The one that was asked for first, if it can be followed; then the others by rank, then the CPU's."""
        candidates = self.candidates
        usable = [self._profiles[candidate.profile] for candidate in candidates if candidate.usable]
        if asked is None:
            ranked = (*map(self._way, usable), self._last(""))
            return Ways((self._with_warnings(ranked[0]), *ranked[1:]), candidates)
        first = self._profiles.get(asked) or catalog.load(asked, self._models)
        if first.name not in self._profiles:
            _refuse_static(first, self._bundle)
        way = self._way(first)
        _refuse_over_budget(first, way.bundle)
        instead = way.resolution.settings.instead
        if instead or way.resolution.profile.name != first.name:  # it gave way
            return Ways((self._last(instead),), candidates)
        others = [self._way(profile) for profile in usable if profile.name != first.name]
        return Ways((way, *others, self._last("")), candidates)

    def _way(self, profile: HardwareProfile) -> Way:
        """Through the profile's own model; through the primary one where the bundle has no variant for it."""
        resolution = resolve(profile, self._machine, threads=self._threads)
        model = self._models.get(profile.name, PRIMARY)
        return Way(self._bundle.on(model), resolution, profile.name)

    def _last(self, instead: str) -> Way:
        """The primary model, by the CPU provider's profile that fits best."""
        resolution = resolve(None, self._machine, threads=self._threads)
        settings = replace(resolution.settings, instead=instead)
        warnings = (instead, *resolution.warnings) if instead else resolution.warnings
        return Way(self._bundle.on(PRIMARY), replace(resolution, settings=settings, warnings=warnings))

    def _with_warnings(self, best: Way) -> Way:
        """With a warning for each variant that is refused, or would come before it, were its provider there."""
        missed = passed_over(tuple(self._profiles.values()), best.resolution.profile, self._machine)
        why = self._refused | {candidate.profile: candidate.why for candidate in missed}
        passed = tuple(f"variant {name} is passed over: {reason}" for name, reason in why.items())
        resolution = best.resolution
        return replace(best, resolution=replace(resolution, warnings=(*passed, *resolution.warnings)))


def _refuse_static(profile: HardwareProfile, bundle: Bundle) -> None:
    """Raise `ProfileError` if a profile that is no variant of the bundle is for static graphs."""
    if profile.graph.form == "static":
        own = "".join(f"{variant.profile}, or " for variant in bundle.manifest.variants)
        raise ProfileError(
            f"profile {profile.name}",
            found="static graphs, which this bundle does not have for it",
            expected=f"{own}a profile with a dynamic graph",
            fix=f"Export the bundle for {profile.name} too.",
        )


def _over_budget(profile: HardwareProfile, bundle: Bundle) -> str:
    return over_budget(profile, weight_bytes(bundle.manifest, bundle.entry))


def _refuse_over_budget(profile: HardwareProfile, bundle: Bundle) -> None:
    if fault := _over_budget(profile, bundle):
        raise ProfileError(
            f"profile {profile.name}",
            found=fault,
            expected="a bundle within the budget",
            fix="Follow another profile, or export a smaller model.",
        )


def _profile(bundle: Bundle, variant: Variant) -> HardwareProfile:
    return catalog.parse(bundle.read(variant.file), where=str(bundle.root / variant.file))
