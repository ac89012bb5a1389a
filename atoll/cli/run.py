"""`atoll run`: a workflow from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.terminal import HomeOption, JsonOption, leave, telling_errors


def run(
    workflow: Annotated[
        Path,
        typer.Argument(
            help="As ComfyUI saves or exports it. Pictures may lie beside it.",
            metavar="WORKFLOW.json",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None, typer.Option(help="File (.png) or folder for the pictures.", show_default="stay in the home")
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", show_default="auto")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or bf16.", show_default="auto")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a workflow and print where its pictures are."""
    with telling_errors(as_json):
        from atoll.api.services import StudioServices
        from atoll.cli.job_watch import see_through, tell_end
        from atoll.cli.pictures import adopt_pictures, deliver, destination, read_workflow
        from atoll.graph.ui_form import is_ui_format
        from atoll.graph.ui_format import api_form
        from atoll.settings import load_settings

        form, to = read_workflow(workflow), destination(out)
        services = StudioServices(load_settings(home=home, device=device, precision=precision))
        graph = adopt_pictures(services, api_form(form, services.registry), workflow.parent)
        extra = {"workflow": form} if is_ui_format(form) else None
        job = services.submit_graph(graph, priority=priority, extra=extra)
        job, code = see_through(services, job, quiet=as_json)
        tell_end(services, job, deliver(services, job, to), as_json=as_json)
        leave(code)
