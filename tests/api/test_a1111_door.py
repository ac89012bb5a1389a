"""The A1111 API on a real server, spoken to by plain HTTP and by the client package `webuiapi`."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import webuiapi
from door_server import OTHER_MODEL, DoorServer, running_doors
from PIL import Image
from shape_nodes import open_gate

from atoll.artifacts.infotext import parse_infotext
from atoll.artifacts.png import read_png_text
from atoll.jobs.job import JobState

SMALL: dict[str, Any] = {"prompt": "a red apple", "steps": 4, "width": 64, "height": 64, "seed": 7}
IDLE = {"skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorServer]:
    with running_doors(tmp_path_factory.mktemp("a1111") / "home") as server:
        yield server


@pytest.fixture
def client(doors: DoorServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as client:
        yield client


@pytest.fixture
def webui(doors: DoorServer) -> webuiapi.WebUIApi:
    api = webuiapi.WebUIApi(baseurl=f"{doors.url}/sdapi/v1", sampler="Euler a", steps=4)
    api.session.trust_env = False
    return api


@pytest.fixture
def held_samplers() -> Iterator[None]:
    """Samplers wait in the middle, so that a request is in flight for as long as the test wants."""
    open_gate.clear()
    yield
    open_gate.set()


def picture(width: int = 64, height: int = 64, colour: str = "teal", mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height), colour)


def coded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def made(client: httpx.Client, route: str = "txt2img", **fields: Any) -> dict[str, Any]:
    reply = client.post(f"/sdapi/v1/{route}", json={**SMALL, **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def refused(client: httpx.Client, status: int, route: str = "txt2img", **fields: Any) -> str:
    reply = client.post(f"/sdapi/v1/{route}", json={**SMALL, **fields})
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert set(body) == {"error", "detail", "body", "errors"}
    return str(body["detail"])


def nodes(doors: DoorServer, class_type: str, graph: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Inputs of the newest job's nodes of a class."""
    found = doors.last_graphs(1)[0] if graph is None else graph
    return [node["inputs"] for node in found.values() if node["class_type"] == class_type]


def until(condition: Any, within_s: float = 900) -> None:
    """Look again and again; the server is another thread."""
    event = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if condition():
            return
        event.wait(0.02)
    raise AssertionError("it did not come to pass")


# --- txt2img


def test_a_picture_comes_back_with_its_parameters_and_info(client: httpx.Client) -> None:
    answer = made(client, negative_prompt="blurry", sampler_name="DPM++ 2M", scheduler="Karras", cfg_scale="6")
    content = base64.b64decode(answer["images"][0], validate=True)
    assert Image.open(io.BytesIO(content)).size == (64, 64)
    text = read_png_text(content)["parameters"]
    told = parse_infotext(text)
    assert (told.prompt, told.negative_prompt) == ("a red apple", "blurry")
    assert told.parameters["Sampler"] == "DPM++ 2M" and told.parameters["Schedule type"] == "Karras"
    info = json.loads(answer["info"])
    assert info["infotexts"] == [text] and info["all_seeds"] == [7] and info["index_of_first_image"] == 0
    assert answer["parameters"]["cfg_scale"] == 6.0 and answer["parameters"]["denoising_strength"] == 0.75


def test_each_picture_of_each_batch_has_the_next_seed(client: httpx.Client, doors: DoorServer) -> None:
    answer = made(client, batch_size=2, n_iter=2)
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [7, 8, 9, 10] and len(answer["images"]) == 4
    seeds = [parse_infotext(text).parameters["Seed"] for text in info["infotexts"]]
    assert seeds == ["7", "8", "9", "10"]
    assert [nodes(doors, "KSampler", graph)[0]["seed"] for graph in doors.last_graphs(2)] == [7, 9]
    assert nodes(doors, "AtollImageNoise")[0]["subseed_strength"] == 0


