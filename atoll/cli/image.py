"""`atoll image`: a prompt becomes a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.terminal import HomeOption, JsonOption, leave, telling_errors

if TYPE_CHECKING:
    from atoll.api.image_request import ImageRequest
    from atoll.api.services import StudioServices
    from atoll.jobs.job import Job

FROM_MODEL = "the model's"


def image(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)] = "",
    negative: Annotated[str, typer.Option(help="What to keep out of the picture.")] = "",
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default=FROM_MODEL)] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Guidance scale: how strongly the prompt pulls.", show_default=FROM_MODEL)
    ] = None,
    seed: Annotated[int, typer.Option(help="-1 draws one, which is printed.")] = -1,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels, such as 512x768.", show_default=FROM_MODEL)
    ] = None,
    batch: Annotated[int, typer.Option(help="How many pictures.")] = 1,
    sampler: Annotated[
        str | None, typer.Option(help='Such as euler or "DPM++ 2M Karras".', show_default=FROM_MODEL)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Noise schedule, such as karras.", show_default=FROM_MODEL)
    ] = None,
    model: Annotated[str | None, typer.Option(help="As `atoll models list` names it.", show_default="built in")] = None,
    vae: Annotated[str | None, typer.Option(help="Another VAE.", show_default=FROM_MODEL)] = None,
    clip_skip: Annotated[int, typer.Option(help="2: the text encoder's last but one layer.")] = 1,
    init: Annotated[Path | None, typer.Option(help="Picture to start from.", show_default=False)] = None,
    strength: Annotated[float, typer.Option(help="With --init: 0 gives it back, 1 keeps next to nothing.")] = 0.75,
    mask: Annotated[
        Path | None,
        typer.Option(help="With --init: what is white is painted anew.", show_default=False),
    ] = None,
    mask_blur: Annotated[int, typer.Option(help="Pixels by which the mask's border is softened.")] = 4,
    only_masked: Annotated[bool, typer.Option(help="Work on the masked part alone, at full size.")] = False,
    padding: Annotated[int, typer.Option(help="With --only-masked: pixels of surroundings.")] = 32,
    source: Annotated[
        Path | None, typer.Option("--from", help="Repeat this picture exactly as it was made.", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="File (.png) or folder for the pictures.", show_default="stay in the home")
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", show_default="auto")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or bf16.", show_default="auto")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pictures and print where they are."""
    with telling_errors(as_json):
        from atoll.api.services import StudioServices
        from atoll.cli.job_watch import see_through, tell_end
        from atoll.cli.pictures import deliver, destination
        from atoll.settings import load_settings

        to = destination(out)
        if source is not None:
            _refuse_changes(context)
        width, height = (None, None) if size is None else _parse_size(size)
        values: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative,
            "num_inference_steps": steps,
            "guidance_scale": cfg,
            "seed": seed,
            "width": width,
            "height": height,
            "batch_size": batch,
            "sampler": sampler,
            "scheduler": scheduler,
            "model": model,
            "vae": vae,
            "clip_skip": clip_skip,
            "denoising_strength": strength,
            "mask_blur": mask_blur,
            "only_masked": only_masked,
            "only_masked_padding": padding,
        }
        services = StudioServices(load_settings(home=home, device=device, precision=precision))
        if source is not None:
            job = _submit_again(services, source, priority)
        else:
            job = services.submit_image(_request(services, values, init, mask), priority=priority)
        job, code = see_through(services, job, quiet=as_json)
        tell_end(services, job, deliver(services, job, to), as_json=as_json)
        leave(code)


def _request(services: StudioServices, values: dict[str, Any], init: Path | None, mask: Path | None) -> ImageRequest:
    """The request, its pictures handed in. Faults in the words of the options are told before any file is read."""
    from atoll.api.image_request import parse_image_request
    from atoll.cli.pictures import take_input

    named = {"init_image": str(init) if init else None, "mask_image": str(mask) if mask else None}
    parse_image_request({**values, **named})
    if init is not None:
        named["init_image"] = take_input(services, init, "--init")
    if mask is not None:
        named["mask_image"] = take_input(services, mask, "--mask")
    return parse_image_request({**values, **named})


def _submit_again(services: StudioServices, source: Path, priority: int) -> Job:
    from atoll.cli.pictures import how_it_was_made

    made = how_it_was_made(source)
    if isinstance(made, tuple):
        graph, extra = made
        return services.submit_graph(graph, priority=priority, extra=extra)
    return services.submit_image(made, priority=priority)


def _parse_size(size: str) -> tuple[int, int]:
    """Raises: InvalidRequest."""
    from atoll.errors import InvalidRequest

    width, _, height = size.lower().partition("x")
    if not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise InvalidRequest(f"--size {size} is not two numbers of pixels; write for instance 512x768.")
    return int(width), int(height)


def _refuse_changes(context: typer.Context) -> None:
    """Raises: InvalidRequest if anything is given beside --from that would change the picture."""
    from atoll.errors import InvalidRequest

    allowed = {"source", "out", "priority", "device", "precision", "home", "as_json"}
    changed = [
        "the prompt" if name == "prompt" else f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in allowed and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if changed:
        raise InvalidRequest(
            f"--from repeats a picture exactly as it was made, so {', '.join(changed)} can't be given with it. "
            "Leave that out, or leave --from out and give all options yourself."
        )
