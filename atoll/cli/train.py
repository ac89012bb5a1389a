"""`atoll train`: the stages of a recipe, one command each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.cli.terminal import HomeOption, JsonOption, print_json, say, telling_errors

if TYPE_CHECKING:
    from atoll.training.loop import Progress
    from atoll.training.recipe import Recipe
    from atoll.training.stages import OnProgress

# Training imports torch, which the rest of the command line must not wait for: so every import of it is in a body.
app = typer.Typer(help="Train a model from a recipe, stage by stage.", no_args_is_help=True)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help='A TOML file, or "lagoon" for the built-in model.', show_default=False)
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where the run lies; a run found there goes on.", show_default="HOME/training/NAME"),
]


@app.command()
def data(
    recipe: RecipeArgument, folder: FolderOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Fetch and draw the training pictures."""
    with _run_of(recipe, folder, home, as_json) as (loaded, recipe_folder, run_folder):
        from atoll.training.stages import run_data_stage

        sprites = run_data_stage(loaded, recipe_folder, run_folder, say=say)
        _report(as_json, folder=str(run_folder / "data"), drawings=len(sprites))


@app.command()
def vae(
    recipe: RecipeArgument, folder: FolderOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Train the autoencoder. Stop and start it as you like: it goes on from its last saved state."""
    with _run_of(recipe, folder, home, as_json) as (loaded, _, run_folder), _progress(as_json) as on_progress:
        from atoll.training.stages import run_vae_stage

        run_vae_stage(loaded, run_folder, on_progress)
        _report(as_json, folder=str(run_folder / "vae"))


@app.command()
def text(
    recipe: RecipeArgument, folder: FolderOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Train the text encoder."""
    with _run_of(recipe, folder, home, as_json) as (loaded, _, run_folder), _progress(as_json) as on_progress:
        from atoll.training.stages import run_text_stage

        run_text_stage(loaded, run_folder, on_progress)
        _report(as_json, folder=str(run_folder / "text"))


@app.command()
def scratch(
    recipe: RecipeArgument, folder: FolderOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Train the U-Net from nothing. Stop and start it as you like."""
    with _run_of(recipe, folder, home, as_json) as (loaded, _, run_folder), _progress(as_json) as on_progress:
        from atoll.training.stages import run_scratch_stage

        run_scratch_stage(loaded, run_folder, on_progress)
        _report(as_json, folder=str(run_folder / "scratch"))


@app.command()
def export(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the model into.", show_default=False)],
    folder: FolderOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the trained model as an fp16 diffusers folder. In HOME/models/checkpoints the studio finds it."""
    with _run_of(recipe, folder, home, as_json) as (loaded, _, run_folder):
        from atoll.training.stages import run_export_stage

        run_export_stage(loaded, run_folder, out)
        _report(as_json, model=str(out))


@app.command()
def measure(
    recipe: RecipeArgument,
    model: Annotated[Path, typer.Option("--model", help="Folder of the exported model.", show_default=False)],
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="How many pictures to draw.")] = 100,
    folder: FolderOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the model learnt, and draw a grid to look at."""
    with _run_of(recipe, folder, home, as_json) as (loaded, _, run_folder):
        from atoll.training.stages import run_measure_stage

        _report(as_json, folder=str(run_folder / "quality"), **run_measure_stage(loaded, run_folder, model, prompts))


@contextmanager
def _run_of(recipe: str, folder: Path | None, home: Path | None, as_json: bool) -> Iterator[tuple[Recipe, Path, Path]]:
    """The recipe, the folder it lies in and the folder of the run, inside the command's edge."""
    with telling_errors(as_json):
        from atoll.settings import load_settings  # brings pydantic, which `atoll --help` need not wait for
        from atoll.training.recipe import load_recipe

        loaded, recipe_folder = load_recipe(recipe)
        yield loaded, recipe_folder, folder or load_settings(home=home).home / "training" / loaded.name


def _report(as_json: bool, **facts: object) -> None:
    if as_json:
        print_json(facts)
        return
    for name, fact in facts.items():
        typer.echo(f"{name.replace('_', ' ')}: {f'{fact:.4g}' if isinstance(fact, float) else fact}")


@contextmanager
def _progress(as_json: bool) -> Iterator[OnProgress]:
    """A bar with loss, speed and time left; with --json a line of JSON per report."""
    if as_json:
        yield lambda progress: print_json(vars(progress))
        return
    from rich import progress as rich_progress

    news = rich_progress.TextColumn("{task.fields[news]}")
    columns = (rich_progress.BarColumn(), rich_progress.MofNCompleteColumn(), rich_progress.TimeRemainingColumn(), news)
    with rich_progress.Progress(*columns) as bar:
        task = bar.add_task("training", total=None, news="")

        def show(progress: Progress) -> None:
            told = f"loss {progress.loss:.4f}, {progress.samples_per_s:.1f} samples/s"
            bar.update(task, completed=progress.step, total=progress.steps, news=told)

        yield show