def test_a_variation_keeps_the_seed_and_counts_the_subseed(client: httpx.Client, doors: DoorServer) -> None:
    fields = {"subseed": 100, "subseed_strength": 0.3, "seed_resize_from_w": 128, "seed_resize_from_h": 64}
    info = json.loads(made(client, batch_size=2, n_iter=2, **fields)["info"])
    assert info["all_seeds"] == [7, 7, 7, 7] and info["all_subseeds"] == [100, 101, 102, 103]
    told = nodes(doors, "AtollImageNoise")[0]
    assert (told["subseed"], told["resize_from_width"], told["resize_from_height"]) == (102, 128, 64)


def test_a_random_seed_is_told(client: httpx.Client, doors: DoorServer) -> None:
    info = json.loads(made(client, seed=-1)["info"])
    assert info["seed"] >= 0 and nodes(doors, "KSampler")[0]["seed"] == info["seed"]


def test_what_clients_of_every_kind_leave_in_the_body_does_no_harm(client: httpx.Client) -> None:
    answer = made(
        client, url="http://127.0.0.1:7860", auth="", steps="3", scheduler=None, hr_additional_modules=[],
        styles=None, restore_faces=False, alwayson_scripts={"ControlNet": {"args": []}, "ADetailer": {"args": [False]}},
        override_settings={"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic", "forge_additional_modules": []},
        do_not_save_grid=False, script_args=[], distilled_cfg_scale=3.5,
    )  # fmt: skip
    assert len(answer["images"]) == 1 and json.loads(answer["info"])["clip_skip"] == 2


def test_sizes_are_cut_down_to_what_latents_can_be(client: httpx.Client) -> None:
    info = json.loads(made(client, width=70, height=77)["info"])
    assert (info["width"], info["height"]) == (64, 72)


def test_pictures_are_kept_only_if_asked_for(client: httpx.Client, doors: DoorServer) -> None:
    before = len(doors.services.artifacts(limit=500))
    made(client, seed=21)
    assert len(doors.services.artifacts(limit=500)) == before
    answer = made(client, seed=22, batch_size=3, save_images=True)
    assert len(doors.services.artifacts(limit=500)) == before + 3
    info = json.loads(answer["info"])
    assert info["index_of_first_image"] == 1 and len(answer["images"]) == 4 == len(info["infotexts"])
    grid = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
    assert grid.size == (128, 128)
    assert made(client, seed=23, send_images=False)["images"] == []


def test_the_answer_can_be_a_jpeg_that_still_says_how_it_was_made(client: httpx.Client) -> None:
    answer = made(client, override_settings={"samples_format": "jpg"}, prompt="ein grüner Apfel, süß")
    content = base64.b64decode(answer["images"][0])
    assert Image.open(io.BytesIO(content)).format == "JPEG"
    told = client.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == json.loads(answer["info"])["infotexts"][0]
    assert told["parameters"]["Prompt"] == "ein grüner Apfel, süß"


def test_a_prompt_may_change_on_the_way(client: httpx.Client, doors: DoorServer) -> None:
    text = json.loads(made(client, prompt="a [cat:dog:0.5], [red|blue]")["info"])["infotexts"][0]
    assert parse_infotext(text).prompt == "a [cat:dog:0.5], [red|blue]"
    graph = doors.last_graphs(1)[0]
    spoken = {
        graph[inputs["conditioning"][0]]["inputs"]["text"]: inputs["ranges"]
        for inputs in nodes(doors, "AtollPromptSteps", graph)
    }
    assert spoken == {"a cat, red": "0-1", "a cat, blue": "1-2", "a dog, red": "2-3", "a dog, blue": "3-4"}


