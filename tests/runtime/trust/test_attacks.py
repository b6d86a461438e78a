"""What an attacker may do to a signed bundle, by name: it is refused, and nothing of it was opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from signatures import DAY, NOW, TestKey, envelope, hashes_of, policy, sign, statement

from dualtune_edge.runtime.bundle import contents
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.trust.policy import TrustPolicy
from dualtune_edge.toolkit.errors import BundleError, EdgeError, TrustError

Attack = Callable[[Path], object]
Reseal = Callable[[], None]
ChangeManifest = Callable[[Callable[[dict[str, Any]], object]], None]
OURS, OTHERS = TestKey(), TestKey()


class Watch:
    """What was opened of a bundle."""

    def __init__(self) -> None:
        self.manifests, self.sessions = 0, 0


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch()
    parse = contents.validate

    def validate(*of: Any, **how: Any) -> Any:
        watch.manifests += 1
        return parse(*of, **how)

    def session(*_: Any, **__: Any) -> None:
        watch.sessions += 1
        raise AssertionError("a session was opened")

    monkeypatch.setattr(contents, "validate", validate)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return watch


@pytest.fixture
def signed(bundle: Path) -> Path:
    sign(bundle, OURS)
    return bundle


def refused(bundle: Path, trust: TrustPolicy) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        Agent.open(bundle, trust=trust)
    return caught.value


def assert_untouched(watch: Watch) -> None:
    assert (watch.manifests, watch.sessions) == (0, 0)


def test_what_is_signed_is_opened(signed: Path) -> None:
    with Agent.open(signed, trust=policy(OURS.trusted())) as agent:
        assert agent.bundle.signer == "release"


def test_unsigned(bundle: Path, watch: Watch) -> None:
    error = refused(bundle, policy(OURS.trusted()))
    assert isinstance(error, TrustError)
    assert error.found == "no signature"
    assert_untouched(watch)


def test_signature_taken_away(signed: Path, watch: Watch) -> None:
    (signed / "model.sig").unlink()
    assert refused(signed, policy(OURS.trusted())).found == "no signature"
    assert_untouched(watch)


def test_unsigned_where_it_need_not_be(bundle: Path) -> None:
    with Agent.open(bundle, trust=policy(OURS.trusted(), required=False)) as agent:
        assert agent.bundle.signer is None


def test_wrong_key_where_no_signature_is_needed(bundle: Path, watch: Watch) -> None:
    sign(bundle, OTHERS)
    assert "does not have" in refused(bundle, policy(OURS.trusted(), required=False)).found
    assert_untouched(watch)


def test_wrong_key(bundle: Path, watch: Watch) -> None:
    sign(bundle, OTHERS)
    error = refused(bundle, policy(OURS.trusted()))
    assert "does not have" in error.found
    assert error.expected == "a signature by 'release'"
    assert_untouched(watch)


def test_wrong_key_that_claims_to_be_the_right_one(bundle: Path, watch: Watch) -> None:
    value = envelope(json.dumps(statement(hashes_of(bundle))).encode(), OTHERS)
    value["verificationMaterial"] = envelope(b"", OURS)["verificationMaterial"]
    (bundle / "model.sig").write_text(json.dumps(value), encoding="utf-8")
    assert "not by the key of 'release'" in refused(bundle, policy(OURS.trusted())).found
    assert_untouched(watch)


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_one_bit_of_the_payload(bundle: Path, curve: str, watch: Watch) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = TestKey(ec.generate_private_key(getattr(ec, curve)()))
    sign(bundle, key)
    value = json.loads((bundle / "model.sig").read_bytes())
    payload = bytearray(json.dumps(statement(hashes_of(bundle))).encode())
    payload[len(payload) // 2] ^= 1
    value["dsseEnvelope"]["payload"] = envelope(bytes(payload), key)["dsseEnvelope"]["payload"]
    (bundle / "model.sig").write_text(json.dumps(value), encoding="utf-8")
    assert "not by the key" in refused(bundle, policy(key.trusted())).found
    assert_untouched(watch)


@pytest.mark.parametrize(
    ("dates", "found"),
    [({"expires": NOW - DAY}, "expired"), ({"not_before": NOW + DAY}, "counts from"), ({"expires": NOW}, "expired")],
)
def test_key_out_of_date(signed: Path, dates: dict[str, Any], found: str, watch: Watch) -> None:
    assert found in refused(signed, policy(OURS.trusted(**dates))).found
    assert_untouched(watch)


def test_rotation(bundle: Path) -> None:
    old, new = TestKey(), TestKey()
    trust = policy(old.trusted("old", expires=NOW + DAY), new.trusted("new", not_before=NOW - DAY))
    for key, name in ((old, "old"), (new, "new")):
        sign(bundle, key)
        with Agent.open(bundle, trust=trust) as agent:
            assert agent.bundle.signer == name


def test_one_key_for_two_periods(signed: Path) -> None:
    trust = policy(OURS.trusted("first", expires=NOW - DAY), OURS.trusted("second", not_before=NOW - DAY))
    with Agent.open(signed, trust=trust) as agent:
        assert agent.bundle.signer == "second"


def test_revoked_key(signed: Path, watch: Watch) -> None:
    assert "is revoked" in refused(signed, policy(OURS.trusted(), revoked_keys=(OURS.fingerprint,))).found
    assert_untouched(watch)


@pytest.mark.parametrize("required", [True, False])
def test_revoked_bundle(signed: Path, watch: Watch, *, required: bool) -> None:
    digest = hashes_of(signed)["manifest.json"]
    if not required:
        (signed / "model.sig").unlink()
    trust = policy(OURS.trusted(), revoked_bundles=(digest,), required=required)
    assert digest in refused(signed, trust).found
    assert_untouched(watch)


def test_signature_of_another_bundle(signed: Path, watch: Watch, tmp_path: Path, exported: Path) -> None:
    other = shutil.copytree(exported, tmp_path / "other")
    (other / "manifest.json").write_bytes((other / "manifest.json").read_bytes().replace(b"History", b"Hystory"))
    sign(other, OURS)
    shutil.copy(other / "model.sig", signed)
    assert "SHA-256" in refused(signed, policy(OURS.trusted())).found
    assert_untouched(watch)


def test_resealed_manifest(signed: Path, change_manifest: ChangeManifest, watch: Watch) -> None:
    change_manifest(lambda manifest: manifest["base"].update(name="another"))
    assert "SHA-256" in refused(signed, policy(OURS.trusted())).found
    assert_untouched(watch)


def test_resealed_file(signed: Path, reseal: Reseal, watch: Watch) -> None:
    prompt = next((signed / "prompts").iterdir())
    prompt.write_bytes(prompt.read_bytes() + b" ")
    reseal()
    assert "SHA-256" in refused(signed, policy(OURS.trusted())).found
    assert_untouched(watch)


def test_changed_file(signed: Path, watch: Watch) -> None:
    file = signed / "model" / "model.onnx.data"
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    assert isinstance(refused(signed, policy(OURS.trusted())), BundleError)
    assert watch.sessions == 0


def release(manifest: dict[str, Any], expires: str | None) -> None:
    """Make it version 6 of a product; the key has its place among the others."""
    fields = manifest | {"release": {"product": "helper", "version": 6, "expires": expires}}
    manifest.clear()
    manifest.update({key: fields[key] for key in ("format", "version", "release", *fields)})


def test_replayed_old_bundle(bundle: Path, change_manifest: ChangeManifest, watch: Watch) -> None:
    """Signed like the new one."""
    change_manifest(lambda manifest: release(manifest, None))
    sign(bundle, OURS)
    assert refused(bundle, policy(OURS.trusted(), minimum_versions={"helper": 7})).found == "helper 6"
    assert watch.sessions == 0
    for lowest in ({"helper": 6}, {"another": 9}):
        assert open_bundle(bundle, trust=policy(OURS.trusted(), minimum_versions=lowest)).signer == "release"


@pytest.mark.parametrize("required", [True, False])
def test_replayed_bundle_from_before_there_were_versions(signed: Path, watch: Watch, *, required: bool) -> None:
    if not required:
        (signed / "model.sig").unlink()
    trust = policy(OURS.trusted(), minimum_versions={"helper": 1}, required=required)
    assert refused(signed, trust).found == "no product and version"
    assert watch.sessions == 0


def test_freeze(bundle: Path, change_manifest: ChangeManifest) -> None:
    """Nobody can say that there is no newer version for longer than the last one said."""

    def until(day: date) -> Bundle:
        change_manifest(lambda manifest: release(manifest, day.isoformat()))
        return open_bundle(bundle)

    today = NOW.date()
    assert until(today + 2 * DAY).overdue is None
    assert until(today - DAY).overdue == f"helper 6 was to be replaced by {today - DAY}: updates are not arriving"


def test_mixed_parts(signed: Path, watch: Watch) -> None:
    """The signed list has the file, and the manifest another one."""
    files = hashes_of(signed)
    name = next(name for name in files if name.startswith("adapters/"))
    sign(signed, OURS, files | {name: "0" * 64})
    error = refused(signed, policy(OURS.trusted()))
    assert error.where.endswith(name)
    assert watch.sessions == 0


@pytest.mark.parametrize(
    "name", ["adapters/more.onnx_adapter", ".git/config", ".gitignore", "model/more", "model.sig.old"]
)
def test_added_file(signed: Path, name: str, watch: Watch) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_bytes(b"more")
    assert isinstance(refused(signed, policy(OURS.trusted())), BundleError)
    assert watch.sessions == 0


def test_added_file_in_a_new_list(signed: Path, watch: Watch) -> None:
    """Signed, and not in the manifest."""
    sign(signed, OURS, hashes_of(signed) | {"more": "0" * 64})
    assert refused(signed, policy(OURS.trusted())).where.endswith("more")
    assert watch.sessions == 0


def test_removed_file(signed: Path, watch: Watch) -> None:
    next((signed / "states").iterdir()).unlink()
    assert isinstance(refused(signed, policy(OURS.trusted())), BundleError)
    assert watch.sessions == 0


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_manifest_that_was_not_signed(signed: Path, name: str, watch: Watch) -> None:
    files = hashes_of(signed)
    del files[name]
    sign(signed, OURS, files)
    assert "SHA-256" in refused(signed, policy(OURS.trusted())).found
    assert watch.sessions == 0


def test_linked_signature(signed: Path, watch: Watch, tmp_path: Path) -> None:
    (signed / "model.sig").rename(tmp_path / "elsewhere")
    (signed / "model.sig").symlink_to(tmp_path / "elsewhere")
    assert isinstance(refused(signed, policy(OURS.trusted())), TrustError)
    assert_untouched(watch)


def test_listed_signature(signed: Path, change_manifest: ChangeManifest) -> None:
    """A manifest that lists a file of the signature's name: nobody could sign it."""
    entry = {"path": "model.sig", "size": 1, "sha256": "0" * 64}
    change_manifest(lambda manifest: manifest["files"].append(entry))
    with pytest.raises(BundleError, match=r"model\.sig"):
        Agent.open(signed)


