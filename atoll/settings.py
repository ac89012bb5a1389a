"""What this installation is told from outside: one typed object, read at the edge and handed down."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from atoll.errors import InvalidRequest

ENVIRONMENT_PREFIX = "ATOLL_"
# Read by the test-suite, not by Atoll.
_TEST_VARIABLES = {"ATOLL_KSAMPLER_REFERENCE", "ATOLL_GOLDEN_DIR", "ATOLL_GOLDEN_OFFSET"}


def default_home() -> Path:
    return Path(platformdirs.user_data_dir("atoll", appauthor=False))


class Settings(BaseModel):
    """Settings of one installation: defaults, then `HOME/atoll.toml`, then `ATOLL_*` variables, then options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(default_factory=default_home, description="Folder of database, artifacts, inputs and models.")
    database_url: SecretStr | None = Field(None, description="SQLAlchemy URL; default is SQLite in HOME/atoll.db.")
    host: str = Field("127.0.0.1", description="Address the studio listens on. Only loopback is allowed.")
    port: int = Field(7860, ge=0, le=65535, description="Port of the studio; 0 lets the system choose.")
    device: str = Field("auto", description='"auto", "cpu", "cuda", "cuda:1" or "mps".')
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field("auto", description="Number format of the networks.")
    model_dirs: tuple[Path, ...] = Field((), description="More folders laid out like HOME/models.")
    default_model: str = Field("lagoon", description="Checkpoint of whoever names none; the studio offers it first.")
    model_cache_mib: int | None = Field(None, ge=0, description="Memory for warm models; default: half of it.")
    a1111_auth: SecretStr | None = Field(None, description='"name:password,..." that the A1111 API asks for.')
    custom_nodes: dict[str, str] = Field(default_factory=dict, description="Custom nodes that may run: name, sha256.")
    lease_s: float = Field(30.0, gt=0, description="A worker that is silent for so long loses its task.")

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def artifacts_dir(self) -> Path:
        return self.home / "artifacts"

    @property
    def inputs_dir(self) -> Path:
        return self.home / "inputs"

    @property
    def custom_nodes_dir(self) -> Path:
        return self.home / "custom_nodes"

    @property
    def store_url(self) -> str:
        """The database to open, as an SQLAlchemy URL."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'atoll.db').as_posix()}"


def load_settings(**options: Any) -> Settings:
    """Settings from the file, the environment and `options` (those that are not None).

    Raises: InvalidRequest naming every unknown or ill-typed setting and where it came from.
    """
    environment = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _TEST_VARIABLES
    }
    if "model_dirs" in environment:
        environment["model_dirs"] = environment["model_dirs"].split(os.pathsep)  # type: ignore[assignment]
    if "custom_nodes" in environment:  # ink.py=<sha256>,other=<sha256>
        pairs = [pair.partition("=") for pair in environment["custom_nodes"].split(",") if pair.strip()]
        environment["custom_nodes"] = {  # type: ignore[assignment]
            name.strip(): sha256.strip() for name, _, sha256 in pairs
        }
    given = {name: value for name, value in options.items() if value is not None}
    home = Path(given.get("home") or environment.get("home") or default_home())
    values = {**_read_file(home / "atoll.toml"), **environment, **given}
    values["home"] = home.expanduser().absolute()
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequest(f"Settings are not valid: {faults}. Known: {', '.join(Settings.model_fields)}.") from error


def save_custom_nodes(home: Path, pins: Mapping[str, str]) -> None:
    """Write which custom nodes may run into `HOME/atoll.toml`; the rest of the file stays as it is.

    Raises: InvalidRequest if the file has them in a form that this can't change, or can't be written.
    """
    path = home / "atoll.toml"
    before = _read_file(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    start = next((number for number, line in enumerate(lines) if _TABLE.fullmatch(line.strip())), None)
    if start is not None:
        end = next((n for n in range(start + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
        del lines[start:end]
    while lines and not lines[-1].strip():
        lines.pop()
    if pins:
        lines += [""] if lines else []
        lines += ["[custom_nodes]", *(f"{json.dumps(name)} = {json.dumps(pins[name])}" for name in sorted(pins))]
    text = "".join(f"{line}\n" for line in lines)
    try:
        wanted = (
            {**before, "custom_nodes": dict(pins)} if pins else {k: v for k, v in before.items() if k != "custom_nodes"}
        )
        if tomllib.loads(text) != wanted:
            raise ValueError("its custom_nodes are no table of their own")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(".atoll.toml.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except (ValueError, OSError) as error:
        raise InvalidRequest(
            f"{path} can't be changed: {error}. Write a table [custom_nodes] with name = sha256 into it yourself."
        ) from error


_TABLE = re.compile(r"\[\s*custom_nodes\s*\]\s*(#.*)?")


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not a TOML file: {error}. Correct it or remove it.") from error