@pytest.mark.parametrize(
    ("upscaler", "class_type"),
    [
        ("Latent", "AtollUpscaleLatent"),
        ("Latent (bicubic antialiased)", "AtollUpscaleLatent"),
        ("Lanczos", "ImageScale"),
    ],
)
def test_a_hires_fix_samples_twice(client: httpx.Client, doors: DoorServer, upscaler: str, class_type: str) -> None:
    answer = made(
        client, enable_hr=True, hr_upscaler=upscaler, hr_scale=1.5, denoising_strength=0.6, hr_second_pass_steps=3,
        hr_prompt="a green apple", hr_sampler_name="Euler a",
    )  # fmt: skip
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).size == (96, 96)
    first, second = nodes(doors, "KSampler")
    assert (first["denoise"], second["denoise"], second["steps"]) == (1.0, 0.6, 3)
    assert (first["sampler_name"], second["sampler_name"]) == ("euler", "euler_ancestral")
    assert first["seed"] == second["seed"] and len(nodes(doors, class_type)) == 1
    told = parse_infotext(json.loads(answer["info"])["infotexts"][0])
    assert told.prompt == "a red apple" and told.parameters["Hires prompt"] == "a green apple"
    assert told.parameters["Size"] == "64x64" and told.parameters["Hires resize"] == "96x96"
    assert told.parameters["Denoising strength"] == "0.6"


def test_styles_from_the_home_are_applied(client: httpx.Client, doors: DoorServer) -> None:
    (doors.home / "styles.csv").write_text(
        'name,prompt,negative_prompt\nink,"ink drawing of {prompt}, black",colour\nsoft,soft light,\n', encoding="utf-8"
    )
    assert [style["name"] for style in client.get("/sdapi/v1/prompt-styles").json()] == ["ink", "soft"]
    info = json.loads(made(client, styles=["ink", "soft", "gone"])["info"])
    assert info["prompt"] == "ink drawing of a red apple, black, soft light"
    assert info["negative_prompt"] == "colour" and info["styles"] == ["ink", "soft"]


# --- img2img


def test_img2img_makes_its_share_of_the_steps(client: httpx.Client, doors: DoorServer) -> None:
    answer = made(
        client, "img2img", init_images=["data:image/png;base64," + coded(picture(32, 48))], steps=20,
        denoising_strength=0.75, batch_size=2,
    )  # fmt: skip
    assert answer["parameters"]["init_images"] is None and len(answer["images"]) == 2
    sampler = nodes(doors, "KSamplerAdvanced")[0]
    assert sampler["steps"] - sampler["start_at_step"] == 16  # int(0.75 * 20) + 1
    told = parse_infotext(json.loads(answer["info"])["infotexts"][1])
    assert told.parameters["Denoising strength"] == "0.75" and told.parameters["Steps"] == "20"
    assert told.parameters["Seed"] == "8"


def test_all_steps_are_made_where_the_options_say_so(client: httpx.Client, doors: DoorServer) -> None:
    fields = {"init_images": [coded(picture())], "override_settings": {"img2img_fix_steps": True}}
    made(client, "img2img", denoising_strength=0.5, **fields)
    assert nodes(doors, "KSampler")[0]["denoise"] == 0.5


@pytest.mark.parametrize(
    ("mode", "class_type"), [(0, "ImageScale"), (1, "ImageScale"), (2, "AtollResizeAndFill"), (3, "AtollUpscaleLatent")]
)
def test_every_resize_mode_ends_in_the_size_asked_for(
    client: httpx.Client, doors: DoorServer, mode: int, class_type: str
) -> None:
    answer = made(client, "img2img", init_images=[coded(picture(40, 80))], resize_mode=mode)
    assert Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).size == (64, 64)
    scaled = nodes(doors, class_type)
    assert len(scaled) == 1 and scaled[0].get("crop", "") == {0: "disabled", 1: "center"}.get(mode, "")


def test_several_start_images_are_one_batch(client: httpx.Client, doors: DoorServer) -> None:
    images = [coded(picture(colour=colour)) for colour in ("teal", "olive", "navy")]
    answer = made(client, "img2img", init_images=images, batch_size=1)
    assert json.loads(answer["info"])["all_seeds"] == [7, 8, 9] and len(nodes(doors, "ImageBatch")) == 2


