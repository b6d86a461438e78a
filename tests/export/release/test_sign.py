"""Signatures of ours are verified by model-signing's own command, and its own by us."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from export_desk import Exported
from signatures import TestKey, pem, policy, write_policy

from dualtune_edge import cli
from dualtune_edge.export.release import sign as signing
from dualtune_edge.export.release.sign import SigningKey, sign_bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.errors import BundleError, OutputError, SpecError, TrustError

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture
def bundle(external: Exported, tmp_path: Path) -> Path:
    return shutil.copytree(external.bundle, tmp_path / "bundle")


@pytest.fixture
def key(tmp_path: Path) -> TestKey:
    key = TestKey()
    key.write(tmp_path / "key.pem")
    (tmp_path / "public.pem").write_text(key.pem, encoding="utf-8")
    return key


@pytest.fixture
def certified(tmp_path: Path) -> TestKey:
    authority = TestKey().certified("Contoso", authority=True)
    key = TestKey().certified("release", TestKey().certified("Contoso devices", authority, authority=True))
    key.write(tmp_path / "key.pem")
    for name, certificate in zip(("own.pem", "between.pem", "root.pem"), key.chain, strict=True):
        (tmp_path / name).write_text(pem(certificate), encoding="utf-8")
    return key


def run(arguments: tuple[str, ...]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else 0


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_our_signature_by_their_command(bundle: Path, key: TestKey, tmp_path: Path) -> None:
    (bundle / ".DS_Store").touch()
    sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem")))
    arguments = ("--signature", bundle / "model.sig", "--public_key", tmp_path / "public.pem")
    result = model_signing("verify", "key", bundle, *arguments)
    assert result.returncode == 0, result.stderr
    (bundle / "prompts" / "more").touch()
    assert model_signing("verify", "key", bundle, *arguments).returncode == 1
    (bundle / "prompts" / "more").unlink()
    assert open_bundle(bundle, trust=policy(key.trusted())).signer == "release"


def test_their_signature_by_us(bundle: Path, key: TestKey, tmp_path: Path) -> None:
    signature = ("--signature", bundle / "model.sig")
    result = model_signing("sign", "key", bundle, *signature, "--private_key", tmp_path / "key.pem")
    assert result.returncode == 0, result.stderr
    assert open_bundle(bundle, trust=policy(key.trusted())).signer == "release"


def test_our_chain_by_their_command(bundle: Path, certified: TestKey, tmp_path: Path) -> None:
    sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem"), tmp_path / "own.pem", (tmp_path / "between.pem",)))
    arguments = ("--signature", bundle / "model.sig", "--certificate_chain", tmp_path / "root.pem")
    result = model_signing("verify", "certificate", bundle, *arguments)
    assert result.returncode == 0, result.stderr
    assert open_bundle(bundle, trust=policy(certified.root())).signer == "authority"


def test_their_chain_by_us(bundle: Path, certified: TestKey, tmp_path: Path) -> None:
    arguments = ("--signing_certificate", tmp_path / "own.pem", "--certificate_chain", tmp_path / "between.pem")
    key = ("--private_key", tmp_path / "key.pem", "--signature", bundle / "model.sig")
    result = model_signing("sign", "certificate", bundle, *key, *arguments)
    assert result.returncode == 0, result.stderr
    assert open_bundle(bundle, trust=policy(certified.root())).signer == "authority"


@pytest.mark.skipif(not LIBRARY.exists(), reason="SoftHSM is not installed")
def test_a_key_on_a_token(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = TestKey()
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n", encoding="utf-8")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    hsm = ["softhsm2-util", "--token", "devices", "--pin", "1234"]
    subprocess.run([*hsm, "--init-token", "--free", "--label", "devices", "--so-pin", "4321"], check=True)
    path = key.write(tmp_path / "key.pem")
    subprocess.run([*hsm, "--import", path, "--label", "release", "--id", "A1"], check=True)
    uri = f"pkcs11:token=devices;object=release?pin-value=1234&module-path={LIBRARY}"
    sign_bundle(bundle, SigningKey(uri))
    assert open_bundle(bundle, trust=policy(key.trusted())).signer == "release"


def test_an_encrypted_key(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, path = TestKey(), tmp_path / "key.pem"
    path.write_bytes(
        key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption("größe".encode()))
    )
    monkeypatch.setenv("DUALTUNE_EDGE_KEY_PASSWORD", "größe")
    assert run(("sign", str(bundle), "--key", str(path))) == 0
    assert open_bundle(bundle, trust=policy(key.trusted())).signer == "release"
    monkeypatch.delenv("DUALTUNE_EDGE_KEY_PASSWORD")
    assert run(("sign", str(bundle), "--key", str(path))) == SpecError.exit_code


def test_sign_verify_and_inspect(
    bundle: Path, key: TestKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = str(write_policy(policy(key.trusted()), tmp_path / "trust.toml"))
    elsewhere = str(tmp_path / "elsewhere.sig")
    assert run(("sign", str(bundle), "--key", str(tmp_path / "key.pem"), "--signature", elsewhere)) == 0
    assert run(("verify", str(bundle), "--trust", trust)) == TrustError.exit_code
    capsys.readouterr()
    assert run(("verify", str(bundle), "--trust", trust, "--signature", elsewhere, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["signer"] == "release"
    shutil.copy(elsewhere, bundle / "model.sig")
    assert run(("inspect", str(bundle), "--trust", trust)) == 0
    assert "signed by       release" in capsys.readouterr().out
    assert run(("verify", str(bundle))) == SpecError.exit_code
    assert run(("verify", str(bundle), "--trust", trust, "--profile", "qnn-x-elite")) == SpecError.exit_code


def test_a_second_signature_takes_the_place_of_the_first(bundle: Path, key: TestKey, tmp_path: Path) -> None:
    sign_bundle(bundle, SigningKey(str(TestKey().write(tmp_path / "old.pem"))))
    sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem")))
    assert open_bundle(bundle, trust=policy(key.trusted())).signer == "release"
    assert not list(bundle.glob("*.partial"))


@pytest.mark.parametrize("name", ["nowhere.pem", "text.pem", "own.pem", "pkcs11:object=release"])
def test_what_is_no_key(bundle: Path, certified: TestKey, name: str, tmp_path: Path) -> None:
    del certified
    (tmp_path / "text.pem").write_text("a key", encoding="utf-8")
    with pytest.raises(SpecError, match="the signing key"):
        sign_bundle(bundle, SigningKey(name if ":" in name else str(tmp_path / name)))
    assert not (bundle / "model.sig").exists()


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: TestKey, tmp_path: Path) -> None:
    del key
    (bundle / "model" / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BundleError):
        sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem")))


def test_a_bundle_that_changes_meanwhile(
    bundle: Path, key: TestKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del key
    opened = signing.open_signed

    def change(*of: object, **how: object) -> object:
        result = opened(*of, **how)  # type: ignore[arg-type]
        (bundle / "parity.json").write_bytes(b"{}")
        return result

    monkeypatch.setattr(signing, "open_signed", change)
    with pytest.raises(BundleError, match="changed"):
        sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem")))
    assert not (bundle / "model.sig").exists()


def test_a_signature_that_cannot_be_written(bundle: Path, key: TestKey, tmp_path: Path) -> None:
    del key
    with pytest.raises(OutputError):
        sign_bundle(bundle, SigningKey(str(tmp_path / "key.pem")), tmp_path / "nowhere" / "model.sig")
