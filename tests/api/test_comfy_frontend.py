"""ComfyUI's official frontend at /comfy, in a real browser, before a real server and worker.

The nodes only know shapes (see shape_nodes), so that what takes time here is the frontend alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from comfy_door import txt2img
from door_server import DoorServer, running_doors

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytest.importorskip("comfyui_frontend_package", reason="not installed: pip install 'atoll[comfy-ui]'")
pytestmark = pytest.mark.browser

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
CHROMIUM_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 240_000  # the frontend is megabytes of script, and the machine may be busy


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorServer]:
    with running_doors(tmp_path_factory.mktemp("frontend") / "home") as server:
        yield server


@pytest.fixture
def page(doors: DoorServer) -> Iterator[Any]:
    """A page of the frontend; requests to any other site are cut off, as on a machine without a network."""
    executable = next(filter(os.path.exists, CHROMIUM), None)
    if executable is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install -y chromium), so no page can be looked at")
    settings = f"{doors.url}/api/settings"
    # Else its first start covers everything with a choice of templates.
    httpx.post(
        settings, json={"Comfy.TutorialCompleted": True, "Comfy.Release.Status": "changelog seen"}, trust_env=False
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        own = (doors.url, doors.url.replace("http", "ws", 1), "data:", "blob:")
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(own) else route.abort())
        yield page
        browser.close()


def open_frontend(page: Any, server: DoorServer) -> None:
    page.goto(f"{server.url}/comfy/")
    page.wait_for_function("window.app?.graph && window.comfyAPI?.api?.api?.clientId")


@pytest.mark.timeout(900)
def test_it_loads_queues_shows_progress_and_pictures_and_remembers(page: Any, doors: DoorServer) -> None:
    open_frontend(page, doors)
    assert page.evaluate("Object.keys(LiteGraph.registered_node_types).includes('KSampler')")
    page.evaluate("graph => app.loadApiJson(graph, 'apple')", txt2img(5, steps=4))
    page.wait_for_function("app.graph._nodes.length === 7")

    page.evaluate(
        """() => {
          window.heard = [];
          for (const kind of ['execution_start', 'progress', 'executed', 'execution_success', 'status'])
            comfyAPI.api.api.addEventListener(kind, event => heard.push([kind, event.detail]));
          app.queuePrompt(0, 1);
        }"""
    )
    page.wait_for_function("heard.some(([kind]) => kind === 'execution_success')")
    assert page.evaluate("heard.filter(([kind]) => kind === 'progress').at(-1)[1].max") == 4
    page.evaluate("() => app.canvas.centerOnNode(app.graph.getNodeById(9))")  # only what is in view is drawn
    page.wait_for_function("app.graph.getNodeById(9).imgs?.[0]?.naturalWidth === 64")  # the node shows its picture
    page.wait_for_function("heard.filter(([kind]) => kind === 'status').at(-1)[1].exec_info.queue_remaining === 0")

    open_frontend(page, doors)  # as after pressing reload
    history = page.evaluate("comfyAPI.api.api.getHistory(64).then(({History}) => History)")
    assert any(task["status"]["status_str"] == "success" and "9" in task["outputs"] for task in history)
    page.keyboard.press("q")  # opens the queue, which lists what was made
    page.wait_for_function("[...document.querySelectorAll('.task-item img')].some(image => image.naturalWidth)")


@pytest.mark.timeout(900)
def test_a_fault_in_the_workflow_is_shown_in_words(page: Any, doors: DoorServer) -> None:
    open_frontend(page, doors)
    graph = txt2img(5)
    graph["3"]["inputs"]["steps"] = 0
    page.evaluate("graph => app.loadApiJson(graph, 'apple')", graph)
    page.wait_for_function("app.graph._nodes.length === 7")
    page.evaluate("() => { app.graph.getNodeById(3).widgets.find(one => one.name === 'steps').value = 0; }")
    page.evaluate("() => { app.queuePrompt(0, 1); }")
    page.get_by_text("Value 0 smaller than min of 1").first.wait_for()
