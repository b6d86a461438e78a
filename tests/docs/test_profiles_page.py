import re
from pathlib import Path

from dualtune_edge.profiles import catalog

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def test_the_example_of_a_profile_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 1
    path = tmp_path / "my.toml"
    path.write_text(examples[0], encoding="utf-8")
    assert catalog.load(path).session.threads == 4


def test_every_profile_is_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [
        profile.name for profile in catalog.profiles() if f"{profile.name:<20} {profile.description}" not in text
    ] == []
