"""`atoll models`: which models there are, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli.terminal import HomeOption, JsonOption, print_json, telling_errors

app = typer.Typer(help="Which models there are, and where.", no_args_is_help=True)


@app.command("list")
def list_models(
    kind: Annotated[
        str | None, typer.Option(help="checkpoints, vae, text_encoders or diffusion_models.", show_default="all")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that can be named."""
    with telling_errors(as_json):
        from atoll.api.model_info import MODEL_KINDS, list_model_infos
        from atoll.models.catalogue import ModelCatalogue
        from atoll.settings import load_settings

        infos = list_model_infos(ModelCatalogue.from_settings(load_settings(home=home)), kind)
        if as_json:
            print_json({"models": [info.model_dump(mode="json") for info in infos]})
            return
        for one in MODEL_KINDS:
            for info in (info for info in infos if info.kind == one):
                size = f"{info.defaults.width}x{info.defaults.height}"
                told = info.fault or (f"{info.description}, {size}" if one == "checkpoints" else info.description)
                typer.echo(f"{one:18}{info.name:32}{told}")


@app.command("path")
def model_path(
    name: Annotated[str, typer.Argument(help="A name that `atoll models list` prints.", show_default=False)],
    kind: Annotated[str | None, typer.Option(help="Look only among these.", show_default="all")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print where a model's file or folder lies."""
    with telling_errors(as_json):
        from atoll.api.model_info import MODEL_KINDS
        from atoll.errors import NotFound
        from atoll.models.catalogue import ModelCatalogue
        from atoll.settings import load_settings

        catalogue = ModelCatalogue.from_settings(load_settings(home=home))
        first: NotFound | None = None
        for one in MODEL_KINDS if kind is None else (kind,):
            try:
                path = catalogue.resolve(one, name)
            except NotFound as error:
                first = first or error
                continue
            if as_json:
                print_json({"name": name, "kind": one, "path": str(path)})
            else:
                typer.echo(str(path))
            return
        assert first is not None
        raise first
