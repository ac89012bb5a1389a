"""`atoll nodes`: custom nodes, which run only when they are pinned."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli.terminal import HomeOption, JsonOption, print_json, say, telling_errors

app = typer.Typer(help="Custom nodes: what lies there, and which of it may run.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As `atoll nodes list` prints it.", show_default=False)]


@app.command("list")
def list_nodes(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List custom nodes: off, pinned, changed since they were pinned, or missing."""
    with telling_errors(as_json):
        from atoll.nodes.custom import states
        from atoll.settings import load_settings

        settings = load_settings(home=home)
        listed = states(settings)
        if as_json:
            names = ("name", "state", "sha256")
            print_json({"custom_nodes": [dict(zip(names, one, strict=True)) for one in listed]})
            return
        for name, state, sha256 in listed:
            typer.echo(f"{state:10}{sha256}  {name}")
        if not listed:
            say(f"There are none. They would lie in {settings.custom_nodes_dir}.")


@app.command("pin")
def pin_nodes(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let custom nodes run, as they are now. They are code that can do anything: look at them first."""
    with telling_errors(as_json):
        from atoll.nodes.custom import declare
        from atoll.nodes.custom_files import find_one
        from atoll.settings import load_settings, save_custom_nodes

        settings = load_settings(home=home)
        nodes = find_one(settings, name)
        classes = [spec.class_type for spec in declare(settings, nodes)]
        save_custom_nodes(settings.home, {**settings.custom_nodes, name: nodes.sha256})
        if as_json:
            print_json({"name": name, "sha256": nodes.sha256, "nodes": classes})
            return
        typer.echo(f"{name} is pinned as {nodes.sha256}. Nodes: {', '.join(classes)}.")
        say("A studio that is running takes them up when it is started again.")


@app.command("unpin")
def unpin_nodes(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let custom nodes run no more."""
    with telling_errors(as_json):
        from atoll.errors import NotFound
        from atoll.settings import load_settings, save_custom_nodes

        settings = load_settings(home=home)
        if name not in settings.custom_nodes:
            pinned = ", ".join(settings.custom_nodes) or "none"
            raise NotFound(f'No custom nodes "{name}" are pinned. There are: {pinned}.')
        left = {other: sha256 for other, sha256 in settings.custom_nodes.items() if other != name}
        save_custom_nodes(settings.home, left)
        if as_json:
            print_json({"name": name})
        else:
            typer.echo(f"{name} is not pinned any more.")
