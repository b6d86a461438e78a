from __future__ import annotations

from pathlib import Path

import pytest
from signatures import DAY, NOW, TestKey, policy, write_policy

from dualtune_edge.runtime.trust.policy import TRUST_VARIABLE, read_trust
from dualtune_edge.toolkit.errors import TrustError

HEAD = 'format = "dualtune-edge-trust"\nversion = 1\n'
KEY = '[[keys]]\nname = "release"\npublic_key = "…"\n'


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    authority = TestKey().certified("Contoso", authority=True)
    trust = policy(
        TestKey().trusted(not_before=NOW, expires=NOW + DAY), authority.root(), revoked_keys=("0" * 64,), required=False
    )
    assert read_trust(write_policy(trust, tmp_path / "trust.toml")) == trust


def test_the_environment_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    assert read_trust(None) is None
    trust, other = policy(TestKey().trusted()), policy(TestKey().trusted())
    monkeypatch.setenv(TRUST_VARIABLE, str(write_policy(trust, tmp_path / "trust.toml")))
    assert read_trust(None) == trust
    assert read_trust(other) == other
    monkeypatch.setenv(TRUST_VARIABLE, "")
    assert read_trust(None) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        ("format = 1", "1"),
        (HEAD, "keys that do not go together"),
        (HEAD + 'required = "no"\n' + KEY, "'no'"),
        (HEAD + 'trusted = ["release"]\n' + KEY, "the unknown key 'trusted'"),
        (HEAD + KEY + KEY, "keys that do not go together"),
        (HEAD + KEY + "expires = 2026-01-01\n", "2026"),
        (HEAD + KEY + "expires = 2026-01-01T00:00:00\n", "2026"),
        (HEAD + KEY + "expires = 2026-01-01T00:00:00Z\nnot_before = 2026-01-01T00:00:00Z\n", "go together"),
        (HEAD + 'revoked_keys = ["AB"]\n' + KEY, "'AB'"),
        (HEAD + 'minimum_versions = {helper = "7"}\n' + KEY, "'7'"),
        (HEAD + "minimum_versions = {helper = 0}\n" + KEY, "0"),
        (HEAD + "revoked_keys = [\n" + KEY, "nvalid"),
        ("a = " + "[" * 5_000, "recursion"),
        ("#" * 70_000, "over 65536 bytes"),
        ("\udcff", "utf-8"),
    ],
)
def test_what_is_no_policy(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TrustError) as caught:
        read_trust(path)
    assert found in caught.value.found
    assert str(path) in caught.value.where


@pytest.mark.parametrize("path", ["nowhere/trust.toml", ".", "a\0b"])
def test_no_file(path: str) -> None:
    with pytest.raises(TrustError):
        read_trust(path)
