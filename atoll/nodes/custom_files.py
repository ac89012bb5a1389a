"""Nodes that others wrote: where they lie, what they are by content, and running exactly what was looked at.

They lie in HOME/custom_nodes, each a file `ink.py` or a folder `ComfyUI-Ink` with an `__init__.py`, or in installed
packages that have an entry point in the group `atoll.nodes`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from atoll.errors import InvalidRequest, NotFound
from atoll.settings import Settings

ENTRY_POINTS = "atoll.nodes"
NOT_LOOKED_AT = {"__pycache__", ".git"}  # Python's own copies, which are never run here, and history


@dataclass(frozen=True)
class CustomNodes:
    """One file, folder or package.

    name: how it is pinned: "ink.py", "ComfyUI-Ink", or "package:entry point".
    sha256: of a file, its content's; of a folder, that of all paths and contents in it.
    sources: Python files by path; what was hashed is what runs, whatever is written there in between.
    entry_point: of an installed package, which Python itself loads.
    """

    name: str
    root: Path
    sha256: str
    sources: Mapping[str, bytes]
    entry_point: importlib.metadata.EntryPoint | None = None


def find_custom_nodes(settings: Settings) -> list[CustomNodes]:
    """All that could be pinned, by name. Nothing of it is run."""
    found = []
    folder = settings.custom_nodes_dir
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith((".", "_")):
            if path.is_file() and path.suffix == ".py":
                content = path.read_bytes()
                sha256 = hashlib.sha256(content).hexdigest()
                found.append(CustomNodes(path.name, path, sha256, {"__init__.py": content}))
            elif (path / "__init__.py").is_file():
                found.append(CustomNodes(path.name, path, *_read_folder(path)))
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        root = _package_root(entry)
        if root is not None:
            package = entry.dist.name if entry.dist else entry.module.split(".")[0]
            found.append(CustomNodes(f"{package}:{entry.name}", root, _read_folder(root)[0], {}, entry))
    return found


def find_one(settings: Settings, name: str) -> CustomNodes:
    """Raises: NotFound, with what there is."""
    found = find_custom_nodes(settings)
    for nodes in found:
        if nodes.name == name:
            return nodes
    there = ", ".join(nodes.name for nodes in found) or "none"
    raise NotFound(f'There are no custom nodes "{name}" in {settings.custom_nodes_dir}. There are: {there}.')


def run_module(nodes: CustomNodes) -> Any:
    """What its import gives: the module, or what an entry point names. Runs foreign code.

    Raises: InvalidRequest in words, whatever it raised.
    """
    try:
        if nodes.entry_point is not None:
            return nodes.entry_point.load()
        name = module_name(nodes)
        finder = _Finder(name, nodes)
        sys.meta_path[:] = [one for one in sys.meta_path if getattr(one, "name", None) != name]
        sys.meta_path.insert(0, finder)
        for loaded in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
            del sys.modules[loaded]
        return importlib.import_module(name)
    except Exception as error:  # foreign code may raise anything
        missing = f" They need {error.name}, which is not installed." if isinstance(error, ImportError) else ""
        raise InvalidRequest(
            f"Custom nodes {nodes.name} could not be loaded: {type(error).__name__}: {error}.{missing}",
            code="custom_nodes_broken",
        ) from error


def module_name(nodes: CustomNodes) -> str:
    """Under which its functions are known; of a package its own."""
    if nodes.entry_point is not None:
        return nodes.entry_point.module.split(".")[0]
    return "atoll_custom_nodes_" + re.sub(r"\W", "_", nodes.name.removesuffix(".py"))


class _Finder(MetaPathFinder, Loader):
    """Loads modules from the sources that were hashed, and never from Python's cached copies."""

    def __init__(self, name: str, nodes: CustomNodes) -> None:
        self.name = name
        self._nodes = nodes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name and not fullname.startswith(f"{self.name}."):
            return None
        inside = fullname.removeprefix(self.name).replace(".", "/").removeprefix("/")
        for file in (f"{inside}/__init__.py".removeprefix("/"), f"{inside}.py"):
            if file in self._nodes.sources:
                is_folder = self._nodes.root.is_dir()
                origin = self._nodes.root / file if is_folder else self._nodes.root
                is_package = is_folder and file.endswith("__init__.py")
                # A package with an empty path: Python's own finders must not add files that were not looked at.
                spec = ModuleSpec(fullname, self, origin=str(origin), loader_state=file, is_package=is_package)
                spec.has_location = True
                return spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        exec(compile(self._nodes.sources[spec.loader_state], spec.origin, "exec"), module.__dict__)


def _read_folder(root: Path) -> tuple[str, dict[str, bytes]]:
    """(sha256 of every path and content, the Python sources)."""
    digest, sources = hashlib.sha256(), {}
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    for path in files:
        relative = path.relative_to(root) if path != root else Path(path.name)
        if NOT_LOOKED_AT.isdisjoint(relative.parts):
            content = path.read_bytes()
            name = relative.as_posix()
            digest.update(f"{len(name.encode())} {name} {hashlib.sha256(content).hexdigest()}\n".encode())
            if path.suffix == ".py":
                sources[name] = content
    return digest.hexdigest(), sources


def _package_root(entry: importlib.metadata.EntryPoint) -> Path | None:
    """The folder or file of its top package, found without running it; None where that can't be told."""
    try:
        spec = importlib.util.find_spec(entry.module.split(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin
