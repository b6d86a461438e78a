"""Two years of a device, by the commands as people type them: nothing is lost, and nothing untrusted is opened."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from power_cut import Disk, PowerCutError
from registry import INSTALLED, copy_image, serve_registry
from releases import release
from signatures import TestKey, policy, write_policy
from tiny_bundle import FILES

from dualtune_edge import cli
from dualtune_edge.toolkit.bundle import tar
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.files import sha256_file

pytestmark = pytest.mark.slow
DAMAGED, UNTRUSTED, REFUSED = 10, 21, 22  # exit codes
ASKED: Final = "sort the folder by size"
SPEC: Final = """\
base: base
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: chooser
    arguments: writers
parity: off
release: {product: helper, version: VERSION}
"""
_MADE: Final = ("toolset", "tool", "arguments", "probability", "alternatives")


@dataclass
class World:
    """The factory's desk, a registry, and a device with a store and a trust policy."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    registry: str | None  # None: packs are carried as files
    old: TestKey = field(default_factory=TestKey)
    new: TestKey = field(default_factory=TestKey)
    last: TestKey = field(default_factory=TestKey)
    right: dict[str, Any] = field(default_factory=dict)  # what the device should answer

    @property
    def store(self) -> Path:
        return self.root / "device" / "store"

    @property
    def trust(self) -> Path:
        return self.root / "device" / "trust.toml"

    def run(self, *arguments: str | Path) -> int:
        """The exit code of a command."""
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return ended.value.code if isinstance(ended.value.code, int) else 0

    def result(self, *arguments: str | Path) -> Any:
        """What a command prints as JSON."""
        self.capsys.readouterr()
        code = self.run(*arguments, "--json")
        printed = self.capsys.readouterr()
        assert code == 0, printed.err
        return json.loads(printed.out)

    def answer(self, bundle: Path) -> dict[str, Any]:
        """What a bundle, or the device, answers."""
        trusted = ("--trust", self.trust) if bundle == self.store else ()
        made = self.result("call", bundle, ASKED, *trusted)
        return {name: made[name] for name in _MADE}

    def export(self, version: int, *options: str | Path) -> Path:
        """At the desk."""
        spec, bundle = self.root / "desk" / "dualtune.yaml", self.root / "factory" / f"helper-{version}"
        spec.write_text(SPEC.replace("VERSION", str(version)), encoding="utf-8")
        self.result("export", spec, "-o", bundle, *options)
        return bundle

    def again(self, bundle: Path, version: int) -> Path:
        """A later version whose parts are all the same: what an export of it writes."""
        made = Release(product="helper", version=version)
        target = self.root / "factory" / f"helper-{version}"
        shutil.rmtree(target, ignore_errors=True)
        target.with_suffix(".tar").unlink(missing_ok=True)
        return release(bundle, target, made, changed=b" " * version)

    def deliver(self, bundle: Path, key: TestKey) -> Path:
        """Sign, pack, push and pull: the pack as it comes to the device."""
        private = key.write(self.root / "factory" / f"{key.fingerprint[:8]}.pem")
        self.result("sign", bundle, "--key", private)
        pack = bundle.with_suffix(".tar")
        assert self.result("pack", bundle, "-o", pack)["signed"]
        if self.registry is None:
            return pack
        version, pulled = bundle.name.partition("-")[2], self.root / "device" / bundle.name
        shutil.rmtree(pulled, ignore_errors=True)
        copy_image(f"oci-archive:{pack}:{version}", f"docker://{self.registry}/helper:{version}")
        copy_image(f"docker://{self.registry}/helper:{version}", f"oci:{pulled}:{version}")
        return pulled

    def install(self, pack: Path) -> int:
        return self.run("install", pack, "--store", self.store, "--trust", self.trust)

    def versions(self) -> tuple[int, int | None]:
        """Current, and the one before."""
        listed = self.result("list", "--store", self.store)["versions"]
        named = {version["current"]: version for version in listed if version["current"] or version["previous"]}
        before = named[False]["release"]["version"] if False in named else None
        return named[True]["release"]["version"], before


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    desk = tmp_path / "desk"
    for folder in ("device", "factory"):
        (tmp_path / folder).mkdir()
    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("chooser", "writers/read", "writers/sort", "retrained")):
        write_adapter(desk / name, desk / "base", config, seed=seed)
    (desk / "files.json").write_text(json.dumps({"tools": FILES}), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve_registry(tmp_path))[0] if INSTALLED else None
        yield World(tmp_path, capsys, address)


