"""`atoll studio`: the server with its pages and its worker."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli.terminal import HomeOption, JsonOption, print_json, say, telling_errors


def studio(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; only loopback.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0: the system chooses.", show_default="7860")] = None,
    browser: Annotated[bool, typer.Option(help="Open the studio in a browser.")] = True,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", show_default="auto")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or bf16.", show_default="auto")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open the studio and serve it until Ctrl+C."""
    with telling_errors(as_json):
        from atoll.api.server import serve
        from atoll.settings import load_settings
        from atoll.web.mount import mount_studio

        settings = load_settings(home=home, host=host, port=port, device=device, precision=precision)

        def tell(url: str) -> None:
            if as_json:
                print_json({"url": url, "home": str(settings.home)})
            else:
                say(f"The studio is at {url} (Ctrl+C stops it)")
            if browser:
                typer.launch(url)

        try:
            serve(settings, on_ready=tell, add_pages=mount_studio)
        except KeyboardInterrupt:  # the usual way to stop it
            say("The studio has stopped. Jobs that were not finished go on when it is started again.")
