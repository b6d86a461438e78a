import re
from pathlib import Path

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.resolve import resolve
from dualtune_edge.profiles.schema import Cpu, Machine, SessionSettings

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def test_the_example_is_all_that_a_new_soc_takes(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 1
    path = tmp_path / "contoso-c1.toml"
    path.write_text(examples[0], encoding="utf-8")
    profile = catalog.load(path)
    assert profile not in catalog.profiles()
    cpu = Cpu("Contoso C1", ("asimddp", "i8mm"), physical_cores=8, logical_cores=8, performance_cores=4, memory=None)
    resolution = resolve(profile, Machine("Linux", "arm64", cpu))
    assert resolution.warnings == ()
    assert resolution.settings == SessionSettings(intra_op_threads=4, spinning=False)
    assert resolution.profile.quantization.block_size == 64
    assert "the slow cores would hold up the fast ones" in {reason.why for reason in resolution.reasons}


def test_every_profile_is_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [
        profile.name for profile in catalog.profiles() if f"{profile.name:<20} {profile.description}" not in text
    ] == []
