#!/usr/bin/env python3
"""Set up Atoll and open the studio. Needs nothing but Python 3.11 or newer.

    python3 start.py            set up what is missing, then open the studio in the browser
    python3 start.py test       run every check and every test
    python3 start.py setup      only set up; afterwards .venv/bin/atoll is the command line
    python3 start.py OPTIONS    options are handed to `atoll studio`, e.g. --port 8000 --no-browser

Environment:
    ATOLL_TORCH_INDEX           a pip index to take PyTorch from, e.g. the one for your CUDA version
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "atoll-setup"
OLDEST, NEWEST = (3, 11), (3, 14)


def main(arguments: list[str]) -> int:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = platform.python_version()
        return fail(f"Atoll needs Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}; this is {found}.")
    command = arguments[0] if arguments else "studio"
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command == "test":
        return set_up(for_tests=True) or run_tests(arguments[1:])
    if command == "setup":
        return set_up(for_tests="--dev" in arguments) or done()
    if command == "studio":
        arguments = arguments[1:]
    elif not command.startswith("-"):
        return fail(f"start.py knows no {command!r}. Try: python3 start.py --help")
    return set_up(for_tests=False) or run(python(), "-m", "atoll.cli.main", "studio", *arguments)


def set_up(*, for_tests: bool) -> int:
    """Make the virtual environment and install what is pinned, unless that was done already. 0 when all is well."""
    wanted = [describe_setup()] + (["dev"] if for_tests else [])
    have = STAMP.read_text(encoding="utf-8").splitlines() if STAMP.is_file() else []
    if set(wanted) <= set(have):
        return 0
    if not python().is_file():
        print(f"Making a virtual environment in {VENV}", flush=True)
        if VENV.exists():
            shutil.rmtree(VENV)
        try:
            venv.create(VENV, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return fail(f"The virtual environment could not be made: {error}. On Debian: apt install python3-venv")
    STAMP.unlink(missing_ok=True)
    print("Installing what Atoll needs. The first time takes some minutes.", flush=True)
    pip = [python(), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    constraints = ["--constraint", ROOT / "constraints.txt"]
    # PyTorch first and alone: only it may come from another index.
    index = os.environ.get("ATOLL_TORCH_INDEX")
    torch = [*pip, *constraints, "torch", *(["--index-url", index] if index else [])]
    extras = "[dev,training-data]" if for_tests or "dev" in have else ""
    for step in (torch, [*pip, *constraints, "--editable", f"{ROOT}{extras}"]):
        if run(*step):
            return fail("The installation failed; what pip said stands above. Start again when that is mended.")
    STAMP.write_text("\n".join({*wanted, *(line for line in have if line == "dev")}) + "\n", encoding="utf-8")
    return 0


def describe_setup() -> str:
    """What the installed packages depend on, in one line."""
    parts = [platform.python_version(), os.environ.get("ATOLL_TORCH_INDEX", "")]
    parts += [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "pyproject.toml")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run_tests(arguments: list[str]) -> int:
    """The linter, the type checker and the tests; what remains of a failed one does not hide the others."""
    failed = [
        name
        for name, command in {
            "ruff check": ("-m", "ruff", "check", "."),
            "ruff format": ("-m", "ruff", "format", "--check", "."),
            "mypy": ("-m", "mypy"),
            "pytest": ("-m", "pytest", *arguments),
        }.items()
        if run(python(), *command)
    ]
    return fail(f"Failed: {', '.join(failed)}") if failed else 0


def done() -> int:
    print(f"Atoll is set up. Its command line is {python().with_name('atoll')}")
    return 0


def python() -> Path:
    """The interpreter of the virtual environment."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*command: object) -> int:
    """Run a command in the repository; its exit code. Ctrl+C is the command's to handle."""
    with subprocess.Popen([str(part) for part in command], cwd=ROOT) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
