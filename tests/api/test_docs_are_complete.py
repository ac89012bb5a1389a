"""The manual names every setting, error code, command, option, route and event; the committed schema is current."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import atoll
from atoll.api.errors import STATUS_OF_CODE
from atoll.api.server import openapi_schema
from atoll.cli import terminal
from atoll.cli.main import app
from atoll.errors import AtollError
from atoll.jobs.events import EventKind
from atoll.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE_IN_SOURCE = re.compile(r"""(?:\bcode=|\bcode = |Failure\(|"code": )"([a-z_]+)\"""")


def error_codes() -> set[str]:
    """Every code that a class of errors has, or that is written where one is raised."""
    found = {
        code for path in (ROOT / "atoll").rglob("*.py") for code in CODE_IN_SOURCE.findall(path.read_text("utf-8"))
    }
    for module in pkgutil.walk_packages(atoll.__path__, "atoll."):
        if module.name.startswith(("atoll.api", "atoll.graph", "atoll.jobs.sql_store", "atoll.errors")):
            importlib.import_module(module.name)
    families: list[type[AtollError]] = [AtollError]
    while families:
        family = families.pop()
        found.add(family.code)
        families += family.__subclasses__()
    return found


def commands(group: Any, path: str = "atoll") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_error_code_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE))
    codes = error_codes()
    assert {"invalid_graph", "forbidden_host", "worker_died", "internal"} <= codes  # the search finds what is there
    assert codes - described == set()
    assert set(STATUS_OF_CODE) <= described


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert f"| `{name}` | `ATOLL_{name.upper()}` |" in (DOCS / "settings.md").read_text("utf-8")


def test_every_command_and_option_is_described() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    training = (DOCS / "training.md").read_text("utf-8")
    for path, command in commands(typer.main.get_command(app)):
        room, name = path.split()[1], path.split()[-1]
        page = training + text if room == "train" else text
        assert f"atoll {room}" in page and name in page, path
        for parameter in command.params:
            option = next((option for option in parameter.opts if option.startswith("--")), "--help")
            spelt = {option, option.replace("--", "--no-")}
            assert option == "--help" or any(f"{one}" in page for one in spelt), f"{path} {option}"


def test_every_exit_code_is_described() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    codes = {value for name, value in vars(terminal).items() if name.startswith("EXIT_")}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_every_route_and_event_is_described() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    for path in json.loads(openapi_schema())["paths"]:
        last = [part for part in path.removeprefix("/api/v1/").split("/") if not part.startswith("{")][-1]
        assert last in text, path
    for kind in EventKind:
        assert f"| `{kind}` |" in text


def test_the_committed_schema_is_current() -> None:
    """If not: python -m atoll.api.server > docs/openapi.json"""
    assert (DOCS / "openapi.json").read_text("utf-8") == openapi_schema()
