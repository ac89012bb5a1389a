"""Files named by content, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atoll.artifacts.files import ArtifactFiles, write_durably
from atoll.errors import AtollError, NotFound, StorageFull


def all_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_written_is_found_by_its_content(tmp_path: Path) -> None:
    files = ArtifactFiles(tmp_path / "图片 folder")
    sha256 = files.write(b"pixels", ".png")
    assert sha256 == hashlib.sha256(b"pixels").hexdigest()
    path = files.path(sha256)
    assert path.read_bytes() == b"pixels"
    assert path.relative_to(files.root).parts == (sha256[:2], sha256[2:4], f"{sha256}.png")
    assert path.stat().st_mode & 0o044


def test_the_same_content_twice_is_one_file_and_damage_is_repaired(tmp_path: Path) -> None:
    files = ArtifactFiles(tmp_path)
    path = files.path(files.write(b"pixels"))
    before = path.stat().st_mtime_ns
    files.write(b"pixels")
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"pix")
    files.write(b"pixels")
    assert path.read_bytes() == b"pixels"
    assert all_files(tmp_path) == [path]


@pytest.mark.parametrize("name", ["0" * 64, "../../etc/passwd", "", "*", "A" * 64])
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        ArtifactFiles(tmp_path).path(name)


def test_a_full_disk_leaves_words_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageFull, match=r"The disk is full: 2.0 MiB did not fit"):
        ArtifactFiles(tmp_path).write(bytes(2 * 2**20))
    assert all_files(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk takes root on Linux")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "small disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        files = ArtifactFiles(disk / "artifacts")
        kept = files.write(b"x" * 500_000)
        with pytest.raises(StorageFull):
            files.write(b"y" * 900_000)
        assert [path.read_bytes()[:1] for path in all_files(disk)] == [b"x"]
        assert files.path(kept).stat().st_size == 500_000
        files.write(b"z" * 100_000)  # what fits still fits
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AtollError, match="cannot be written") as refusal:
        write_durably(tmp_path / "file" / "picture.png", b"x")
    assert refusal.value.code == "storage_unwritable"


def test_without_replace_the_first_one_stays(tmp_path: Path) -> None:
    write_durably(tmp_path / "a.png", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "a.png", b"second", replace=False)
    write_durably(tmp_path / "b.png", b"third")
    assert sorted(path.read_bytes() for path in all_files(tmp_path)) == [b"first", b"third"]


def test_a_writer_killed_half_way_leaves_no_artifact_and_its_rest_is_cleared_later(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom atoll.artifacts.files import ArtifactFiles\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\nArtifactFiles(Path(sys.argv[1])).write(b'half')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert killed.returncode == -9
    with pytest.raises(NotFound):
        ArtifactFiles(tmp_path).path(hashlib.sha256(b"half").hexdigest())
    [rest] = all_files(tmp_path)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(rest, (two_days_ago, two_days_ago))
    ArtifactFiles(tmp_path)
    assert all_files(tmp_path) == []