@pytest.mark.parametrize("fill", [0, 1, 2, 3])
@pytest.mark.parametrize("only_masked", [True, False])
def test_a_mask_may_be_filled_in_four_ways(
    client: httpx.Client, doors: DoorServer, fill: int, only_masked: bool
) -> None:
    mask = picture(96, 80, "black")
    mask.paste("white", (20, 20, 50, 50))
    answer = made(
        client, "img2img", init_images=[coded(picture(96, 80))], mask=coded(mask), inpainting_fill=fill,
        inpaint_full_res=only_masked, inpaint_full_res_padding=8, inpainting_mask_invert=1, mask_blur=3,
    )  # fmt: skip
    size = Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).size
    assert size == ((96, 80) if only_masked else (64, 64))
    assert answer["parameters"]["mask"] is None
    assert len(nodes(doors, "AtollCropToMask")) == int(only_masked) and len(nodes(doors, "AtollPasteBack")) == 1
    assert len(nodes(doors, "AtollFillMasked")) == int(fill == 0) and len(nodes(doors, "InvertMask")) == 1
    contents = [inputs["content"] for inputs in nodes(doors, "AtollMaskedLatents")]
    assert contents == {2: ["noise"], 3: ["nothing"]}.get(fill, [])
    assert nodes(doors, "AtollBlurMask")[0]["radius"] == 3


# --- what can't be


def test_refusals_have_the_status_that_clients_know(client: httpx.Client) -> None:
    assert 'sampler "Eulr"' in refused(client, 400, sampler_name="Eulr")
    assert "Init image not found" in refused(client, 404, "img2img")
    assert "none of A1111's" in refused(client, 422, script_name="x/y/z plot")
    assert "steps" in refused(client, 422, steps=0)
    assert "prompt" in refused(client, 422, prompt=["a"])
    assert "not base64" in refused(client, 422, "img2img", init_images=["data:image/png;base64,a"])
    assert "init_images[0] is not a picture" in refused(client, 422, "img2img", init_images=["aGVsbG8="])
    assert "nothing is fetched" in refused(client, 422, "img2img", init_images=["http://127.0.0.1/x.png"])
    assert 'model "gone"' in refused(client, 404, override_settings={"sd_model_checkpoint": "gone"})
    assert 'VAE "gone"' in refused(client, 404, override_settings={"sd_vae": "gone"})
    assert "million pixels" in refused(client, 422, width=4096, height=4096, batch_size=64)
    reply = client.post("/sdapi/v1/txt2img", content="{", headers={"content-type": "application/json"})
    assert reply.status_code == 422 and "not valid JSON" in reply.json()["detail"]
    assert client.get("/sdapi/v1/artists").status_code == 404


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"prompt": "a cat <lora:ink:0.8>"}, "<lora:ink:0.8>"),
        ({"tiling": True}, "tiling"),
        ({"restore_faces": True}, "face restorer"),
        ({"refiner_checkpoint": "x"}, "refiner"),
        ({"alwayson_scripts": {"controlnet": {"args": [{"model": "canny", "image": ""}]}}}, "ControlNet"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "face"}]}}}, "faces"),
    ],
)
def test_what_atoll_does_not_have_is_named(client: httpx.Client, fields: dict[str, Any], word: str) -> None:
    assert word in refused(client, 501, **fields)


# --- progress, interrupt and skip are each caller's own


