"""The studio as somebody uses it: a real server and worker, a real browser, a tiny random model."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from atoll.web.text import TEXT

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = pytest.mark.browser

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
CHROMIUM_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 90_000  # a loaded machine takes long to start a worker; nothing here waits on purpose
LONG = 1000  # steps: some 10 s for the tiny model, time enough to do something meanwhile
MOST_SERVER_MIB = 250


class Studio:
    """A server with its worker, on a home of its own that holds the tiny model."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""
        self._start("0")

    def _start(self, port: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        command = [sys.executable, "-c", "from atoll.cli.main import main; main()", "studio", "--json", "--no-browser"]
        options = ["--home", str(self.home), "--port", port, "--device", "cpu", "--precision", "fp32"]
        self.process = subprocess.Popen(
            [*command, *options],
            env=environment
            | {
                "ATOLL_DEFAULT_MODEL": "tiny",
                "OMP_NUM_THREADS": "1",
                "NICEGUI_STORAGE_PATH": str(self.home / "nicegui"),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        assert told, "the studio ended before it said where it is"
        self.url = json.loads(told)["url"]

    def restart(self) -> None:
        port = self.url.rstrip("/").rpartition(":")[2]
        self.stop()
        self._start(port)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def ask(self, path: str, body: Any = None) -> Any:
        """REST, as a program uses it."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}api/v1{path}", data, {"content-type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def pixels(self, sha256: str) -> NDArray[np.uint8]:
        with urlopen(f"{self.url}api/v1/artifacts/{sha256}/file", timeout=30) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))

    def newest(self) -> Any:
        return self.ask("/artifacts?limit=1")[0]


@pytest.fixture(scope="module")
def studio(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("studio") / "home"
    shutil.copytree(tiny_checkpoint, home / "models/checkpoints/tiny")
    studio = Studio(home)
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests here; not for the whole session, because it keeps an event loop running."""
    executable = next(filter(os.path.exists, CHROMIUM), None) or install_chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


def install_chromium() -> str:
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("Chromium is not installed (Debian: apt-get install -y chromium), so no page can be looked at")
    done = subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Chromium is missing and apt-get could not install it: {done.stderr.strip()[-300:]}")
    return CHROMIUM[0]


Open = Callable[..., Any]


@pytest.fixture
def complaints() -> list[str]:
    """What pages complained of; a test that provokes some takes them away again."""
    return []


@pytest.fixture
def open_page(browser: Any, studio: Studio, complaints: list[str]) -> Iterator[Open]:
    """Opens pages of one browser profile. Whatever a page complains of, or asks of another site, fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    own = (studio.url, studio.url.replace("http", "ws"), "data:", "blob:")

    def open_page(**viewport: int) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
        if viewport:
            page.set_viewport_size(viewport)
        page.goto(studio.url)
        page.wait_for_selector("#generate")
        page.wait_for_function("window.did_handshake")
        return page

    yield open_page
    context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Open) -> Any:
    return open_page()


def fill(page: Any, prompt: str, *, steps: int = 4, seed: str = "") -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.locator("#field-num_inference_steps").fill(str(steps))
    page.locator("#field-seed").fill(seed)


def generate(page: Any) -> None:
    page.locator("#generate").click()


def wait_for_result(page: Any, prompt: str) -> Any:
    """The picture of the job with this prompt, on the stage."""
    result = page.locator(f'.result img[alt="{prompt}"]').first
    result.wait_for()
    return result


def start_with(page: Any, picture: NDArray[np.uint8], name: str = "start.png") -> None:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    page.get_by_label(TEXT["en"]["start_choose"]).set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}
    )
    page.wait_for_function("document.querySelector('.well__frame img')?.naturalWidth")


def drag_over_mask(page: Any, *points: tuple[float, float]) -> None:
    """Paint from point to point, each given as shares of the picture's width and height."""
    box = page.locator(".well__frame canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def step_shown(page: Any) -> int:
    text = page.locator(".stage__line b").inner_text()
    return int(re.match(r"Step (\d+) of", text)[1])  # type: ignore[index]


def until(true: Callable[[], bool]) -> None:
    """Poll what only REST can tell."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def noise_picture(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 255, (height, width, 3), dtype=np.uint8)


# --- one picture


def test_a_new_user_types_a_prompt_and_gets_a_picture(page: Any, studio: Studio) -> None:
    page.keyboard.type("a red apple")  # the cursor is in the prompt already
    page.keyboard.press("Control+Enter")
    picture = wait_for_result(page, "a red apple")
    assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 64
    seed = studio.ask(f"/jobs/{studio.newest()['job_id']}")["request"]["seed"]
    facts = page.locator(".result__facts").inner_text()
    assert "64 × 64" in facts
    assert str(seed) in facts
    page.locator(".gallery__grid li").first.wait_for()


def test_the_page_gives_the_pixels_that_rest_gives(page: Any, studio: Studio) -> None:
    fill(page, "a boat", seed="77")
    generate(page)
    wait_for_result(page, "a boat")
    here = studio.newest()
    job = studio.ask("/images", {"prompt": "a boat", "seed": 77, "num_inference_steps": 4, "model": "tiny"})
    until(lambda: studio.ask(f"/jobs/{job['job_id']}")["state"] == "done")
    there = studio.newest()
    assert there["job_id"] == job["job_id"] != here["job_id"]
    np.testing.assert_array_equal(studio.pixels(here["sha256"]), studio.pixels(there["sha256"]))


def test_a_batch_gives_each_picture(page: Any) -> None:
    fill(page, "three cats")
    page.locator("#field-batch_size").fill("3")
    generate(page)
    wait_for_result(page, "three cats")
    assert page.locator(".result").count() == 3


def test_reuse_parameters_gives_the_same_picture_again(page: Any, studio: Studio) -> None:
    fill(page, "a small house", steps=5, seed="123456")
    page.locator("#field-guidance_scale").fill("3.5")
    page.locator("#field-width").fill("72")
    generate(page)
    wait_for_result(page, "a small house")
    first = studio.newest()
    fill(page, "something else", steps=9)
    page.get_by_text("Square").click()
    page.locator(".result").get_by_text("Reuse parameters").click()
    playwright.expect(page.get_by_label("Prompt", exact=True)).to_have_value("a small house")
    for name, value in {"seed": "123456", "num_inference_steps": "5", "guidance_scale": "3.5", "width": "72"}.items():
        playwright.expect(page.locator(f"#field-{name}")).to_have_value(value)
    generate(page)
    until(lambda: studio.newest()["job_id"] != first["job_id"])
    np.testing.assert_array_equal(studio.pixels(first["sha256"]), studio.pixels(studio.newest()["sha256"]))


# --- from a picture


def test_a_painted_mask_is_drawn_anew_and_the_rest_stays(page: Any, studio: Studio) -> None:
    start = noise_picture(96, 64)
    start_with(page, start)
    playwright.expect(page.locator("#field-width")).to_have_value("80")  # as many pixels as the model likes, same shape
    page.locator("#field-width").fill("96")
    page.locator("#field-height").fill("64")
    page.get_by_role("button", name="Paint a mask").click()
    drag_over_mask(page, (0.15, 0.5), (0.3, 0.5))
    page.locator("#field-mask_blur").fill("0")
    fill(page, "a window")
    generate(page)
    wait_for_result(page, "a window")
    result = studio.pixels(studio.newest()["sha256"])
    assert result.shape == start.shape
    np.testing.assert_array_equal(result[:, 48:], start[:, 48:])
    changed = (result != start).any(axis=-1)
    assert changed[28:36, 16:28].all()

    first = studio.newest()
    page.get_by_label("Remove the start picture").click()
    page.locator(".result").get_by_text("Reuse parameters").click()
    page.get_by_role("button", name="Eraser").wait_for()  # the mask is back, ready to be changed
    generate(page)
    until(lambda: studio.newest()["job_id"] != first["job_id"])
    np.testing.assert_array_equal(studio.pixels(studio.newest()["sha256"]), result)


def test_only_the_masked_part_is_worked_on_at_full_size_and_pasted_back(page: Any, studio: Studio) -> None:
    start = noise_picture(160, 160)
    start_with(page, start)
    page.get_by_role("button", name="Paint a mask").click()
    drag_over_mask(page, (0.5, 0.5), (0.6, 0.5))
    page.get_by_role("checkbox", name=TEXT["en"]["only_masked"]).click()
    page.locator("#field-only_masked_padding").fill("8")
    fill(page, "an eye")
    generate(page)
    wait_for_result(page, "an eye")
    result = studio.pixels(studio.newest()["sha256"])
    assert result.shape == start.shape, "the whole picture comes back at its own size"
    np.testing.assert_array_equal(result[:40], start[:40])
    assert (result[76:84, 84:92] != start[76:84, 84:92]).any()


def test_the_mask_can_be_erased_undone_inverted_and_cleared(page: Any) -> None:
    start_with(page, noise_picture(64, 64))
    page.get_by_role("button", name="Paint a mask").click()

    def painted() -> float:
        """The share of the picture that is painted."""
        return page.locator(".well__frame canvas").evaluate(
            "canvas => { const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            " let sum = 0; for (let i = 3; i < pixels.length; i += 4) sum += pixels[i];"
            " return sum / (255 * canvas.width * canvas.height); }"
        )

    drag_over_mask(page, (0.3, 0.5), (0.7, 0.5))
    stroke = painted()
    assert 0.03 < stroke < 0.15
    page.get_by_label("Invert the mask").click()
    assert painted() == pytest.approx(1 - stroke, abs=0.01)
    page.get_by_label("Undo").click()
    assert painted() == pytest.approx(stroke, abs=0.001)
    page.get_by_role("button", name="Eraser").click()
    drag_over_mask(page, (0.2, 0.5), (0.8, 0.5))
    assert painted() == pytest.approx(0, abs=0.005)
    page.get_by_label("Undo").click()
    page.get_by_label("Clear the mask").click()
    assert painted() == 0


def test_a_picture_can_be_dropped_anywhere_and_pasted(page: Any) -> None:
    page.evaluate(
        """async () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 80, height: 48 });
            const blob = await new Promise((done) => canvas.toBlob(done));
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
            window.dropping = transfer;
            const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
            document.querySelector(".gallery").dispatchEvent(drop);
        }"""
    )
    playwright.expect(page.locator("#field-width")).to_have_value("80")
    page.get_by_label("Remove the start picture").click()
    page.evaluate("window.dispatchEvent(new ClipboardEvent('paste', { clipboardData: window.dropping }))")
    page.locator(".well__frame img").wait_for()


def test_a_result_becomes_the_next_start_picture(page: Any, studio: Studio) -> None:
    fill(page, "a hill")
    generate(page)
    wait_for_result(page, "a hill")
    page.locator(".result").get_by_text("Use as start").click()
    page.locator(".well__frame img").wait_for()
    page.locator("#field-denoising_strength").fill("0")
    before = studio.newest()
    fill(page, "a hill again")
    generate(page)
    wait_for_result(page, "a hill again")
    after = studio.newest()
    assert after["job_id"] != before["job_id"]
    np.testing.assert_array_equal(studio.pixels(after["sha256"]), studio.pixels(before["sha256"]))


# --- while it runs


def test_a_running_job_shows_its_steps_and_can_be_cancelled(page: Any, studio: Studio) -> None:
    fill(page, "a long story", steps=LONG)
    generate(page)
    page.locator(".stage__canvas img").wait_for()  # the preview
    bar = page.get_by_role("progressbar", name="Progress")
    assert 0 <= int(bar.get_attribute("aria-valuenow")) < 100
    playwright.expect(page.locator(".stage__line")).to_contain_text(re.compile(r"about \d+ (s|min) left"))
    page.locator(".stage__line").get_by_role("button", name="Cancel").click()
    playwright.expect(page.locator(".stage__end")).to_contain_text("Cancelled")
    assert studio.ask("/jobs?limit=1")[0]["state"] == "cancelled"


def test_a_reload_finds_the_running_job_and_the_draft(page: Any) -> None:
    fill(page, "a slow ship", steps=LONG)
    generate(page)
    page.locator(".stage__canvas img").wait_for()
    before = step_shown(page)
    page.get_by_label("Prompt", exact=True).fill("the next idea")
    page.wait_for_function("sessionStorage.getItem('atoll-draft').includes('the next idea')")
    page.reload()
    page.locator(".stage__canvas img").wait_for()
    playwright.expect(page.locator(".stage__prompt")).to_have_text("a slow ship")
    assert step_shown(page) >= before
    playwright.expect(page.get_by_label("Prompt", exact=True)).to_have_value("the next idea")
    here = step_shown(page)
    page.wait_for_function(f"parseInt(document.querySelector('.stage__line b').textContent.match(/\\d+/)[0]) > {here}")
    page.locator(".stage__line").get_by_role("button", name="Cancel").click()
    page.locator(".stage__end").wait_for()


def test_two_tabs_do_not_disturb_each_other(open_page: Open) -> None:
    one, other = open_page(), open_page()
    fill(one, "tab one", steps=LONG)
    generate(one)
    one.locator(".stage__canvas img").wait_for()
    waiting = other.locator(".queue li", has_text="tab one")
    waiting.wait_for()  # the other tab knows of it ...
    assert other.locator(".stage__making").count() == 0  # ... but goes its own way
    fill(other, "tab two")
    generate(other)
    playwright.expect(other.locator(".stage__line b")).to_have_text("Waiting in the queue")
    assert one.get_by_label("Prompt", exact=True).input_value() == "tab one"
    waiting.get_by_label("Cancel: tab one").click()
    one.locator(".stage__end").wait_for()
    wait_for_result(other, "tab two")
    assert one.locator(".result").count() == 0


def test_jobs_queue_up_and_a_waiting_one_can_be_cancelled(page: Any) -> None:
    fill(page, "the first", steps=LONG)
    generate(page)
    page.locator(".stage__making").wait_for()
    for prompt in ("the second", "the third"):
        fill(page, prompt)
        page.get_by_role("button", name="Add to queue").click()
        page.locator(".queue li", has_text=prompt).wait_for()
    page.get_by_label("Cancel: the second").click()
    playwright.expect(page.locator(".queue li")).to_have_count(1)
    page.locator(".stage__line").get_by_role("button", name="Cancel").click()
    wait_for_result(page, "the third")  # the stage goes on to the next by itself
    playwright.expect(page.locator(".queue")).to_have_count(0)


# --- what goes wrong


def test_a_bad_size_is_answered_at_its_field(page: Any, studio: Studio) -> None:
    before = len(studio.ask("/jobs?limit=500"))
    fill(page, "a house", steps=0)
    page.locator("#field-width").fill("517")
    generate(page)
    field = page.locator(".field", has=page.locator("> .q-field #field-width"))
    playwright.expect(field).to_contain_text("517 is not a multiple of 8. Nearest: 512, 520.")
    playwright.expect(
        page.locator(".field", has=page.locator("> .q-field #field-num_inference_steps"))
    ).to_contain_text("The smallest is 1.")
    assert page.locator("#field-width").get_attribute("aria-invalid") == "true"
    assert len(studio.ask("/jobs?limit=500")) == before, "nothing was queued"
    page.locator("#field-width").fill("64")
    playwright.expect(field).not_to_contain_text("multiple")


def test_too_many_pixels_and_other_files_are_answered_in_words(page: Any) -> None:
    fill(page, "a mural")
    page.locator("#field-width").fill("8192")
    page.locator("#field-height").fill("8192")
    page.locator("#field-batch_size").fill("4")
    generate(page)
    playwright.expect(page.locator(".field", has=page.locator("> .q-field #field-batch_size"))).to_contain_text(
        "million pixels"
    )
    page.get_by_label(TEXT["en"]["start_choose"]).set_input_files(
        {"name": "letter.png", "mimeType": "image/png", "buffer": b"Dear reader"}
    )
    playwright.expect(page.get_by_role("alert").filter(has_text="could not be read")).to_be_visible()
    page.get_by_label("Dismiss").click()
    playwright.expect(page.locator("#trouble")).to_be_hidden()


def test_a_job_that_fails_says_why(page: Any, studio: Studio) -> None:
    broken = studio.home / "models/vae/broken.safetensors"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0{} and then nothing that fits")
    page.reload()
    page.wait_for_function("window.did_handshake")
    fill(page, "a broken thing")
    page.get_by_text("Advanced").click()
    page.locator("#field-vae").click()
    page.get_by_role("option", name="broken.safetensors").click()
    generate(page)
    said = page.get_by_text(re.compile("broken.safetensors .*"))
    playwright.expect(said.first).to_be_visible()


# --- looks and languages


def test_chinese_is_complete_and_remembered(page: Any) -> None:
    page.get_by_role("button", name="中文").click()
    playwright.expect(page.get_by_label("提示词", exact=True)).to_be_visible()
    page.wait_for_function("window.did_handshake")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    said = page.locator("body").inner_text()
    english = [text for text in TEXT["en"].values() if len(text) > 4 and "{" not in text and text in said]
    assert english in ([], ["English"])
    page.reload()
    playwright.expect(page.locator("#generate")).to_contain_text("生成")
    page.get_by_role("button", name="English").click()
    playwright.expect(page.locator("#generate")).to_contain_text("Generate")


def test_the_theme_is_remembered(page: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    page.wait_for_function(f"{ground} !== '{light}'")
    dark = page.evaluate(ground)
    page.reload()
    page.wait_for_function(f"{ground} === '{dark}'")


def test_every_control_has_a_name(page: Any) -> None:
    start_with(page, noise_picture(64, 64))
    page.get_by_role("button", name="Paint a mask").click()
    page.get_by_text("Advanced").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [role=slider], a[href]")].filter((control) => {
            const read = control.cloneNode(true);
            read.querySelectorAll("[aria-hidden=true]").forEach((unread) => unread.remove());
            return !(control.ariaLabel || control.labels?.length || read.textContent.trim()
                || control.getAttribute("aria-labelledby") || control.closest("[aria-hidden=true]"));
        }).map((control) => control.outerHTML.slice(0, 160))"""
    )
    assert nameless == []