class TestCertificates:
    AUTHORITY = TestKey().certified("Contoso", authority=True)
    BETWEEN = TestKey().certified("Contoso devices", AUTHORITY, authority=True)

    def test_a_chain_that_leads_to_the_root(self, bundle: Path) -> None:
        sign(bundle, TestKey().certified("release", self.BETWEEN))
        with Agent.open(bundle, trust=policy(self.AUTHORITY.root())) as agent:
            assert agent.bundle.signer == "authority"

    @pytest.mark.parametrize("by", ["another root", "nobody", "no authority"])
    def test_a_chain_that_leads_elsewhere(self, bundle: Path, by: str, watch: Watch) -> None:
        above = {
            "another root": TestKey().certified("Contoso", authority=True),
            "nobody": None,
            "no authority": TestKey().certified("a user", self.AUTHORITY),
        }[by]
        sign(bundle, TestKey().certified("release", above))
        assert isinstance(refused(bundle, policy(self.AUTHORITY.root())), TrustError)
        assert_untouched(watch)

    @pytest.mark.parametrize("form", [{"signs": False}, {"until": NOW - DAY}])
    def test_a_certificate_that_does_not_count(self, bundle: Path, form: dict[str, Any], watch: Watch) -> None:
        sign(bundle, TestKey().certified("release", self.AUTHORITY, **form))
        assert isinstance(refused(bundle, policy(self.AUTHORITY.root())), TrustError)
        assert_untouched(watch)

    @pytest.mark.parametrize("revoked", ["own", "between", "root"])
    def test_a_revoked_key_of_the_chain(self, bundle: Path, revoked: str, watch: Watch) -> None:
        key = TestKey().certified("release", self.BETWEEN)
        fingerprints = {"own": key, "between": self.BETWEEN, "root": self.AUTHORITY}
        sign(bundle, key)
        trust = policy(self.AUTHORITY.root(), revoked_keys=(fingerprints[revoked].fingerprint,))
        assert "is revoked" in refused(bundle, trust).found
        assert_untouched(watch)

    def test_a_root_out_of_date(self, bundle: Path, watch: Watch) -> None:
        sign(bundle, TestKey().certified("release", self.AUTHORITY))
        assert "expired" in refused(bundle, policy(self.AUTHORITY.root(expires=NOW - DAY))).found
        assert_untouched(watch)

    def test_anothers_certificate_with_ones_own_signature(self, bundle: Path, watch: Watch) -> None:
        sign(bundle, TestKey(OTHERS.private, TestKey().certified("release", self.AUTHORITY).chain))
        assert "not by the key" in refused(bundle, policy(self.AUTHORITY.root())).found
        assert_untouched(watch)

    def test_certificate_where_the_policy_has_no_root(self, bundle: Path, watch: Watch) -> None:
        sign(bundle, TestKey().certified("release", self.AUTHORITY))
        assert "no root" in refused(bundle, policy(OURS.trusted())).found
        assert_untouched(watch)