def test_idle_progress_is_all_zeros(client: httpx.Client) -> None:
    told = client.get("/sdapi/v1/progress?skip_current_image=true").json()
    assert told["progress"] == 0 and told["eta_relative"] == 0 and told["current_image"] is None
    assert told["state"] == {**IDLE, "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0}


def test_progress_and_interrupt_reach_only_their_own_caller(doors: DoorServer, held_samplers: None) -> None:
    with (
        httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as own,
        httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as other,
        ThreadPoolExecutor() as pool,
    ):
        for client in (own, other):
            client.get("/sdapi/v1/options")  # from here on each has a cookie
        request = pool.submit(made, own, n_iter=2, force_task_id="task(abc)", seed=31)
        until(lambda: own.get("/sdapi/v1/progress").json()["current_image"])
        told = own.get("/sdapi/v1/progress").json()
        assert 0.01 <= told["progress"] < 1 and told["state"]["job_count"] == 2
        assert told["state"]["sampling_step"] == 1 and told["state"]["sampling_steps"] == 4
        assert told["current_task"] == "task(abc)"
        task = own.post("/internal/progress", json={"id_task": "task(abc)"}).json()
        assert task["active"] and task["live_preview"].startswith("data:image/jpeg;base64,")
        assert other.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0
        assert not other.post("/internal/progress", json={"id_task": "task(abc)"}).json()["active"]
        assert other.post("/sdapi/v1/interrupt").json() == {}
        assert not own.get("/sdapi/v1/progress").json()["state"]["interrupted"]
        assert own.post("/sdapi/v1/interrupt").json() == {}
        assert request.result(900)["images"] == []
        states = {job.state for job in doors.services.jobs(limit=2)}
        assert states == {JobState.CANCELLED}
        assert own.get("/sdapi/v1/progress").json()["progress"] == 0


def test_skip_ends_one_batch_and_the_next_goes_on(doors: DoorServer, client: httpx.Client, held_samplers: None) -> None:
    with ThreadPoolExecutor() as pool:  # the first request brings no cookie, and those that ask after it get none
        request = pool.submit(made, client, n_iter=2, seed=41)
        until(lambda: client.get("/sdapi/v1/progress").json()["state"]["sampling_step"])
        assert client.post("/sdapi/v1/skip").json() is None
        until(lambda: client.get("/sdapi/v1/progress").json()["state"]["job_no"] == 1)
        open_gate.set()
        assert json.loads(request.result(900)["info"])["all_seeds"] == [42]


# --- options


def test_options_are_each_session_s_own(doors: DoorServer) -> None:
    with (
        httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as one,
        httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as another,
    ):
        titles = [model["title"] for model in one.get("/sdapi/v1/sd-models").json()]
        assert one.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == titles[0]
        assert one.post("/sdapi/v1/options", json={"sd_model_checkpoint": titles[1], "no_such": 1}).json() is None
        assert one.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == titles[1]
        assert another.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == titles[0]
        made(one, seed=51)
        assert nodes(doors, "CheckpointLoaderSimple")[0]["ckpt_name"] == OTHER_MODEL
        made(one, seed=52, override_settings={"sd_model_checkpoint": titles[0]})
        assert nodes(doors, "CheckpointLoaderSimple")[0]["ckpt_name"] == "lagoon"
        assert one.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == titles[1]
        whole = one.get("/sdapi/v1/options").json()
        assert one.post("/sdapi/v1/options", json=whole).status_code == 200  # as Open WebUI does
        assert one.post("/sdapi/v1/options", json={"sd_model_checkpoint": "gone"}).status_code == 404


def test_a_program_without_cookies_keeps_its_options_to_itself(doors: DoorServer) -> None:
    def ask(agent: str, method: str, **fields: Any) -> Any:
        with httpx.Client(base_url=doors.url, timeout=900, trust_env=False, headers={"user-agent": agent}) as client:
            return client.request(method, "/sdapi/v1/options", **fields).json()

    ask("tavern", "POST", json={"CLIP_stop_at_last_layers": 2})
    ask("tavern", "POST", json={"sd_vae": "soft"})
    told = ask("tavern", "GET")
    assert (told["CLIP_stop_at_last_layers"], told["sd_vae"]) == (2, "soft")
    assert ask("owui", "GET")["CLIP_stop_at_last_layers"] == 1


def test_the_first_options_of_a_client_with_cookies_become_its_own(doors: DoorServer) -> None:
    headers = {"user-agent": "new"}
    with httpx.Client(base_url=doors.url, timeout=900, trust_env=False, headers=headers) as client:
        client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 3})
        assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 3
    with httpx.Client(base_url=doors.url, timeout=900, trust_env=False, headers=headers) as client:
        assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1


def test_an_empty_authorization_header_is_none_at_all(client: httpx.Client) -> None:
    assert client.get("/sdapi/v1/options", headers={"authorization": ""}).status_code == 200
    assert client.get("/sdapi/v1/options", headers={"authorization": "Basic ???"}).status_code == 200


