"""Imports point at what is more basic, and the server does without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ATOLL = Path(__file__).parent.parent / "atoll"
BASE = {"errors", "settings"}
MAY_IMPORT = {
    "errors": set(),
    "settings": {"errors"},
    "models": BASE,
    "artifacts": BASE,
    "diffusion": BASE | {"models"},
    "training": BASE | {"models", "artifacts", "diffusion"},
    "graph": {"errors"},
    "nodes": BASE | {"graph", "diffusion", "training", "models", "artifacts"},
    "jobs": BASE | {"graph", "artifacts"},
    "workers": BASE | {"jobs", "nodes", "graph", "diffusion", "training", "models", "artifacts"},
    "api": BASE | {"workers", "jobs", "nodes", "graph", "models", "artifacts"},
    "web": BASE | {"api", "jobs", "graph", "artifacts"},
    "cli": BASE | {"api", "web", "workers", "jobs", "nodes", "graph", "training", "models", "artifacts"},
}
FORBIDDEN = {
    "graph": {"torch", "fastapi", "sqlalchemy", "pathlib"},
    "jobs": {"torch", "fastapi", "nicegui"},
    "diffusion": {"fastapi", "sqlalchemy", "nicegui"},
    "training": {"fastapi", "sqlalchemy", "nicegui"},
    "api": {"torch", "diffusers", "transformers", "nicegui"},
    "web": {"torch", "diffusers", "transformers", "sqlalchemy"},
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module == "atoll":
                yield from (f"atoll.{alias.name}" for alias in node.names)


def rooms():
    return sorted({path.relative_to(ATOLL).parts[0].removesuffix(".py") for path in ATOLL.rglob("*.py")} - {"__init__"})


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_lies_below_it(room):
    files = [ATOLL / f"{room}.py"] if (ATOLL / f"{room}.py").is_file() else sorted((ATOLL / room).rglob("*.py"))
    for path in files:
        for name in imports_of(path):
            first, *rest = name.split(".")
            if first == "atoll" and rest and rest[0] != "__version__":
                assert rest[0] in MAY_IMPORT[room] | {room}, f"{path.relative_to(ATOLL)} imports {name}"
            assert first not in FORBIDDEN.get(room, set()), f"{path.relative_to(ATOLL)} imports {name}"
            assert first not in {"torchvision", "torchaudio"}, f"{path.relative_to(ATOLL)} imports {name}"


@pytest.mark.parametrize("module", ["atoll.api.server", "atoll.cli.main", "atoll.web.mount", "atoll.nodes"])
def test_the_doors_and_the_node_declarations_load_without_torch(module):
    code = (
        f"import {module}, sys; heavy = {{'torch', 'diffusers', 'transformers'}} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
