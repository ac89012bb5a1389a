"""POST /prompt, the queue, the history and the list of jobs, as ComfyUI's clients use them."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from comfy_door import ComfyServer, comfy_server, error_of, png, txt2img
from PIL import Image

from atoll.artifacts.png import read_png_text
from atoll.jobs.job import JobState

RECORDED = json.loads((Path(__file__).parent.parent / "data/comfy/errors.json").read_text(encoding="utf-8"))
PREFIXES = ("", "/api", "/comfy/api")


# --- accepting


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_workflow_is_accepted_under_the_id_that_its_client_gave(comfy: ComfyServer, prefix: str) -> None:
    prompt_id = str(uuid.uuid4())
    body = {"prompt": txt2img(), "prompt_id": prompt_id, "client_id": "me"}
    reply = comfy.client.post(f"{prefix}/prompt", json=body)
    assert reply.status_code == 200 and reply.json() == {"prompt_id": prompt_id, "number": 1, "node_errors": {}}
    assert comfy.services.job(prompt_id).state is JobState.QUEUED  # accepted means stored
    again = comfy.client.post(f"{prefix}/prompt", json=body)
    assert again.json()["prompt_id"] == prompt_id and len(comfy.services.jobs()) == 1  # sent twice, queued once
    other = comfy.client.post(f"{prefix}/prompt", json=body | {"prompt": txt2img(8)})
    assert error_of(other, 400)["type"] == "invalid_prompt_id"
    assert comfy.get(f"{prefix}/prompt") == {"exec_info": {"queue_remaining": 1}}


@pytest.mark.parametrize("prompt_id", ["", "7", str(uuid.uuid4()).upper(), f"{{{uuid.uuid4()}}}", 7, ["a"]])
def test_an_id_that_is_no_uuid_is_refused(comfy: ComfyServer, prompt_id: Any) -> None:
    reply = comfy.client.post("/prompt", json={"prompt": txt2img(), "prompt_id": prompt_id})
    assert error_of(reply, 400)["type"] == "invalid_prompt_id" and not comfy.services.jobs()


def broken(name: str) -> Any:
    """A workflow with the fault that ComfyUI's recorded error is about."""
    graph = txt2img()
    sampler = graph["3"]["inputs"]
    match name:
        case "missing input":
            del sampler["seed"]
        case "wrong type link":
            sampler["model"] = ["4", 1]
        case "unknown node":
            graph["3"]["class_type"] = "NoSuchNode"
        case "too small":
            sampler["steps"] = 0
        case "not in list":
            sampler["sampler_name"] = "nope"
        case "no outputs":
            del graph["9"]
        case "no class_type":
            del graph["3"]["class_type"]
        case "no prompt":
            return None
    return graph


@pytest.mark.parametrize("name", ["missing input", "wrong type link", "unknown node", "too small", "not in list",
                                  "no outputs", "no class_type", "no prompt"])  # fmt: skip
def test_errors_are_those_of_comfyui_with_a_sentence_beside(comfy: ComfyServer, name: str) -> None:
    graph = broken(name)
    reply = comfy.client.post("/prompt", json={} if graph is None else {"prompt": graph})
    told = reply.json()
    assert reply.status_code == RECORDED[name]["status"]
    assert told["error"] == RECORDED[name]["reply"]["error"]
    assert set(told["node_errors"]) == set(RECORDED[name]["reply"]["node_errors"])
    assert [node["errors"][0]["type"] for node in told["node_errors"].values()] == [
        node["errors"][0]["type"] for node in RECORDED[name]["reply"]["node_errors"].values()
    ]
    assert all(len(sentence) > 10 for sentence in told["sentences"]) and told["sentences"]
    assert not comfy.services.jobs()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"prompt"', b"\xff\xfe", b"[" * 100_000, b'{"prompt": {}, "extra_data": 3}',
             b'{"prompt": ' + b"9" * 5000 + b"}", b'{"prompt": NaN}']
)  # fmt: skip
def test_what_is_no_request_is_refused_in_words(comfy: ComfyServer, body: bytes) -> None:
    reply = comfy.client.post("/prompt", content=body, headers={"content-type": "application/json"})
    error_of(reply, 400)


