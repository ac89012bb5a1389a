"""Custom nodes that an admin has pinned, beside Atoll's own.

What is not pinned does not run, and what has changed since then does not either. The worker imports them; the server,
which must stay without torch, reads what they declare, written down once by a process that imports them:
`python -m atoll.nodes.custom HOME NAME FILE`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from atoll.artifacts.files import write_durably
from atoll.errors import AtollError, InvalidRequest
from atoll.graph.node import NodeContext, NodeSpec, Registry
from atoll.graph.object_info import node_info
from atoll.nodes.custom_classes import (
    FILES_OF,
    fingerprint_of_class,
    function_of_class,
    info_of_class,
    spec_from_info,
)
from atoll.nodes.custom_files import CustomNodes, find_custom_nodes, find_one, module_name, run_module
from atoll.nodes.registry import core_registry
from atoll.settings import Settings, load_settings

FORM = 1  # of the declarations that are kept; raise it when their form changes
DECLARE_S = 120  # for a foreign import, torch and all

State = Literal["off", "pinned", "changed", "missing"]
log = logging.getLogger(__name__)


def states(settings: Settings) -> list[tuple[str, State, str]]:
    """(name, state, sha256 now or as pinned) of all that lies there or is pinned."""
    found = {nodes.name: nodes.sha256 for nodes in find_custom_nodes(settings)}
    listed: list[tuple[str, State, str]] = []
    for name in sorted({*found, *settings.custom_nodes}):
        pinned = settings.custom_nodes.get(name)
        if name not in found:
            listed.append((name, "missing", pinned or ""))
        else:
            state: State = "off" if pinned is None else "pinned" if pinned == found[name] else "changed"
            listed.append((name, state, found[name]))
    return listed


def declared_registry(settings: Settings) -> Registry:
    """All nodes that a workflow may have, for judging it; custom ones can't be run from here. Loads nothing foreign."""
    specs = [spec for nodes in _pinned(settings) for spec in _declared_or_none(settings, nodes)]
    return _beside_core(specs)


def running_registry(settings: Settings) -> Registry:
    """All nodes, to run them. Imports what is pinned; what fails is logged, and its nodes say so when they run."""
    specs: list[NodeSpec] = []
    for nodes in _pinned(settings):
        try:
            specs += load(nodes)
        except AtollError as error:
            log.error("%s", error)
            specs += [
                dataclasses.replace(spec, function=_refusing(error)) for spec in _declared_or_none(settings, nodes)
            ]
    return _beside_core(specs)


