"""`atoll`: the assembly of its commands. Each imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll import __version__
from atoll.cli import image, jobs, models, nodes, run, studio, train
from atoll.cli.terminal import use_utf8

app = typer.Typer(
    name="atoll",
    help='Make pictures with Stable Diffusion. `atoll image "a red apple"` makes one; `atoll studio` opens the studio.',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("image")(image.image)
app.command("run")(run.run)
app.command("studio")(studio.studio)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.add_typer(nodes.app, name="nodes")
app.add_typer(train.app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def atoll(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    use_utf8()
    app()
