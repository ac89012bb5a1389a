"""How the CLI talks: people read stderr and stdout, programs read --json on stdout; exit codes say how it ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from atoll.errors import AtollError, InvalidRequest, JobCancelled, NotACheckpoint, NotFound, StorageFull

# docs/cli.md lists these.
EXIT_OK = 0
EXIT_FAILED = 1  # the job failed, or something unforeseen happened
EXIT_BAD_REQUEST = 2  # what was asked for can't be; also a wrong option
EXIT_NOT_FOUND = 3
EXIT_NO_PLACE = 4  # this machine can't now: disk full, database away, port in use, a package missing
EXIT_CANCELLED = 5  # somebody else cancelled the job
EXIT_INTERRUPTED = 130  # Ctrl+C

_PLACE_CODES = {"store_unavailable", "store_too_new", "storage_unwritable", "port_in_use", "missing_dependency"}

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of database, pictures and models.", show_default=False)
]


def exit_code(error: AtollError) -> int:
    if isinstance(error, StorageFull) or error.code in _PLACE_CODES:
        return EXIT_NO_PLACE
    if isinstance(error, NotFound):
        return EXIT_NOT_FOUND
    if isinstance(error, InvalidRequest | NotACheckpoint):
        return EXIT_BAD_REQUEST
    return EXIT_CANCELLED if isinstance(error, JobCancelled) else EXIT_FAILED


@contextmanager
def telling_errors(as_json: bool) -> Iterator[None]:
    """The edge of a command: errors become words and an exit code, never a traceback for what a user can cause."""
    try:
        yield
    except AtollError as error:
        _tell_error(error, as_json)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # `atoll jobs list | head`: whoever read it has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - so that flushing at exit is quiet
        raise typer.Exit(EXIT_OK) from None


def leave(code: int) -> NoReturn:
    """End a command that saw a job through."""
    if code == EXIT_INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the worker's thread may be deep in loading, which an orderly end would wait for
    raise typer.Exit(code)


def _tell_error(error: AtollError, as_json: bool) -> None:
    faults = getattr(error, "faults", ())
    if as_json:
        listed = [fault.as_dict() for fault in faults]
        print_json({"error": {"code": error.code, "message": error.message, "faults": listed}})
        return
    sentences = [fault.as_dict()["message"] for fault in faults] or [error.message]
    for sentence in sentences:
        say(f"atoll: {sentence}")


def say(text: str) -> None:
    """To people, on stderr: results alone go to stdout."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def use_utf8() -> None:
    """A terminal that can't show a character shows a substitute instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