def test_a_password_is_asked_for_where_the_settings_name_one(tmp_path: Path) -> None:
    with running_doors(tmp_path / "home", a1111_auth="ann:secret,bob:other") as server:
        api = webuiapi.WebUIApi(baseurl=f"{server.url}/sdapi/v1", username="bob", password="other")
        api.session.trust_env = False
        assert api.get_options()["sd_vae"] == "Automatic"
        with httpx.Client(base_url=server.url, timeout=900, trust_env=False) as client:
            for route in ("options", "samplers", "sd-models", "progress", "artists"):
                reply = client.get(f"/sdapi/v1/{route}")
                assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Basic", route
            assert client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 401
            assert client.get("/sdapi/v1/options", auth=("ann", "other")).status_code == 401
            client.post("/sdapi/v1/options", json={"sd_vae": "soft"}, auth=("ann", "secret"))
        assert api.get_options()["sd_vae"] == "Automatic"


# --- lists


def test_lists_have_the_shape_that_clients_read(client: httpx.Client) -> None:
    def keys(route: str) -> set[str]:
        return set(client.get(f"/sdapi/v1/{route}").json()[0])

    assert keys("sd-models") == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert keys("sd-vae") == keys("sd-modules") == {"model_name", "filename"}
    assert keys("samplers") == {"name", "aliases", "options"}
    assert keys("schedulers") == {"name", "label", "aliases", "default_rho", "need_inner_model"}
    assert keys("upscalers") == {"name", "model_name", "model_path", "model_url", "scale"}
    assert client.get("/sdapi/v1/upscalers").json()[0]["name"] == "None"
    assert len(client.get("/sdapi/v1/latent-upscale-modes").json()) == 6
    assert client.get("/sdapi/v1/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": [], "img2img": []}
    for route in ("loras", "hypernetworks", "face-restorers", "realesrgan-models", "script-info", "extensions"):
        assert client.get(f"/sdapi/v1/{route}").json() == [], route
    assert client.get("/sdapi/v1/cmd-flags").json()["api"] is True
    memory = client.get("/sdapi/v1/memory").json()
    assert memory["ram"]["total"] > 0 and "cuda" in memory
    for route in ("refresh-checkpoints", "refresh-vae", "refresh-loras"):
        assert client.post(f"/sdapi/v1/{route}").json() is None
    for route in ("unload-checkpoint", "reload-checkpoint"):
        assert client.post(f"/sdapi/v1/{route}").json() == {}
    assert client.get("/internal/ping").json() == {}
    assert client.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}
    assert client.get("/controlnet/model_list").json() == {"model_list": []}
    assert client.get("/controlnet/control_types").json()["control_types"]["All"]["default_option"] == "none"
    assert client.post("/controlnet/detect", json={}).status_code == 501


@pytest.mark.parametrize("spelling", ["title", "model_name", "filename", "hash"])
def test_a_model_is_known_by_each_of_its_names(client: httpx.Client, doors: DoorServer, spelling: str) -> None:
    other = client.get("/sdapi/v1/sd-models").json()[1]
    fields = {"override_settings": {"sd_model_checkpoint": other[spelling]}}
    made(client, **fields)
    wanted = {"lagoon", OTHER_MODEL} if spelling == "hash" else {OTHER_MODEL}  # both hold the same weights
    assert nodes(doors, "CheckpointLoaderSimple")[0]["ckpt_name"] in wanted


# --- webuiapi, method by method


