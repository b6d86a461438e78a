"""A pack goes to a real registry and back, and what the registry has is not sent again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from export_desk import Exported
from releases import pack_release
from signatures import TestKey, policy

from dualtune_edge.export.release.difference import difference
from dualtune_edge.runtime.bundle.folder import open_bundle
from dualtune_edge.runtime.store.install import install

TOOLS = ("docker-registry", "skopeo")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="docker-registry and skopeo are not installed"
)
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{accesslog: {{disabled: false}}, level: error}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the log of its requests."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    config, log = tmp_path / "registry.yml", tmp_path / "registry.log"
    config.write_text(CONFIG.format(folder=tmp_path / "registry", port=address.partition(":")[2]), encoding="utf-8")
    with log.open("wb") as file:
        process = subprocess.Popen([TOOLS[0], "serve", config], stdout=file, stderr=file)
        try:
            _wait(f"http://{address}/v2/")
            yield address, log
        finally:
            process.terminate()
            process.wait()


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the registry does not answer")


def copy(source: str, target: str) -> None:
    command = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", source, target]
    subprocess.run(command, check=True, capture_output=True)


def test_pushed_pulled_and_installed(external: Exported, registry: tuple[str, Path], tmp_path: Path) -> None:
    key = TestKey()
    address, log = registry
    packs = [pack_release(external.bundle, tmp_path, version, key=key) for version in (1, 2)]
    for version, pack in enumerate(packs, start=1):
        before = log.read_text(encoding="utf-8").count("PATCH")
        copy(f"oci-archive:{pack}:{version}", f"docker://{address}/helper:{version}")
        sent = log.read_text(encoding="utf-8").count("PATCH") - before
    changed = [file for file in difference(*packs).files if file.moved]
    assert sent == len(changed) == 4  # the manifest, its hash, the signature, and what differs
    for version in (1, 2):
        copy(f"docker://{address}/helper:{version}", f"oci:{tmp_path}/pulled-{version}:{version}")
        install(tmp_path / f"pulled-{version}", tmp_path / "store", policy(key.trusted()))
    assert open_bundle(tmp_path / "store", trust=policy(key.trusted())).manifest.release
    assert difference(packs[1], tmp_path / "store").files == ()
