"""Files that a ComfyUI frontend keeps with its user: saved workflows, user.css, and the settings."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from atoll.artifacts.files import write_durably
from atoll.errors import AtollError, InvalidRequest, NotFound

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]')
_LONGEST_PART = 200  # bytes in UTF-8; file systems take 255

log = logging.getLogger(__name__)


class FileExists(InvalidRequest):
    """A file of that name is there, and was not to be overwritten."""

    code = "file_exists"


class UserFiles:
    """Files below `root`, by their path with '/' between folders. Writing makes the folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Of a file that is there. Raises: NotFound, InvalidRequest."""
        path = self._inside(name)
        if not path.is_file():
            raise NotFound(f"There is no user file {name[:200]!r}.")
        return path

    def names(self, folder: str, *, recurse: bool) -> list[str]:
        """Paths of the files in a folder, from that folder on. Raises: NotFound without such a folder."""
        top = self._folder(folder)
        found = top.rglob("*") if recurse else top.glob("*")
        return sorted(path.relative_to(top).as_posix() for path in found if path.is_file() and _is_shown(path))

    def entries(self, folder: str) -> Iterator[dict[str, Any]]:
        """Files and folders of a folder: `{name, path, type, size, modified}`. Raises: NotFound."""
        top = self._folder(folder)
        for path in sorted(top.iterdir()):
            if _is_shown(path):
                status, is_file = path.stat(), path.is_file()
                entry: dict[str, Any] = {"name": path.name, "path": path.relative_to(self.root).as_posix()}
                entry["type"] = "file" if is_file else "directory"
                yield {**entry, "size": status.st_size, "modified": _ms(status.st_mtime)} if is_file else entry

    def info(self, name: str, *, shown_as: str | None = None) -> dict[str, Any]:
        """`{path, size, modified, created}`, times in milliseconds since 1970."""
        status = self.path(name).stat()
        times = {"modified": _ms(status.st_mtime), "created": _ms(status.st_ctime)}
        return {"path": shown_as or self._shown(name), "size": status.st_size, **times}

    def write(self, name: str, content: bytes, *, overwrite: bool) -> str:
        """Keep a file; gives its path. Raises: FileExists, InvalidRequest, StorageFull."""
        path = self._inside(name)
        if path.is_dir():
            raise InvalidRequest(f"{name[:200]!r} is a folder. Give the file another name.")
        try:
            write_durably(path, content, replace=overwrite)
        except FileExistsError as error:
            raise FileExists(f"There is a user file {name[:200]!r} already. Nothing was changed.") from error
        return self._shown(name)

    def move(self, name: str, target: str, *, overwrite: bool) -> str:
        """Give a file another path. Raises: NotFound, FileExists."""
        source, wanted = self.path(name), self._inside(target)
        if wanted.is_dir() or (wanted.exists() and not overwrite):
            raise FileExists(f"There is {target[:200]!r} already. Nothing was changed.")
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, wanted)
        except OSError as error:
            raise AtollError(f"{name[:200]!r} cannot be moved: {error}.", code="storage_unwritable") from error
        return self._shown(target)

    def delete(self, name: str) -> None:
        """Raises: NotFound."""
        self.path(name).unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        path = self._inside(name) if name.strip("/") else self.root
        if not path.is_dir():
            raise NotFound(f"There is no folder {name[:200]!r} among the user files.")
        return path

    def _inside(self, name: str) -> Path:
        """Raises: InvalidRequest for a path that leads elsewhere, or that some system cannot hold."""
        relative = PurePosixPath(name.replace("\\", "/"))
        too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in relative.parts)
        if not relative.parts or relative.is_absolute() or ".." in relative.parts or _UNSAFE.search(name) or too_long:
            raise InvalidRequest(f"{name[:200]!r} is not a path of a user file. One is workflows/cat.json.")
        return self.root / relative

    def _shown(self, name: str) -> str:
        return self._inside(name).relative_to(self.root).as_posix()


class UserSettings:
    """The frontend's settings, a JSON object in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def all(self) -> dict[str, Any]:
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): ComfyUI's settings are the defaults.", self._path, error)
            return {}
        return values if isinstance(values, dict) else {}

    def update(self, values: dict[str, Any]) -> None:
        """Change some, keep the others. Raises: StorageFull."""
        with self._lock:
            write_durably(self._path, json.dumps({**self.all(), **values}, indent=1).encode())


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