def test_two_years(world: World) -> None:
    first = it_is_built_and_delivered(world)
    second = one_adapter_is_trained_again(world, first)
    updates_arrive_damaged_and_the_power_goes(world, second)
    the_key_is_another(world, second)
    the_key_is_stolen(world, first, second)
    a_version_is_worse(world, first, second)
    what_nobody_needs_goes(world)


def it_is_built_and_delivered(world: World) -> Path:
    """The first winter: version 1 answers on the device as at the desk, and on no device that trusts others."""
    write_policy(policy(world.old.trusted("2026")), world.trust)
    first = world.export(1)
    world.right = world.answer(first)
    pack = world.deliver(first, world.old)
    others = write_policy(policy(TestKey().trusted("somebody")), world.root / "others.toml")
    assert world.run("install", pack, "--store", world.store, "--trust", others) == UNTRUSTED
    assert not (world.store / "store.json").exists()
    assert world.install(pack) == 0
    assert world.answer(world.store) == world.right
    return first


def one_adapter_is_trained_again(world: World, first: Path) -> Path:
    """Spring: that adapter moves, and no other. A service that runs hears of the update, and takes it."""
    (world.root / "desk" / "chooser").rename(world.root / "desk" / "before")
    (world.root / "desk" / "retrained").rename(world.root / "desk" / "chooser")
    second, before = world.export(2, "--reuse", first), world.right
    world.right = world.answer(second)
    assert world.right != before
    pack = world.deliver(second, world.old)
    moved = {file["path"] for file in world.result("diff", world.store, pack)["files"] if file["moved"]}
    assert "adapters/selection.files.onnx_adapter" in moved
    assert not {path for path in moved if path.startswith(("model/", "adapters/arguments"))}
    with service(world) as running:
        assert health(running) == ("helper 1", None)
        assert world.install(pack) == 0
        assert health(running) == ("helper 1", "helper 2")
        assert reloaded(running) == ("helper 2", None)
    assert world.answer(world.store) == world.right
    return second


def updates_arrive_damaged_and_the_power_goes(world: World, second: Path) -> None:
    """Summer: version 2 goes on, until all of version 3 is there."""
    third = world.again(second, 3)
    pack = world.deliver(third, world.old)
    for data in damages(third):
        (world.root / "device" / "damaged.tar").write_bytes(data)
        assert world.install(world.root / "device" / "damaged.tar") == DAMAGED
        assert world.answer(world.store) == world.right
    power_goes(world, pack)
    assert world.versions() == (2, 1)
    assert world.answer(world.store) == world.right
    assert world.install(pack) == 0
    assert world.versions() == (3, 2)
    assert world.answer(world.store) == world.right


def the_key_is_another(world: World, second: Path) -> None:
    """Autumn: the policy knows both keys, then the old one has expired, and what it signed is not opened any more."""
    write_policy(policy(world.old.trusted("2026"), world.new.trusted("2027")), world.trust)
    assert world.install(world.deliver(world.again(second, 4), world.new)) == 0
    past = datetime.now(UTC) - timedelta(days=1)
    write_policy(policy(world.old.trusted("2026", expires=past), world.new.trusted("2027")), world.trust)
    assert world.answer(world.store) == world.right
    assert world.run("rollback", "--store", world.store, "--trust", world.trust) == UNTRUSTED
    assert world.versions() == (4, 3)


