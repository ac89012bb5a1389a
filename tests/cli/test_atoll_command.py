"""The command line, from the outside: what it prints, what it leaves, how it exits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner, Result

from atoll.artifacts.png import read_png_text
from atoll.cli.main import app

if TYPE_CHECKING:
    from studio_server import StudioServer

runner = CliRunner()
QUICK = ("--model", "tiny", "--steps", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    from studio_server import home_with_model

    return home_with_model(tmp_path_factory.mktemp("cli") / "家 of Atoll", tiny_checkpoint)


def atoll(home: Path, *arguments: str) -> Result:
    return runner.invoke(app, [*arguments, "--home", str(home)])


def made(home: Path, *arguments: str) -> list[Path]:
    """The pictures that `atoll image ...` leaves."""
    result = atoll(home, "image", "a red apple", *QUICK, *arguments)
    assert result.exit_code == 0, result.output
    return [Path(line) for line in result.stdout.splitlines()]


def refused(home: Path, code: int, *arguments: str) -> str:
    result = atoll(home, *arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def save_picture(path: Path, width: int = 64, height: int = 64, value: int | None = None) -> Path:
    random = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(random if value is None else np.full_like(random, value)).save(path)
    return path


# --- a picture


def test_the_same_seed_gives_the_same_file_twice_and_through_the_server_too(
    home: Path, studio_server: StudioServer
) -> None:
    (first,), (second,) = (made(home, "--seed", "7") for _ in range(2))
    assert first == second and first.is_file()  # named by content
    job = studio_server.make(prompt="a red apple", width=None, height=None)
    sha256 = job["artifacts"][0]["sha256"]
    served = studio_server.client.get(f"/api/v1/artifacts/{sha256}/file").content
    (home / "served.png").write_bytes(served)
    np.testing.assert_array_equal(pixels(first), pixels(home / "served.png"))


def test_the_seed_that_was_drawn_is_told(home: Path) -> None:
    result = atoll(home, "image", "a red apple", *QUICK, "--json")
    said = json.loads(result.stdout)
    assert said["state"] == "done" and said["failure"] is None
    assert made(home, "--seed", str(said["seed"])) == [Path(path) for path in said["pictures"]]


def test_a_picture_lands_where_it_is_wanted_and_nothing_is_overwritten(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "一个 苹果" / "new" / "apple 1.png"
    assert made(home, "--seed", "7", "--out", str(target)) == [target]
    before = target.read_bytes()
    assert "is there already" in refused(home, 2, "image", "x", *QUICK, "--out", str(target))
    assert target.read_bytes() == before
    batch = made(home, "--seed", "7", "--batch", "2", "--out", str(tmp_path / "two.png"))
    assert [path.name for path in batch] == ["two.png", "two-2.png"]
    folder = [made(home, "--seed", str(seed), "--out", f"{tmp_path}/many/")[0].name for seed in (1, 2)]
    assert folder == ["atoll_00001_.png", "atoll_00001_ (2).png"]
    assert "written as PNG" in refused(home, 2, "image", "x", *QUICK, "--out", str(tmp_path / "a.jpg"))


def test_a_picture_repeats_itself_byte_for_byte(home: Path, tmp_path: Path) -> None:
    start, mask = save_picture(tmp_path / "start.png"), save_picture(tmp_path / "mask.png", value=200)
    original, copy = tmp_path / "original.png", tmp_path / "copy.png"
    made(home, "--seed", "9", "--init", str(start), "--mask", str(mask), "--cfg", "3.5", "--out", str(original))
    result = atoll(home, "image", "--from", str(original), "--out", str(copy))
    assert result.exit_code == 0, result.output
    assert copy.read_bytes() == original.read_bytes()


def test_a_picture_of_a1111_is_made_again_as_well_as_can_be(home: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.png"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(
        "parameters", "a red apple\nSteps: 2, Sampler: Euler a, CFG scale: 5, Seed: 3, Size: 64x64, Model: tiny"
    )
    Image.new("RGB", (64, 64)).save(foreign, pnginfo=chunks)
    result = atoll(home, "image", "--from", str(foreign), "--json")
    assert json.loads(result.stdout)["seed"] == 3
    inputs = [
        node["inputs"]
        for node in json.loads(read_png_text(Path(json.loads(result.stdout)["pictures"][0]))["prompt"]).values()
    ]
    assert any(values.get("sampler_name") == "euler_ancestral" for values in inputs)


def test_a_picture_that_says_nothing_can_not_be_repeated(home: Path, tmp_path: Path) -> None:
    silent = save_picture(tmp_path / "silent.png")
    assert "does not say how it was made" in refused(home, 2, "image", "--from", str(silent))
    assert "There is no file" in refused(home, 3, "image", "--from", str(tmp_path / "gone.png"))
    (tmp_path / "text.png").write_text("words")
    assert "not a PNG" in refused(home, 2, "image", "--from", str(tmp_path / "text.png"))
    assert "--steps, the prompt can't be given" in refused(
        home, 2, "image", "a dog", "--steps", "3", "--from", str(silent)
    )


def test_strength_zero_gives_the_picture_back(home: Path, tmp_path: Path) -> None:
    start = save_picture(tmp_path / "start.png")
    (path,) = made(home, "--init", str(start), "--strength", "0")
    np.testing.assert_array_equal(pixels(path), pixels(start))


# --- what can't be

BAD_OPTIONS = [
    (("--size", "517x512"), "width 517 is not a multiple of 8; the nearest are 512 and 520."),
    (("--size", "100000x100000"), "width 100000 is too big"),
    (("--size", "big"), "--size big is not two numbers of pixels"),
    (("--steps", "0"), "num_inference_steps 0 is too small"),
    (("--cfg", "nan"), "guidance_scale is nan"),
    (("--sampler", "eulr"), 'Did you mean "euler"'),
    (("--model", "tinny"), 'Did you mean "tiny"'),
    (("--vae", "none"), 'no model "none" among the vae'),
    (("--mask", "mask.png"), "mask_image needs init_image"),
    (("--negative", "x" * 100_001), "negative_prompt is 100001 characters long"),
]


@pytest.mark.parametrize(
    ("options", "words"), BAD_OPTIONS, ids=[options[0] + options[1][:8] for options, _ in BAD_OPTIONS]
)
def test_a_bad_option_is_answered_in_words(home: Path, options: Sequence[str], words: str) -> None:
    assert words in refused(home, 2, "image", "a red apple", *options)


def test_every_fault_is_told_at_once_also_to_programs(home: Path) -> None:
    result = atoll(home, "image", "x", "--size", "517x521", "--steps", "0", "--json")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 2 and error["code"] == "invalid_request"
    assert [fault["field"] for fault in error["faults"]] == ["width", "height", "num_inference_steps"]


def test_start_images_that_can_not_be_used_are_named(home: Path, tmp_path: Path) -> None:
    start, wide = save_picture(tmp_path / "start.png"), save_picture(tmp_path / "wide.png", 96)
    (tmp_path / "text.png").write_text("words")
    assert "--init: there is no file" in refused(home, 3, "image", "x", *QUICK, "--init", str(tmp_path / "none.png"))
    assert "text.png is not a picture" in refused(home, 2, "image", "x", *QUICK, "--init", str(tmp_path / "text.png"))
    said = refused(home, 2, "image", "x", *QUICK, "--init", str(start), "--mask", str(wide))
    assert "is 96x64" in said and "is 64x64" in said


def test_a_job_that_fails_exits_with_1_and_its_reason(home: Path, tmp_path: Path) -> None:
    start, black = save_picture(tmp_path / "start.png"), save_picture(tmp_path / "black.png", value=0)
    result = atoll(home, "image", "x", *QUICK, "--init", str(start), "--mask", str(black), "--only-masked")
    assert result.exit_code == 1
    assert "The mask" in result.stderr and "AtollCropToMask" in result.stderr


# --- workflows, models, jobs


def test_a_workflow_runs_from_its_file(home: Path, tmp_path: Path) -> None:
    (path,) = made(home, "--seed", "12")
    graph = json.loads(read_png_text(path)["prompt"])
    for name, content in (("plain", graph), ("as sent to the server", {"prompt": graph})):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content), encoding="utf-8-sig")
        result = atoll(home, "run", str(file), "--out", str(tmp_path / f"{name}.png"))
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(pixels(tmp_path / f"{name}.png"), pixels(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("words", "is not a JSON file"),
        ("[1]", "holds no workflow"),
        ('{"nodes": [], "links": []}', "no output node"),
        ('{"nodes": [{"id": 3}]}', 'Node 3 has no "type"'),
        ('{"1": {"class_type": "NoSuchNode", "inputs": {}}}', "NoSuchNode"),
        ("{}", "output"),
    ],
)
def test_what_is_no_workflow_is_told(home: Path, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "w.json").write_text(content)
    assert words in refused(home, 2, "run", str(tmp_path / "w.json"))


def test_a_workflow_that_is_not_there(home: Path, tmp_path: Path) -> None:
    assert "There is no file" in refused(home, 3, "run", str(tmp_path / "none.json"))


def test_models_are_listed_and_found(home: Path, tiny_checkpoint: Path) -> None:
    listed = json.loads(atoll(home, "models", "list", "--json").stdout)["models"]
    assert "tiny" in [model["name"] for model in listed]
    assert "tiny" in atoll(home, "models", "list").stdout
    path = Path(atoll(home, "models", "path", "tiny").stdout.strip())
    assert path.samefile(tiny_checkpoint)
    assert 'Did you mean "tiny"' in refused(home, 3, "models", "path", "tinny")


def test_jobs_are_listed_shown_and_cancelled(home: Path) -> None:
    job_id = json.loads(atoll(home, "image", "a green pear", *QUICK, "--json").stdout)["job_id"]
    jobs = json.loads(atoll(home, "jobs", "list", "--limit", "1", "--json").stdout)["jobs"]
    assert [(job["job_id"], job["state"]) for job in jobs] == [(job_id, "done")]
    assert "a green pear" in atoll(home, "jobs", "list", "--state", "done").stdout
    assert json.loads(atoll(home, "jobs", "show", job_id, "--json").stdout)["request"]["prompt"] == "a green pear"
    assert "is done" in atoll(home, "jobs", "cancel", job_id).stdout
    watched = atoll(home, "jobs", "watch", job_id, "--json")
    assert watched.exit_code == 0
    assert json.loads(watched.stdout.splitlines()[-1])["kind"] == "done"
    assert "no-such-job" in refused(home, 3, "jobs", "show", "no-such-job")
    assert "no such state" in refused(home, 2, "jobs", "list", "--state", "asleep")


def test_a_job_goes_to_the_studio_that_runs_on_this_home(studio_server: StudioServer) -> None:
    result = atoll(studio_server.home, "image", "a red apple", *QUICK, "--seed", "77", "--json")
    job_id = json.loads(result.stdout)["job_id"]
    watched = atoll(studio_server.home, "jobs", "watch", job_id, "--json").stdout.splitlines()
    (running,) = (event for event in map(json.loads, watched) if event["kind"] == "running")
    assert f"/{os.getpid()}/" not in running["data"]["worker"]


# --- the process itself


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    from studio_server import ATOLL

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*ATOLL, *arguments], text=True, env=environment, **pipes, **options)


def test_ctrl_c_cancels_the_job_and_exits_with_130(home: Path) -> None:
    process = start("image", "a red apple", "--model", "tiny", "--steps", "1000", "--home", str(home))
    running = ("jobs", "list", "--state", "running", "--json")
    while not (jobs := json.loads(atoll(home, *running).stdout)["jobs"]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    job = json.loads(atoll(home, "jobs", "show", jobs[0]["job_id"], "--json").stdout)
    assert job["state"] == "cancelled" and not job["artifacts"]


def test_help_comes_at_once_because_nothing_heavy_is_loaded() -> None:
    heavy = "torch numpy pydantic sqlalchemy fastapi nicegui PIL diffusers transformers"
    code = f"import sys, atoll.cli.main; print([name for name in '{heavy}'.split() if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    process = start("--help")
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0 and "studio" in said
    assert usage.ru_utime + usage.ru_stime < 0.5  # of computing: other programs may slow the clock


def test_the_studio_opens_only_on_loopback_and_on_a_free_port(home: Path) -> None:
    assert "no accounts" in refused(home, 2, "studio", "--host", "0.0.0.0", "--no-browser")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in refused(home, 4, "studio", "--port", port, "--no-browser")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 2 MiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_told_in_words_and_the_picture_is_not_lost(home: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(2**21 - 8192))
    result = atoll(home, "image", "x", *QUICK, "--size", "128x128", "--out", str(small_disk / "a.png"))
    assert result.exit_code == 4
    assert "The disk is full" in result.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]  # nothing half-written
    job = json.loads(atoll(home, "jobs", "list", "--limit", "1", "--json").stdout)["jobs"][0]
    shown = json.loads(atoll(home, "jobs", "show", job["job_id"], "--json").stdout)
    assert job["state"] == "done" and len(shown["artifacts"]) == 1


def test_a_home_on_a_full_disk_takes_no_job(small_disk: Path, tiny_checkpoint: Path) -> None:
    from studio_server import home_with_model

    home = home_with_model(small_disk / "home", tiny_checkpoint)
    assert atoll(home, "jobs", "list").exit_code == 0
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    assert "full" in refused(home, 4, "image", "x" * 5000, *QUICK).lower()
