"""Which file systems' times are believed: by what is mounted, not by what the times look like."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dualtune_edge.runtime.cache import filesystems
from dualtune_edge.runtime.cache.filesystems import mount_of, name_of

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:30 / /run rw - tmpfs tmpfs rw
31 22 7:0 / /opt/image ro - squashfs /dev/loop0 ro
32 22 7:1 / /opt/loop rw - ext4 /dev/loop1 rw
33 22 0:40 / /var/lib/over rw - overlay overlay rw,lowerdir=/a,upperdir=/b
34 22 0:41 / /mnt/share rw - nfs4 server:/export rw
35 22 0:42 / /mnt/my\040disk rw - xfs /dev/sdb1 rw
36 22 0:43 / /mnt/my rw - vfat /dev/sdc1 rw
37 22 0:44 / /mnt/twice rw - ext4 /dev/sdd1 rw
38 37 0:45 / /mnt/twice ro - erofs /dev/sde1 ro
39 22 0:46 / /home rw - fuse.sshfs me@host:/ rw
a line that is none
""".splitlines()


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/", "ext4 /dev/vda1"),
        ("/opt/bundle", "ext4 /dev/vda1"),
        ("/opt/images/bundle", "ext4 /dev/vda1"),
        ("/run/bundle", "tmpfs tmpfs"),
        ("/mnt/my disk/bundle", "xfs /dev/sdb1"),
        ("/opt/image", None),
        ("/opt/image/bundle", None),
        ("/opt/loop/bundle", None),
        ("/var/lib/over/bundle", None),
        ("/mnt/share/bundle", None),
        ("/mnt/my/bundle", None),
        ("/mnt/twice/bundle", None),
        ("/home/me/bundle", None),
    ],
)
def test_the_mount_that_a_path_lies_in_decides(path: str, mount: str | None) -> None:
    assert mount_of(Path(path), MOUNTS) == mount


def test_without_mounts_nothing_is_believed() -> None:
    assert mount_of(Path("/opt"), []) is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no statvfs")
def test_nothing_that_is_read_only_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_mount", lambda _folder: "ext4 /dev/sda1")
    assert name_of(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_RDONLY, f_fsid=1))
    assert name_of(tmp_path) is None


def test_another_device_or_file_system_is_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_mount", lambda _folder: "ext4 /dev/sda1")
    names = set()
    for fsid in (1, 2):
        monkeypatch.setattr(os, "statvfs", lambda _path, fsid=fsid: SimpleNamespace(f_flag=0, f_fsid=fsid))
        names.add(name_of(tmp_path))
    monkeypatch.setattr(filesystems, "_mount", lambda _folder: "ext4 /dev/sdb1")
    names.add(name_of(tmp_path))
    assert len(names) == 3


def test_without_proc_nothing_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_MOUNTS", tmp_path / "nothing")
    assert filesystems._mount(tmp_path) is None


def test_a_folder_that_is_not_there_has_no_name(tmp_path: Path) -> None:
    assert name_of(tmp_path / "nothing") is None