def test_webuiapi_draws_and_paints_over(webui: webuiapi.WebUIApi, doors: DoorServer) -> None:
    drawn = webui.txt2img(prompt="a red apple", seed=5, width=64, height=64, batch_size=2)
    assert [image.size for image in drawn.images] == [(64, 64)] * 2 and drawn.info["all_seeds"] == [5, 6]
    assert drawn.parameters["sampler_name"] == "Euler a"
    bigger = webui.txt2img(
        prompt="a red apple", seed=5, width=64, height=64, enable_hr=True, hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Latent,
    )  # fmt: skip
    assert bigger.image.size == (128, 128)
    painted = webui.img2img(
        images=[drawn.image], mask_image=picture(colour="white"), prompt="a green apple", width=64, height=64,
        inpaint_full_res=False, save_images=True,
    )  # fmt: skip
    assert painted.image.size == (64, 64)
    told = webui.png_info(drawn.image)
    assert told.info.startswith("a red apple") and told.parameters["Seed"] == "5"


def test_webuiapi_makes_pictures_bigger(webui: webuiapi.WebUIApi) -> None:
    image = picture(40, 20)
    assert webui.extra_single_image(image, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5).image.size == (
        60,
        30,
    )
    assert webui.extra_single_image(image, upscaler_1="None").image.size == (40, 20)
    cut = webui.extra_single_image(
        image, upscaler_1="Nearest", upscaler_2="Lanczos", extras_upscaler_2_visibility=0.5, resize_mode=1,
        upscaling_resize_w=50, upscaling_resize_h=50,
    )  # fmt: skip
    assert cut.image.size == (50, 50)
    batch = webui.extra_batch_images([image, picture(10, 10)], upscaler_1="Lanczos", upscaling_resize=2)
    assert [one.size for one in batch.images] == [(80, 40), (20, 20)]
    with pytest.raises(RuntimeError, match="There is no upscaler"):
        webui.extra_single_image(image, upscaler_1=webuiapi.Upscaler.ESRGAN_4x)
    with pytest.raises(RuntimeError, match="face restorers"):
        webui.extra_single_image(image, upscaler_1="Lanczos", gfpgan_visibility=1)


def test_webuiapi_looks_around_and_chooses_a_model(webui: webuiapi.WebUIApi) -> None:
    assert not (webui.has_controlnet or webui.has_adetailer or webui.has_animatediff)
    assert "Euler a" in webui.util_get_sampler_names() and "karras" in webui.util_get_scheduler_names()
    titles = webui.util_get_model_names()
    assert webui.util_get_current_model() in titles
    webui.util_set_model(OTHER_MODEL)
    assert webui.util_get_current_model().startswith(f"{OTHER_MODEL} [")
    webui.util_wait_for_ready()
    for look in (
        webui.get_cmd_flags, webui.get_memory, webui.get_embeddings, webui.get_upscalers, webui.get_sd_vae,
        webui.get_latent_upscale_modes, webui.get_loras, webui.get_hypernetworks, webui.get_face_restorers,
        webui.get_realesrgan_models, webui.get_prompt_styles, webui.get_scripts, webui.get_schedulers,
        webui.get_progress, webui.interrupt, webui.skip, webui.refresh_checkpoints,
    ):  # fmt: skip
        look()
    assert webui.controlnet_model_list() == [] and webui.controlnet_version() == 3
    assert webui.controlnet_module_list() == ["none"]
    with pytest.raises(RuntimeError, match="preprocessors"):
        webui.controlnet_detect([picture()])
    with pytest.raises(RuntimeError, match="describes pictures"):
        webui.interrogate(picture())


# --- many at once


def test_many_callers_at_once_get_what_each_asked_for(doors: DoorServer) -> None:
    def ask(number: int) -> tuple[int, str, str, str]:
        with httpx.Client(base_url=doors.url, timeout=900, trust_env=False) as client:
            title = client.get("/sdapi/v1/sd-models").json()[number % 2]["title"]
            client.post("/sdapi/v1/options", json={"sd_model_checkpoint": title})
            info = json.loads(made(client, prompt=f"picture {number}", seed=number, steps=1)["info"])
            return info["seed"], info["prompt"], info["sd_model_name"], title

    with ThreadPoolExecutor(12) as pool:
        for number, (seed, prompt, name, title) in enumerate(pool.map(ask, range(24))):
            assert (seed, prompt) == (number, f"picture {number}") and title.startswith(f"{name} [")
