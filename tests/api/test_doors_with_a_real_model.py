"""The A1111 and OpenAI doors all the way down: the tiny model, the real nodes, the real worker process."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from studio_server import StudioServer

PATIENCE_S = 900.0
TINY: dict[str, Any] = {
    "prompt": "a red apple", "steps": 4, "width": 64, "height": 64, "seed": 7, "sampler_name": "Euler a",
    "override_settings": {"sd_model_checkpoint": "tiny"},
}  # fmt: skip


def coded(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def drawn(server: StudioServer, route: str = "txt2img", **fields: Any) -> list[NDArray[np.uint8]]:
    reply = server.client.post(f"/sdapi/v1/{route}", json={**TINY, **fields}, timeout=PATIENCE_S)
    assert reply.status_code == 200, reply.text
    assert json.loads(reply.json()["info"])["sd_model_name"] == "tiny"
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))) for image in reply.json()["images"]]


def test_the_second_of_a_batch_is_the_first_of_the_next_seed(studio_server: StudioServer) -> None:
    both = drawn(studio_server, batch_size=2)
    np.testing.assert_allclose(both[1].astype(int), drawn(studio_server, seed=8)[0], atol=2)
    varied = drawn(studio_server, subseed=9, subseed_strength=0.5)
    assert (varied[0] != both[0]).any()


def test_a_prompt_that_changes_on_the_way_is_neither_of_the_two(studio_server: StudioServer) -> None:
    cat, dog, both = (drawn(studio_server, prompt=prompt)[0] for prompt in ("cat", "dog", "[cat:dog:2]"))
    assert (both != cat).any() and (both != dog).any()
    np.testing.assert_array_equal(drawn(studio_server, prompt="[cat:dog:9]")[0], cat)


def test_a_hires_fix_gives_a_bigger_picture_by_latents_and_by_pixels(studio_server: StudioServer) -> None:
    fields = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5}
    latent, lanczos = (drawn(studio_server, hr_upscaler=name, **fields)[0] for name in ("Latent (bicubic)", "Lanczos"))
    assert latent.shape == lanczos.shape == (96, 96, 3) and (latent != lanczos).any()


def test_outside_the_mask_no_pixel_changes_however_it_is_filled(studio_server: StudioServer) -> None:
    start = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    fields = {"init_images": [coded(start)], "mask": coded(mask), "mask_blur": 0, "inpaint_full_res": False}
    results = [drawn(studio_server, "img2img", inpainting_fill=fill, **fields)[0] for fill in range(4)]
    for result in results:
        np.testing.assert_array_equal(result[mask == 0], start[mask == 0])
        assert (result[mask > 0] != start[mask > 0]).any()
    assert len({result.tobytes() for result in results}) == 4


def test_the_openai_sdk_draws_with_the_real_model(studio_server: StudioServer) -> None:
    sdk = openai.OpenAI(base_url=f"{studio_server.url}v1", api_key="any", timeout=PATIENCE_S, max_retries=0)
    answer = sdk.images.generate(prompt="a red apple", model="tiny", size="64x64", extra_body={"steps": 2, "seed": 3})
    assert answer.data is not None and answer.data[0].b64_json is not None
    content = base64.b64decode(answer.data[0].b64_json)
    assert Image.open(io.BytesIO(content)).size == (64, 64)
    job = studio_server.make(prompt="a red apple", seed=3)
    file = studio_server.client.get(f"/api/v1/artifacts/{job['artifacts'][0]['sha256']}/file", timeout=PATIENCE_S)
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(one))) for one in (content, file.content)))