def _change(value: dict[str, Any], path: str, item: object) -> None:
    *outer, last = path.split(".")
    for key in outer:
        value = value[int(key)] if isinstance(value, list) else value[key]
    if isinstance(value, list):
        value[int(last)] = item
    else:
        value[last] = item


STATEMENTS = {
    "_type": "https://in-toto.io/Statement/v0.1",
    "predicateType": "https://model_signing/Digests/v0.1",
    "subject": [],
    "subject.0.digest.sha256": "0" * 64,
    "predicate.serialization.method": "shards",
    "predicate.serialization.hash_type": "blake3",
    "predicate.resources.0.algorithm": "blake2b",
    "predicate.resources.0.digest": "0" * 63,
    "predicate.resources.0.name": 5,
    "predicate.resources": {},
    "predicate": None,
}
ENVELOPES = {
    "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "dsseEnvelope.payloadType": "text/plain",
    "dsseEnvelope.signatures": [],
    "dsseEnvelope.payload": "?",
    "dsseEnvelope.signatures.0.sig": "AAAA",
    "verificationMaterial": {"certificate": {"rawBytes": ""}},
    "verificationMaterial.publicKey": {},
    "verificationMaterial.publicKey.hint": None,
    "dsseEnvelope": [],
}


@pytest.mark.parametrize("path", STATEMENTS)
def test_another_statement(bundle: Path, path: str, watch: Watch) -> None:
    value = statement(hashes_of(bundle))
    _change(value, path, STATEMENTS[path])
    (bundle / "model.sig").write_text(json.dumps(envelope(json.dumps(value).encode(), OURS)), encoding="utf-8")
    assert isinstance(refused(bundle, policy(OURS.trusted())), TrustError)
    assert_untouched(watch)


