"""Pictures that were sent in to start from: kept by the name they came with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from atoll.artifacts.files import ArtifactFiles, write_durably
from atoll.artifacts.pictures import SUFFIXES, load_picture
from atoll.errors import InvalidRequest, NotFound

MAX_UPLOAD_BYTES = 100 * 2**20  # what ComfyUI tells its clients, too
_LONGEST_STEM = 120  # characters; the file system's 255 bytes hold that even where each takes two
_PLACE = re.compile(r"^(?P<name>.*?) ?\[(?P<place>input|output|temp)\]$", re.DOTALL)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]')
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class InputFiles:
    """Uploaded pictures below `root`.

    A name may end in ` [input]`. One that ends in ` [output]` or ` [temp]` means a finished artifact by its sha256:
    `<sha256>.png [output]`.
    """

    def __init__(self, root: Path, artifacts: ArtifactFiles | None = None) -> None:
        self.root = root
        self._artifacts = artifacts
        self._digests: dict[Path, tuple[int, int, str]] = {}  # path -> (mtime_ns, size, sha256)

    def save_upload(self, name: str, content: bytes, *, overwrite: bool = False) -> str:
        """Keep a picture and give the name it is known by from now on.

        Equal content under that name keeps it; other content becomes `name (1).png`, `name (2).png` and so on.

        Args:
            name: as the sender calls it, folders allowed ("masks/cat.png"); what no file system takes is replaced.
        Raises: InvalidRequest for what is no readable picture or too big; StorageFull.
        """
        if len(content) > MAX_UPLOAD_BYTES:
            size_mib = len(content) / 2**20
            raise InvalidRequest(f"{name} has {size_mib:.0f} MiB; at most {MAX_UPLOAD_BYTES / 2**20:.0f} are allowed.")
        image = load_picture(content, name=name or "The picture")
        first = _safe_name(name, f".{(image.format or 'png').lower()}")
        digest = hashlib.sha256(content).hexdigest()
        for number in range(10_000):
            candidate = first.with_name(f"{first.stem} ({number}){first.suffix}") if number else first
            path = self.root / candidate
            try:
                if not path.exists() or overwrite:
                    write_durably(path, content, replace=overwrite)
                    return candidate.as_posix()
            except FileExistsError:
                pass  # somebody else took the name just now
            if path.is_file() and self._digest_of(path) == digest:
                return candidate.as_posix()
        raise InvalidRequest(f"There are 10,000 pictures called {first} already. Choose another name.")

    def path(self, name: str) -> Path:
        """Raises: InvalidRequest for a name that leads elsewhere; NotFound."""
        match = _PLACE.match(name)
        if match and match["place"] != "input":
            if self._artifacts is None:
                raise NotFound(f'"{name}" is no input picture. Upload it first.')
            return self._artifacts.path(PurePosixPath(match["name"]).stem)
        relative = _checked_name(match["name"] if match else name)
        path = self.root / relative
        if not path.is_file():
            raise NotFound(f'There is no input picture "{name}". Upload it first.')
        return path

    def read(self, name: str) -> bytes:
        """Raises: as `path`."""
        return self.path(name).read_bytes()

    def digest(self, name: str) -> str:
        """sha256 of the file's bytes, read again only when its time or size has changed."""
        return self._digest_of(self.path(name))

    def names(self) -> list[str]:
        """What can be chosen, by name: the pictures directly below `root`, as ComfyUI lists them."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.suffix.lower() in SUFFIXES)

    def _digest_of(self, path: Path) -> str:
        status = path.stat()
        known = self._digests.get(path)
        if known is None or known[:2] != (status.st_mtime_ns, status.st_size):
            known = (status.st_mtime_ns, status.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            self._digests[path] = known
        return known[2]


def _safe_name(name: str, default_suffix: str) -> PurePosixPath:
    """A relative path that Linux, macOS and Windows can hold, as near to what was sent as possible."""
    match = _PLACE.match(name)
    parts = []
    for part in (match["name"] if match else name).replace("\\", "/").split("/"):
        part = _UNSAFE.sub("_", part).strip(" .") if part.strip(".") else ""
        if part.split(".")[0].lower() in _WINDOWS_DEVICES:
            part = f"_{part}"
        if part:
            parts.append(part)
    file = PurePosixPath(parts.pop() if parts else "picture")
    suffix = file.suffix.lower() if file.suffix.lower() in SUFFIXES else default_suffix
    stem = file.stem if file.suffix.lower() in SUFFIXES else file.name
    return PurePosixPath(*(part[:_LONGEST_STEM] for part in parts), f"{stem[:_LONGEST_STEM]}{suffix}")


def _checked_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or _UNSAFE.search(name):
        raise InvalidRequest(f"{name!r:.200} is not a name of an input picture. It is a path such as cat.png.")
    return path