def test_the_viewer_is_driven_by_keys_and_tells_the_parameters(page: Any) -> None:
    for number in (1, 2):
        fill(page, f"view {number}", seed=str(number))
        generate(page)
        wait_for_result(page, f"view {number}")
    page.locator(".result__open").focus()
    page.keyboard.press("Enter")
    viewer = page.locator("dialog.viewer")
    playwright.expect(viewer.locator("dl")).to_contain_text("view 2")
    page.keyboard.press("ArrowRight")
    playwright.expect(viewer.locator("dl")).to_contain_text("view 1")
    playwright.expect(viewer.locator("dl")).to_contain_text("dpmpp_2m")
    page.keyboard.press("Escape")
    playwright.expect(viewer).not_to_be_visible()


def test_a_phone_shows_all_without_scrolling_sideways(open_page: Open) -> None:
    page = open_page(width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    playwright.expect(page.locator("#field-width")).to_be_hidden()  # settings are folded away
    page.get_by_text("Settings").click()
    assert page.locator("#field-width").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#field-width").fill("70")
    page.get_by_text("Settings").click()
    generate(page)
    playwright.expect(page.locator("#field-width")).to_be_focused()  # unfolded again, because of the fault in it
    page.locator("#field-width").fill("64")
    box = page.locator("#generate").bounding_box()
    assert box["y"] + box["height"] <= 844, "the button is always at hand"
    page.get_by_label("Prompt", exact=True).fill("a phone")
    generate(page)
    picture = wait_for_result(page, "a phone")
    playwright.expect(picture).to_be_in_viewport()


# --- the server behind it


def test_the_page_comes_back_after_the_server_was_restarted(page: Any, studio: Studio, complaints: list[str]) -> None:
    fill(page, "before the storm")
    generate(page)
    wait_for_result(page, "before the storm")
    page.get_by_label("Prompt", exact=True).fill("half an idea")
    page.wait_for_function("sessionStorage.getItem('atoll-draft').includes('half an idea')")
    pictures = len(studio.ask("/artifacts?limit=500"))
    with page.expect_navigation():
        studio.restart()
    wait_for_result(page, "before the storm")
    playwright.expect(page.get_by_label("Prompt", exact=True)).to_have_value("half an idea")
    page.wait_for_function(f"document.querySelectorAll('.gallery__grid li').length === {min(pictures, 48)}")
    complaints[:] = [said for said in complaints if "ERR_CONNECTION" not in said]


def test_the_server_stays_small(page: Any, studio: Studio) -> None:
    page.locator(".stage__board").wait_for()
    assert psutil.Process(studio.process.pid).memory_info().rss / 2**20 < MOST_SERVER_MIB
