"""`atoll train`: the stages of a recipe, one command each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from atoll.settings import load_settings

if TYPE_CHECKING:
    from atoll.training.loop import Progress as TrainingProgress
    from atoll.training.recipe import Recipe
    from atoll.training.stages import OnProgress

train_app = typer.Typer(no_args_is_help=True, help="Train a model from a recipe, stage by stage.")

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help='A TOML file, or "lagoon", the built-in model\'s.')
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where the run lies; a run found there goes on. Default: HOME/training/NAME."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")]


@train_app.command()
def data(recipe: RecipeArgument, folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Fetch and draw the training pictures."""
    # Training imports torch; the rest of the command line must not wait for it. So in every command here.
    from atoll.training.stages import run_data_stage

    loaded, recipe_folder, run_folder = _load(recipe, folder)
    sprites = run_data_stage(loaded, recipe_folder, run_folder, say=lambda line: typer.echo(line, err=True))
    _report(as_json, folder=str(run_folder / "data"), drawings=len(sprites))


@train_app.command()
def vae(recipe: RecipeArgument, folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Train the autoencoder. Stop and start it as you like: it goes on from its last saved state."""
    from atoll.training.stages import run_vae_stage

    loaded, _, run_folder = _load(recipe, folder)
    with _progress(as_json) as on_progress:
        run_vae_stage(loaded, run_folder, on_progress)
    _report(as_json, folder=str(run_folder / "vae"))


@train_app.command()
def scratch(recipe: RecipeArgument, folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Train text encoder and U-Net from nothing. Stop and start it as you like."""
    from atoll.training.stages import run_scratch_stage

    loaded, _, run_folder = _load(recipe, folder)
    with _progress(as_json) as on_progress:
        run_scratch_stage(loaded, run_folder, on_progress)
    _report(as_json, folder=str(run_folder / "scratch"))


@train_app.command()
def export(
    recipe: RecipeArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the model; load it by that name from HOME/models/checkpoints.")
    ],
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the trained model as an fp16 diffusers folder."""
    from atoll.training.stages import run_export_stage

    loaded, _, run_folder = _load(recipe, folder)
    run_export_stage(loaded, run_folder, out)
    _report(as_json, model=str(out))


@train_app.command()
def measure(
    recipe: RecipeArgument,
    model: Annotated[Path, typer.Option("--model", help="Folder of the exported model.")],
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="How many pictures to draw.")] = 100,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the model learnt, and draw a grid to look at."""
    from atoll.training.stages import run_measure_stage

    loaded, _, run_folder = _load(recipe, folder)
    _report(as_json, folder=str(run_folder / "quality"), **run_measure_stage(loaded, run_folder, model, prompts))


def _load(recipe: str, folder: Path | None) -> tuple[Recipe, Path, Path]:
    """The recipe, the folder it lies in and the folder of the run."""
    from atoll.training.recipe import load_recipe

    loaded, recipe_folder = load_recipe(recipe)
    return loaded, recipe_folder, folder or load_settings().home / "training" / loaded.name


def _report(as_json: bool, **facts: object) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        for name, fact in facts.items():
            typer.echo(f"{name.replace('_', ' ')}: {fact:.4g}" if isinstance(fact, float) else f"{name}: {fact}")


@contextmanager
def _progress(as_json: bool) -> Iterator[OnProgress]:
    """A bar with loss, speed and time left; with --json a line of JSON per report."""
    if as_json:
        yield lambda progress: typer.echo(json.dumps(vars(progress)))
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=None, news="")

        def show(progress: TrainingProgress) -> None:
            news = f"loss {progress.loss:.4f}, {progress.samples_per_s:.1f} samples/s"
            bar.update(task, completed=progress.step, total=progress.steps, news=news)

        yield show