def load(nodes: CustomNodes) -> list[NodeSpec]:
    """Import them and read what they declare: functions under `@node`, and classes in NODE_CLASS_MAPPINGS.

    Raises: InvalidRequest "custom_nodes_broken".
    """
    made = run_module(nodes)
    version = int(nodes.sha256[:12], 16)
    specs = [
        dataclasses.replace(spec, version=version + spec.version, function=_checking(spec))
        for spec in _functions(made, module_name(nodes))
    ]
    titles = getattr(made, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
    for class_type, cls in dict(getattr(made, "NODE_CLASS_MAPPINGS", None) or {}).items():
        info = info_of_class(str(class_type), cls, str(titles.get(class_type, class_type)))
        spec = spec_from_info(info, function_of_class(str(class_type), cls, info), version)
        specs.append(dataclasses.replace(spec, fingerprint=fingerprint_of_class(cls)))
    if not specs:
        sentence = f"Custom nodes {nodes.name} declare none: no function under @node, and no NODE_CLASS_MAPPINGS."
        raise InvalidRequest(sentence, code="custom_nodes_broken")
    return specs


def declare(settings: Settings, nodes: CustomNodes) -> list[NodeSpec]:
    """What they declare, from what was written down, or else by a process that imports them.

    Raises: InvalidRequest "custom_nodes_broken".
    """
    path = settings.custom_nodes_dir / ".declared" / f"{nodes.sha256}-{FORM}.json"
    if not path.is_file():
        command = [sys.executable, "-m", "atoll.nodes.custom", str(settings.home), nodes.name, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DECLARE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            sentence = f"Custom nodes {nodes.name} could not be loaded within {DECLARE_S} s: {error}."
            raise InvalidRequest(sentence, code="custom_nodes_broken") from error
        if done.returncode or not path.is_file():
            said = done.stderr.strip().splitlines()[-1:] or [f"their process ended with code {done.returncode}"]
            raise InvalidRequest(said[0], code="custom_nodes_broken")
    infos = json.loads(path.read_text(encoding="utf-8"))
    return [spec_from_info(info, _not_here, int(nodes.sha256[:12], 16)) for info in infos]


def write_declarations(settings: Settings, name: str, path: Path) -> None:
    """Import custom nodes and write down what they declare. Raises: as `load`; NotFound."""
    infos = [
        {**node_info(spec, _FileKinds()), "display_name": spec.title, "is_input_list": spec.takes_lists}
        for spec in load(find_one(settings, name))
    ]
    write_durably(path, json.dumps(infos).encode(), replace=True)


class _FileKinds:
    """Choices that say of which kind the files are, since which ones there are changes."""

    def names(self, kind: str) -> Sequence[str]:
        return [FILES_OF + kind]

    def has(self, kind: str, name: str) -> bool:
        return False


def _pinned(settings: Settings) -> Iterator[CustomNodes]:
    if not settings.custom_nodes:
        return
    for nodes in find_custom_nodes(settings):
        pinned = settings.custom_nodes.get(nodes.name)
        if pinned == nodes.sha256:
            yield nodes
        elif pinned is not None:
            log.error(
                "Custom nodes %s have changed since they were pinned and are not used. Look at them, then: "
                "atoll nodes pin %s",
                nodes.name,
                nodes.name,
            )


def _declared_or_none(settings: Settings, nodes: CustomNodes) -> list[NodeSpec]:
    try:
        return declare(settings, nodes)
    except AtollError as error:
        log.error("%s", error)
        return []


def _beside_core(specs: Sequence[NodeSpec]) -> Registry:
    """Atoll's own nodes win: what a workflow means must not change with what is installed beside them."""
    core = core_registry()
    for spec in specs:
        if core.get(spec.class_type) is not None:
            log.warning("Custom node %s is not used: Atoll has a node of that name.", spec.class_type)
    return Registry({**{spec.class_type: spec for spec in specs}, **core.specs}) if specs else core


def _functions(made: Any, module: str) -> Iterator[NodeSpec]:
    """The specs of the module's own functions, or of the one function that an entry point names."""
    candidates = vars(made).values() if isinstance(made, ModuleType) else [made]
    seen = set()
    for one in candidates:
        spec = getattr(one, "__node_spec__", None)
        home = str(getattr(one, "__module__", ""))
        if isinstance(spec, NodeSpec) and spec.class_type not in seen and f"{home}.".startswith(f"{module}."):
            seen.add(spec.class_type)
            yield spec


def _checking(spec: NodeSpec) -> Callable[..., Any]:
    """The function, its fields checked first, since the server does not have the check."""

    def run(**values: Any) -> Any:
        for field, sentence in spec.check(values) if spec.check else ():
            raise InvalidRequest(f'Node "{spec.title}": {field}: {sentence}')
        return spec.function(**values)

    return run


def _refusing(error: AtollError) -> Callable[..., Any]:
    def refuse(context: NodeContext, **values: Mapping[str, Any]) -> None:
        raise error

    return refuse


def _not_here(context: NodeContext, **values: Any) -> None:
    raise InvalidRequest("Custom nodes run in a worker only.", code="custom_nodes_broken")


def main() -> None:
    home, name, path = sys.argv[1:]
    try:
        write_declarations(load_settings(home=home), name, Path(path))
    except AtollError as error:
        sys.exit(" ".join(error.message.split()))


if __name__ == "__main__":
    main()