def test_a_node_of_somebody_elses_is_named_with_where_it_may_come_from(comfy: ComfyServer) -> None:
    graph = txt2img()
    graph["5"] = {"class_type": "IPAdapterAdvanced", "inputs": {}}
    told = comfy.client.post("/prompt", json={"prompt": graph}).json()
    assert told["error"]["details"] == "Node ID '#5'"
    (sentence,) = [sentence for sentence in told["sentences"] if "IPAdapterAdvanced" in sentence]
    assert "Node 5" in sentence and "ComfyUI_IPAdapter_plus" in sentence


def test_a_workflow_as_the_editor_saves_it_is_taken_too(comfy: ComfyServer) -> None:
    nodes = [
        {"id": 1, "type": "LoadImage", "inputs": [], "widgets_values": ["cat.png", "image"], "mode": 0,
         "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]},
        {"id": 2, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
         "widgets_values": ["again"], "mode": 0},
    ]  # fmt: skip
    workflow = {"nodes": nodes, "links": [[1, 1, 0, 2, 0, "IMAGE"]], "version": 0.4}
    comfy.services.save_input("cat.png", io.BytesIO(png(1)))
    job = comfy.services.job(comfy.queue(workflow))
    assert job.graph["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "again"}
    assert job.extra["workflow"] == workflow
    error_of(comfy.client.post("/prompt", json={"prompt": {"nodes": [3], "links": "x"}}), 400)


def test_what_can_run_is_accepted_although_another_output_cannot(comfy: ComfyServer) -> None:
    graph = txt2img()
    graph["10"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    reply = comfy.client.post("/prompt", json={"prompt": graph}).json()
    assert list(reply["node_errors"]) == ["10"]
    assert list(comfy.services.job(reply["prompt_id"]).graph) == list(txt2img())


def test_only_the_wanted_outputs_are_made(comfy: ComfyServer) -> None:
    graph = txt2img()
    graph["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    prompt_id = comfy.queue(graph, partial_execution_targets=["10"])
    assert "9" not in comfy.services.job(prompt_id).graph
    ((_, _, _, _, outputs),) = comfy.get("/queue")["queue_pending"]
    assert outputs == ["10"]


def test_secrets_are_not_kept_and_the_workflow_is(comfy: ComfyServer) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": "w1", "nodes": []}}, "api_key_comfy_org": "secret", "mine": 1}
    prompt_id = comfy.queue(extra_data=extra, client_id="me")
    ((number, id_, graph, told, outputs),) = comfy.get("/queue")["queue_pending"]
    assert (number, id_, graph, outputs) == (1, prompt_id, txt2img(), ["9"])
    assert told.pop("create_time") > 1e12
    assert told == {"mine": 1, "client_id": "me", "extra_pnginfo": {"workflow": {"id": "w1", "nodes": []}}}
    assert "secret" not in json.dumps(comfy.services.job(prompt_id).extra)


def test_what_is_put_in_front_runs_first_the_last_one_before_all(comfy: ComfyServer) -> None:
    usual = comfy.queue(txt2img(1))
    numbered = comfy.queue(txt2img(2), number=-5)
    first = comfy.queue(txt2img(3), front=True)
    second = comfy.queue(txt2img(4), front=True)
    waiting = comfy.get("/queue")["queue_pending"]
    assert [entry[1] for entry in waiting] == [second, first, numbered, usual]
    assert [entry[0] for entry in waiting] == [-4, -3, -5, 1]
    assert comfy.worker.claim(second) and comfy.services.queue_position(first) == 0


# --- queue, history, jobs


def test_a_finished_job_is_in_the_history_with_its_pictures(comfy: ComfyServer) -> None:
    prompt_id = comfy.queue(txt2img(prefix="fruit/%width%/ComfyUI"), client_id="me")
    assert comfy.get(f"/history/{prompt_id}") == {}
    content = png(1, text={"prompt": "{}"})
    comfy.worker.run(prompt_id, content, png(2))
    entry = comfy.history_of(prompt_id)
    first, second = entry["outputs"]["9"]["images"]
    assert first["type"] == "output" and first["subfolder"] == "fruit/8"
    assert first["filename"] == "ComfyUI_00001_.png" != second["filename"]
    assert entry["prompt"][1] == prompt_id and entry["prompt"][4] == ["9"]
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    assert [name for name, _ in entry["status"]["messages"]] == [
        "execution_start", "execution_cached", "execution_success"
    ]  # fmt: skip
    assert entry["meta"]["9"]["real_node_id"] == "9"
    assert comfy.get("/history")[prompt_id] == entry and comfy.get("/queue")["queue_pending"] == []

    shown = comfy.client.get("/view", params=first)
    assert shown.content == content and shown.headers["content-type"] == "image/png"
    assert comfy.client.get("/view", params={"filename": f"{first['filename']} [output]"}).content == content
    assert read_png_text(shown.content) == {"prompt": "{}"}
    small = comfy.client.get("/view", params={**first, "preview": "webp;50"})
    assert small.headers["content-type"] == "image/webp" and Image.open(io.BytesIO(small.content)).format == "WEBP"
    error_of(comfy.client.get("/view", params={**first, "type": "temp"}), 404)
    error_of(comfy.client.get("/view", params={"filename": "ComfyUI_00077_.png"}), 404)
    error_of(comfy.client.get("/view", params={"filename": "Other_00001_.png"}), 404)
    error_of(comfy.client.get("/view"), 400)


def test_a_picture_of_one_job_starts_another(comfy: ComfyServer) -> None:
    """`ComfyUI_00001_.png [output]` in a Load Image node becomes the name that lasts: its content's."""
    prompt_id = comfy.queue()
    comfy.worker.run(prompt_id, png(1))
    (picture,) = comfy.history_of(prompt_id)["outputs"]["9"]["images"]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"{picture['filename']} [output]"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "again"}},
    }
    sha256 = comfy.services.artifacts()[0].artifact.sha256
    assert comfy.services.job(comfy.queue(graph)).graph["1"]["inputs"]["image"] == f"{sha256}.png [output]"


def test_jobs_of_other_doors_are_there_too_whatever_they_carry(comfy: ComfyServer) -> None:
    body = {"graph": txt2img(), "extra": {"door": 3, "workflow": [1]}}
    prompt_id = comfy.client.post("/api/v1/jobs", json=body).json()["job_id"]
    assert comfy.get("/queue")["queue_pending"][0][:2] == [1, prompt_id]
    comfy.worker.run(prompt_id, png(1))
    assert comfy.history_of(prompt_id)["outputs"]["9"]["images"]
    assert comfy.get("/jobs")["jobs"][0]["workflow_id"] is None


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    with comfy_server(tmp_path) as before:
        done, waiting = before.queue(txt2img(1)), before.queue(txt2img(2))
        before.worker.run(done, png(1))
        entry = before.history_of(done)
    with comfy_server(tmp_path) as after:
        assert after.history_of(done) == entry
        assert [job[1] for job in after.get("/queue")["queue_pending"]] == [waiting]


def test_a_failure_is_in_the_history_in_words(comfy: ComfyServer) -> None:
    prompt_id = comfy.queue()
    claim = comfy.worker.claim(prompt_id)
    comfy.worker.enter(claim, "3")
    comfy.worker.fail(claim, "out_of_memory", "Node 3 ran out of memory.", "3")
    entry = comfy.history_of(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    name, data = entry["status"]["messages"][-1]
    assert name == "execution_error" and data["exception_message"] == "Node 3 ran out of memory."
    job = comfy.get(f"/api/jobs/{prompt_id}")
    assert job["status"] == "failed" and job["execution_error"] == data


def test_the_newest_entries_are_given_in_the_order_of_time(comfy: ComfyServer) -> None:
    made = [comfy.queue(txt2img(seed)) for seed in range(4)]
    for prompt_id in made:
        comfy.worker.run(prompt_id)
    assert list(comfy.get("/history")) == made
    assert list(comfy.get("/history", max_items=2)) == made[2:]
    assert list(comfy.get("/history", max_items=2, offset=1)) == made[1:3]
    assert list(comfy.get("/history", max_items=-1)) == made
    error_of(comfy.client.get("/history?max_items=many"), 400)


def test_what_is_deleted_from_the_history_stays_away_from_it_alone(tmp_path: Path) -> None:
    with comfy_server(tmp_path) as comfy:
        first, second, third = [comfy.queue(txt2img(seed)) for seed in range(3)]
        comfy.worker.run(first)
        comfy.worker.run(second)
        assert comfy.client.post("/history", json={"delete": [first, "unknown"]}).status_code == 200
        assert list(comfy.get("/history")) == [second] and comfy.get(f"/history/{first}") == {}
    with comfy_server(tmp_path) as comfy:
        assert list(comfy.get("/history")) == [second]
        comfy.client.post("/api/history", json={"clear": True})
        assert comfy.get("/history") == {}
        comfy.worker.run(third)
        assert list(comfy.get("/history")) == [third]
        assert len(comfy.services.jobs()) == 3  # the store forgets nothing


def test_what_waits_can_be_deleted_and_what_runs_goes_on(comfy: ComfyServer) -> None:
    running, waiting, other = [comfy.queue(txt2img(seed)) for seed in range(3)]
    comfy.worker.claim(running)
    assert [job[1] for job in comfy.get("/queue")["queue_running"]] == [running]
    comfy.client.post("/queue", json={"delete": [running, waiting]})
    states = [comfy.services.job(job_id) for job_id in (running, waiting, other)]
    assert [job.state.value for job in states] == ["running", "cancelled", "queued"]
    assert not states[0].cancel_requested
    comfy.client.post("/queue", json={"clear": True})
    assert comfy.get("/queue")["queue_pending"] == [] and comfy.get("/history") == {}


@pytest.mark.parametrize("body", [{}, {"prompt_id": "running"}])
def test_an_interrupt_stops_what_runs(comfy: ComfyServer, body: dict[str, str]) -> None:
    running, waiting = comfy.queue(txt2img(1)), comfy.queue(txt2img(2))
    claim = comfy.worker.claim(running)
    comfy.worker.enter(claim, "3")
    assert comfy.client.post("/interrupt", json={"prompt_id": waiting}).status_code == 200
    assert not comfy.services.job(running).cancel_requested  # the other one does not run
    comfy.client.post("/interrupt", json={"prompt_id": running} if body else body)
    assert comfy.services.job(running).cancel_requested
    assert comfy.services.job(waiting).state is JobState.QUEUED
    comfy.worker.stop(claim)
    status = comfy.history_of(running)["status"]
    assert status["status_str"] == "error" and status["messages"][-1][0] == "execution_interrupted"


def test_current_frontends_find_everything_in_the_list_of_jobs(comfy: ComfyServer) -> None:
    workflow = {"extra_pnginfo": {"workflow": {"id": "w1"}}}
    done, failed, running = [comfy.queue(txt2img(seed)) for seed in range(3)]
    waiting = comfy.queue(txt2img(3), extra_data=workflow)
    comfy.worker.run(done, png(1))
    comfy.worker.fail(comfy.worker.claim(failed), "unexpected", "It broke.", None)
    comfy.worker.claim(running)
    listed = comfy.get("/api/jobs")
    assert [(job["id"], job["status"]) for job in listed["jobs"]] == [
        (waiting, "pending"), (running, "in_progress"), (failed, "failed"), (done, "completed")
    ]  # fmt: skip
    assert listed["pagination"] == {"offset": 0, "limit": None, "total": 4, "has_more": False}
    finished = listed["jobs"][3]
    assert (finished["outputs_count"], finished["previewable_outputs_count"]) == (1, 1)
    assert finished["preview_output"]["nodeId"] == "9" and finished["preview_output"]["mediaType"] == "images"
    assert finished["create_time"] <= finished["execution_start_time"] <= finished["execution_end_time"]
    page = comfy.get("/jobs", status="completed,failed", sort_order="asc", limit=1)
    assert [job["id"] for job in page["jobs"]] == [done] and page["pagination"]["has_more"]
    assert [job["id"] for job in comfy.get("/jobs", workflow_id="w1")["jobs"]] == [waiting]
    detail = comfy.get(f"/jobs/{done}")
    assert detail["outputs"]["9"]["images"] and detail["workflow"]["prompt"] == txt2img(0)
    assert detail["execution_status"]["status_str"] == "success"
    error_of(comfy.client.get("/jobs?status=lost"), 400)
    error_of(comfy.client.get("/jobs?sort_by=colour"), 400)
    error_of(comfy.client.get(f"/jobs/{uuid.uuid4()}"), 404)


def test_jobs_are_cancelled_one_by_one(comfy: ComfyServer) -> None:
    first, second, third = [comfy.queue(txt2img(seed)) for seed in range(3)]
    assert comfy.client.post(f"/api/jobs/{first}/cancel").json() == {"cancelled": True}
    assert comfy.client.post(f"/api/jobs/{first}/cancel").json() == {"cancelled": False}
    assert comfy.client.post("/api/jobs/cancel", json={"job_ids": [second, "unknown"]}).json() == {"cancelled": True}
    error_of(comfy.client.post("/api/jobs/cancel", json={}), 400)
    states = [comfy.services.job(job_id).state.value for job_id in (first, second, third)]
    assert states == ["cancelled", "cancelled", "queued"]