@pytest.mark.parametrize("path", ENVELOPES)
def test_another_envelope(signed: Path, path: str, watch: Watch) -> None:
    value = json.loads((signed / "model.sig").read_bytes())
    _change(value, path, ENVELOPES[path])
    (signed / "model.sig").write_text(json.dumps(value), encoding="utf-8")
    assert isinstance(refused(signed, policy(OURS.trusted())), TrustError)
    assert_untouched(watch)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b"null"])
def test_no_envelope(bundle: Path, data: bytes, watch: Watch) -> None:
    (bundle / "model.sig").write_bytes(data)
    assert isinstance(refused(bundle, policy(OURS.trusted())), TrustError)
    assert_untouched(watch)


def test_a_file_twice_in_the_statement(bundle: Path, watch: Watch) -> None:
    value = statement(hashes_of(bundle))
    value["predicate"]["resources"].append(value["predicate"]["resources"][0])
    (bundle / "model.sig").write_text(json.dumps(envelope(json.dumps(value).encode(), OURS)), encoding="utf-8")
    assert "twice" in refused(bundle, policy(OURS.trusted())).found
    assert_untouched(watch)


def test_once_more_by_the_record_of_verified_files(signed: Path) -> None:
    """What was hashed before is not hashed again, and the signature is verified each time."""
    trust = policy(OURS.trusted())
    Agent.open(signed, trust=trust).close()
    Agent.open(signed, trust=trust).close()
    late = policy(OURS.trusted(expires=NOW - timedelta(seconds=1)))
    assert "expired" in refused(signed, late).found
