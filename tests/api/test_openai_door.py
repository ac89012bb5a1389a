"""The OpenAI images API on a real server, spoken to by the official SDK and by plain HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from door_server import OTHER_MODEL, DoorServer, running_doors
from PIL import Image

PATIENCE_S = 900.0


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorServer]:
    with running_doors(tmp_path_factory.mktemp("openai") / "home") as server:
        yield server


@pytest.fixture
def sdk(doors: DoorServer, monkeypatch: pytest.MonkeyPatch) -> openai.OpenAI:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return openai.OpenAI(base_url=f"{doors.url}/v1", api_key="any", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture
def client(doors: DoorServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{doors.url}/v1", timeout=PATIENCE_S, trust_env=False) as client:
        yield client


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def nodes(doors: DoorServer, class_type: str) -> list[dict[str, Any]]:
    graph = doors.services.jobs(limit=1)[0].graph
    return [node["inputs"] for node in graph.values() if node["class_type"] == class_type]


def test_the_sdk_draws_and_gets_base64(sdk: openai.OpenAI, doors: DoorServer) -> None:
    answer = sdk.images.generate(
        prompt="a red apple", model="gpt-image-1", n=2, size="64x72", extra_body={"steps": 3, "seed": 5, "cfg_scale": 4}
    )
    assert answer.data is not None
    assert [opened(image.b64_json).size for image in answer.data] == [(64, 72)] * 2
    assert answer.size == "64x72" and answer.output_format == "png"
    sampler = nodes(doors, "KSampler")[0]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (5, 3, 4.0)
    assert nodes(doors, "CheckpointLoaderSimple")[0]["ckpt_name"] == "lagoon"


def test_a_dall_e_client_gets_an_address_that_leads_to_the_picture(sdk: openai.OpenAI, doors: DoorServer) -> None:
    answer = sdk.images.generate(prompt="a red apple", model="dall-e-3", size="64x64", quality="hd", style="vivid")
    assert answer.data is not None and answer.data[0].url is not None and answer.data[0].b64_json is None
    reply = httpx.get(answer.data[0].url, timeout=PATIENCE_S, trust_env=False)
    assert reply.headers["content-type"] == "image/png" and Image.open(io.BytesIO(reply.content)).size == (64, 64)
    assert nodes(doors, "KSampler")[0]["steps"] == 30  # half as many again as the model's 20
    jpeg = sdk.images.generate(
        prompt="a red apple", model=OTHER_MODEL, size="64x64", response_format="url", output_format="jpeg",
        output_compression=70,
    )  # fmt: skip
    assert jpeg.data is not None and jpeg.data[0].url is not None
    assert (
        Image.open(io.BytesIO(httpx.get(jpeg.data[0].url, timeout=PATIENCE_S, trust_env=False).content)).format
        == "JPEG"
    )


def test_without_a_size_the_model_decides(sdk: openai.OpenAI, doors: DoorServer) -> None:
    native = next(info for info in doors.services.models("checkpoints") if info.name == OTHER_MODEL).defaults
    answer = sdk.images.generate(prompt="a red apple", model=OTHER_MODEL, size="auto", output_format="webp")
    assert answer.data is not None
    image = opened(answer.data[0].b64_json)
    assert image.size == (native.width, native.height) and image.format == "WEBP"


def test_previews_come_on_the_way_and_the_picture_last(sdk: openai.OpenAI) -> None:
    events = list(
        sdk.images.generate(
            prompt="a red apple",
            model="gpt-image-1",
            size="64x64",
            n=2,
            stream=True,
            partial_images=1,
            extra_body={"seed": 9},
        )
    )
    completed = [event for event in events if event.type == "image_generation.completed"]
    assert [event.size for event in completed] == ["64x64", "64x64"] and events[-1].type.endswith("completed")
    assert completed[0].b64_json != completed[1].b64_json and completed[0].usage.total_tokens == 0
    for event in events:
        assert opened(event.b64_json).format == "PNG" and event.output_format == "png"
        if event.type == "image_generation.partial_image":
            assert event.partial_image_index == 0


def test_what_is_transparent_in_the_mask_is_painted_anew(sdk: openai.OpenAI, doors: DoorServer) -> None:
    image = Image.new("RGB", (64, 48), "teal")
    mask = Image.new("RGBA", (64, 48), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (10, 10, 30, 30))
    answer = sdk.images.edit(
        image=("start.png", png(image)), mask=("mask.png", png(mask)), prompt="a green apple", model="gpt-image-1", n=2
    )
    assert answer.data is not None and len(answer.data) == 2
    kept = Image.open(doors.services.input_path(nodes(doors, "LoadImageMask")[0]["image"])).convert("L")
    assert (kept.getpixel((20, 20)), kept.getpixel((40, 40))) == (255, 0)
    assert nodes(doors, "KSampler")[0]["denoise"] == 1.0 and len(nodes(doors, "AtollPasteBack")) == 1


def test_an_edit_without_a_mask_keeps_more_where_fidelity_is_high(sdk: openai.OpenAI, doors: DoorServer) -> None:
    start = png(Image.new("RGB", (64, 64), "teal"))
    sdk.images.edit(image=[("a.png", start)], prompt="a green apple", model="gpt-image-1", input_fidelity="high")
    assert nodes(doors, "KSampler")[0]["denoise"] == 0.5
    sdk.images.edit(image=("a.png", start), prompt="a green apple", model="gpt-image-1")
    assert nodes(doors, "KSampler")[0]["denoise"] == 0.75
    holes = Image.new("RGBA", (64, 64), (9, 9, 9, 0))
    sdk.images.edit(image=("b.png", png(holes)), prompt="a green apple", model="dall-e-2", response_format="b64_json")
    assert len(nodes(doors, "AtollPasteBack")) == 1
    events = list(
        sdk.images.edit(image=("a.png", start), prompt="x", model="gpt-image-1", stream=True, partial_images=0)
    )
    assert [event.type for event in events] == ["image_edit.completed"]


def test_a_variation_starts_from_the_picture(client: httpx.Client, doors: DoorServer) -> None:
    files = {"image": ("a.png", png(Image.new("RGB", (64, 64), "teal")))}
    reply = client.post("/images/variations", files=files, data={"n": "2", "response_format": "b64_json"})
    assert len(reply.raise_for_status().json()["data"]) == 2
    assert nodes(doors, "KSampler")[0]["denoise"] == 0.6


def test_models_are_listed(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["lagoon", OTHER_MODEL]
    assert sdk.models.retrieve(OTHER_MODEL).owned_by == "local"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gone")


def test_a_key_is_neither_needed_nor_looked_at(client: httpx.Client) -> None:
    for key in ({}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer x"}):
        assert client.get("/models", headers=key).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "param", "word"),
    [
        ({"prompt": ""}, 400, "prompt", "prompt"),
        ({"n": 11}, 400, "n", "10"),
        ({"size": "huge"}, 400, "size", "512x768"),
        ({"size": "99999x8"}, 400, "size", "size"),
        ({"size": "64x9000"}, 400, "height", "8192"),
        ({"model": "gone"}, 404, None, "GET /v1/models"),
        ({"steps": 0.5}, 400, "steps", "steps"),
        ({"seed": -2}, 400, "seed", "seed"),
        ({"sampler": "eulr"}, 400, "sampler", "eulr"),
        ({"background": "transparent"}, 501, None, "opaque"),
        ({"lora": [{"name": "ink"}]}, 501, None, "LoRA"),
    ],
)
def test_errors_have_openai_s_shape(
    client: httpx.Client, fields: dict[str, Any], status: int, param: str | None, word: str
) -> None:
    reply = client.post("/images/generations", json={"prompt": "a red apple", **fields})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["param"] == param
    assert word in error["message"]


def test_a_mask_that_can_t_be_is_refused_in_words(client: httpx.Client) -> None:
    image = png(Image.new("RGB", (64, 64)))

    def refused(**files: tuple[str, bytes]) -> str:
        reply = client.post("/images/edits", files=files, data={"prompt": "x"})
        assert reply.status_code == 400, reply.text
        return str(reply.json()["error"]["message"])

    assert "no transparent part" in refused(image=("a.png", image), mask=("m.png", image))
    other = png(Image.new("RGBA", (32, 64)))
    assert "mask is 32x64, but image is 64x64" in refused(image=("a.png", image), mask=("m.png", other))
    assert "not a picture" in refused(image=("a.png", b"hello"))
    assert "no picture was sent" in refused(mask=("m.png", other))


def test_speech_and_everything_else_is_named_as_missing(client: httpx.Client) -> None:
    reply = client.post("/audio/speech", json={"input": "hello", "model": "tts-1", "voice": "alloy"})
    assert reply.status_code == 501 and "no voice" in reply.json()["error"]["message"]
    reply = client.post("/chat/completions", json={})
    assert reply.status_code == 404 and "docs/openai.md" in reply.json()["error"]["message"]
