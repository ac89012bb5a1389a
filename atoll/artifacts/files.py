"""Files named by their content, written so that they are whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path

from atoll.errors import AtollError, NotFound, StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INCOMING = ".incoming"
_LEFTOVER_S = 24 * 3600  # a file that has been incoming for a day was orphaned by a crash


class ArtifactFiles:
    """Finished files below `root`, as `ab/cd/abcd....png`: two levels, so that no folder grows without end.

    Writing the same content twice leaves one file, so work that was done twice does no harm.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        _remove_leftovers(root / _INCOMING)

    def write(self, content: bytes, suffix: str = ".png") -> str:
        """Store the bytes durably and give their sha256, which is their name from now on.

        Raises: StorageFull when the disk is full; nothing half-written is left.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._folder(sha256) / f"{sha256}{suffix}"
        # A file of the right name but another size can only be damage from outside: write it anew.
        if not path.is_file() or path.stat().st_size != len(content):
            write_durably(path, content, incoming=self.root / _INCOMING)
        return sha256

    def path(self, sha256: str) -> Path:
        """Raises: NotFound for what is no such name, was never written or has been removed."""
        if _SHA256.fullmatch(sha256):
            for path in self._folder(sha256).glob(f"{sha256}.*"):
                return path
        raise NotFound(f'There is no artifact "{sha256[:80]}". It may have been removed from {self.root}.')

    def thumbnail_path(self, sha256: str) -> Path:
        """Where the small preview of an artifact lies once it is made."""
        return self.root / "thumbnails" / sha256[:2] / f"{sha256}.jpg"

    def _folder(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256[2:4]


def write_durably(path: Path, content: bytes, *, incoming: Path | None = None, replace: bool = True) -> None:
    """Write a file that survives a power cut whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Args:
        incoming: folder for the temporary file, on the same disk; default is the file's own.
        replace: False raises FileExistsError when the file is there already.
    Raises: StorageFull, or AtollError "storage_unwritable"; the temporary file is removed.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = incoming or path.parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide the file from a web server or a backup
        _move(temporary, path, replace=replace)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace and path.exists():
            raise
        if error.errno in _FULL:
            size_mib = len(content) / 2**20
            raise StorageFull(
                f"The disk is full: {size_mib:.1f} MiB did not fit below {path.parent}. Free some space and try again."
            ) from error
        reason = error.strerror or error
        raise AtollError(f"{path} cannot be written: {reason}.", code="storage_unwritable") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _move(source: str, target: Path, *, replace: bool) -> None:
    if not replace:
        try:
            os.link(source, target)  # unlike rename, refuses to take a name that is in use
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if target.exists():
                raise FileExistsError(errno.EEXIST, "is there already", str(target)) from None
        else:
            Path(source).unlink()
            return
    os.replace(source, target)  # noqa: PTH105 - both are given as they are


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where a folder cannot be opened, and NTFS journals the rename
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(incoming: Path) -> None:
    with contextlib.suppress(OSError):
        for path in incoming.iterdir():
            if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                path.unlink()