def the_key_is_stolen(world: World, first: Path, second: Path) -> None:
    """The second winter: the key is revoked, and nothing that it signed is opened, old or new."""
    trust = policy(world.last.trusted("2028"), world.new.trusted("2027"), revoked_keys=(world.new.fingerprint,))
    write_policy(trust, world.trust)
    assert world.install(world.deliver(world.again(first, 5), world.new)) == UNTRUSTED
    assert world.run("call", world.store, ASKED, "--trust", world.trust) == UNTRUSTED
    assert world.versions() == (4, 3)
    assert world.install(world.deliver(world.again(second, 6), world.last)) == 0
    assert world.answer(world.store) == world.right


def a_version_is_worse(world: World, first: Path, second: Path) -> None:
    """Spring: back from 7 to 6. Neither 7 nor a version from before comes in its place."""
    seventh, before = world.deliver(world.again(first, 7), world.last), world.right
    assert world.install(seventh) == 0
    assert world.answer(world.store) != before
    assert world.run("rollback", "--store", world.store, "--trust", world.trust) == 0
    assert world.versions() == (6, 7)
    assert world.answer(world.store) == before
    assert world.install(seventh) == REFUSED
    assert world.install(world.deliver(world.again(second, 5), world.last)) == REFUSED
    assert world.answer(world.store) == before


def what_nobody_needs_goes(world: World) -> None:
    """Summer: what is left is whole, and the log has what was done."""
    assert world.result("gc", "--store", world.store)["versions"] == 4
    assert world.versions() == (6, 7)
    assert len(list((world.store / "versions").iterdir())) == 2
    assert world.answer(world.store) == world.right
    names = {path.name for path in (world.store / "blobs").iterdir()}
    files = world.result("inspect", world.store, "--trust", world.trust)["files"]
    assert {file["sha256"] for file in files} <= names
    log = world.result("list", "--store", world.store)["log"]
    assert [(change["by"], change["version"]) for change in log] == [
        ("install", 1), ("install", 2), ("install", 3), ("install", 4), ("install", 6), ("install", 7), ("rollback", 6),
    ]  # fmt: skip


def damages(bundle: Path) -> Iterator[bytes]:
    """Of its pack: half of it, and one bit of a file that is new."""
    data = bytearray(bundle.with_suffix(".tar").read_bytes())
    yield bytes(data[: len(data) // 2])
    header = data.index(f"blobs/sha256/{sha256_file(bundle / 'export.json')}".encode())
    data[header + tar.BLOCK] ^= 1
    yield bytes(data)


def power_goes(world: World, pack: Path) -> None:
    """In the middle of an installation; what was not synced is lost."""
    scratch = world.root / "scratch"
    scratch.mkdir()
    disk = Disk(world.store, scratch, 40)
    with pytest.raises(PowerCutError), disk.watched():
        cli.main(["install", str(pack), "--store", str(world.store), "--trust", str(world.trust)])
    disk.lose("names")


@contextlib.contextmanager
def service(world: World) -> Iterator[Service]:
    command = ["serve", str(world.store), "--port", "0", "--trust", str(world.trust)]
    with subprocess.Popen(
        [sys.executable, "-m", "dualtune_edge", *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        running = Service(process)
        try:
            running.url = running.event("ready")["url"]
            yield running
        finally:
            process.kill()


@dataclass
class Service:
    """`dualtune-edge serve` on the device."""

    process: subprocess.Popen[str]
    url: str = ""

    def event(self, name: str) -> dict[str, Any]:
        """The next line of its log of this kind."""
        assert self.process.stderr
        for text in self.process.stderr:
            with contextlib.suppress(json.JSONDecodeError):
                line: dict[str, Any] = json.loads(text)
                if line["event"] == name:
                    return line
        raise AssertionError(f"no line {name!r}")


def health(service: Service) -> tuple[str | None, str | None]:
    """What it serves, and what the store has by now."""
    with urllib.request.urlopen(f"{service.url}/health", timeout=30) as response:  # noqa: S310 - our own
        state = json.load(response)
    return state["release"], state["superseded"]


def reloaded(service: Service) -> tuple[str | None, str | None]:
    service.process.send_signal(signal.SIGHUP)
    service.event("reloaded")
    return health(service)
