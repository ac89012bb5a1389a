"""A job's events as ComfyUI's messages: their order, their data, and what history keeps of them."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from comfy_door import JPEG, txt2img

from atoll.api.comfy.messages import JobMessages, Message, Preview
from atoll.jobs.events import Event, EventKind
from atoll.jobs.job import Job, JobState

JOB = Job("abc", 1, "local", txt2img(), {}, 0, JobState.RUNNING, False, 1, 100.0)
OUTPUTS = {"9": {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]}}


def tell(messages: JobMessages, kind: EventKind, **data: Any) -> list[Message | Preview]:
    outputs = OUTPUTS if kind is EventKind.DONE else None
    return messages.apply(Event(1, "abc", kind, data, 101.5), outputs)


def types(told: list[Message | Preview]) -> list[str]:
    return [message.type if isinstance(message, Message) else "preview" for message in told]


def test_one_node_after_the_other_then_outputs_then_success() -> None:
    messages = JobMessages(JOB)
    told = tell(messages, EventKind.QUEUED, priority=0)
    told += tell(messages, EventKind.RUNNING, worker="w", attempt=1)
    told += tell(messages, EventKind.NODE, node_id="3", class_type="KSampler")
    told += tell(messages, EventKind.NODE, node_id="9", class_type="SaveImage")
    told += tell(messages, EventKind.DONE, seconds=1)
    assert types(told) == [
        "execution_start", "execution_cached",
        "progress_state", "executing",
        "progress_state", "progress_state", "executing",
        "progress_state", "executed", "execution_success",
    ]  # fmt: skip
    data = [message.data for message in told if isinstance(message, Message)]
    assert data[0] == {"prompt_id": "abc", "timestamp": 101500}
    assert data[1] == {"prompt_id": "abc", "nodes": [], "timestamp": 101500}
    assert data[3] == {"prompt_id": "abc", "node": "3", "display_node": "3"}
    assert data[2]["nodes"]["3"] == {
        "value": 0, "max": 1, "state": "running", "prompt_id": "abc", "node_id": "3", "display_node_id": "3",
        "real_node_id": "3", "parent_node_id": None,
    }  # fmt: skip
    assert {node: entry["state"] for node, entry in data[7]["nodes"].items()} == {"3": "finished", "9": "finished"}
    assert data[8] == {"prompt_id": "abc", "node": "9", "display_node": "9", "output": OUTPUTS["9"]}
    assert [message.type for message in messages.kept] == ["execution_start", "execution_cached", "execution_success"]


def test_remembered_nodes_are_told_once_and_count_as_executed() -> None:
    messages = JobMessages(JOB)
    tell(messages, EventKind.RUNNING)
    (cached,) = tell(messages, EventKind.CACHED, node_ids=["4", "6"])
    assert isinstance(cached, Message) and cached.data["nodes"] == ["4", "6"]
    assert types(tell(messages, EventKind.NODE, node_id="3", class_type="KSampler")) == ["progress_state", "executing"]
    (failed,) = tell(messages, EventKind.FAILED, code="unexpected", message="It broke.", node_id="3")
    assert isinstance(failed, Message) and failed.data["executed"] == ["4", "6"]


def test_a_step_is_progress_and_a_picture() -> None:
    messages = JobMessages(JOB)
    tell(messages, EventKind.RUNNING)
    tell(messages, EventKind.NODE, node_id="3", class_type="KSampler")
    encoded = base64.b64encode(JPEG).decode()
    progress, state, preview = tell(messages, EventKind.STEP, node_id="3", step=4, total=20, preview=encoded)
    assert isinstance(progress, Message) and isinstance(state, Message) and isinstance(preview, Preview)
    assert progress.data == {"prompt_id": "abc", "value": 4, "max": 20, "node": "3"}
    assert (state.data["nodes"]["3"]["value"], state.data["nodes"]["3"]["max"]) == (4, 20)

    plain = preview.to_bytes(with_metadata=False)
    assert struct.unpack(">II", plain[:8]) == (1, 1) and plain[8:] == JPEG
    described = preview.to_bytes(with_metadata=True)
    kind, length = struct.unpack(">II", described[:8])
    metadata = json.loads(described[8 : 8 + length])
    assert kind == 4 and described[8 + length :] == JPEG
    assert metadata["node_id"] == metadata["display_node_id"] == "3" and metadata["prompt_id"] == "abc"
    assert metadata["image_type"] == "image/jpeg"


def test_a_failure_says_where_and_what() -> None:
    messages = JobMessages(JOB)
    tell(messages, EventKind.RUNNING)
    tell(messages, EventKind.NODE, node_id="3", class_type="KSampler")
    told = tell(messages, EventKind.FAILED, code="out_of_memory", message="Node 3 ran out of memory.", node_id="3")
    assert types(told) == ["execution_error"]
    error = messages.error
    assert error is not None and (error["node_id"], error["node_type"]) == ("3", "KSampler")
    assert error["exception_message"] == "Node 3 ran out of memory."
    assert error["exception_type"] == "torch.OutOfMemoryError" and error["traceback"] == []
    assert error["current_inputs"]["steps"] == [2] and "model" not in error["current_inputs"]


def test_a_job_that_runs_again_starts_from_the_beginning() -> None:
    messages = JobMessages(JOB)
    tell(messages, EventKind.RUNNING)
    tell(messages, EventKind.NODE, node_id="3", class_type="KSampler")
    assert tell(messages, EventKind.REQUEUED, reason="died") == [] and messages.node_id is None
    tell(messages, EventKind.RUNNING)
    told = tell(messages, EventKind.NODE, node_id="4", class_type="CheckpointLoaderSimple")
    assert types(told) == ["execution_cached", "progress_state", "executing"]
    tell(messages, EventKind.DONE)
    assert [message.type for message in messages.kept] == ["execution_start", "execution_cached", "execution_success"]


def test_only_what_had_started_can_be_interrupted() -> None:
    waiting = JobMessages(JOB)
    tell(waiting, EventKind.QUEUED, priority=0)
    assert tell(waiting, EventKind.CANCELLED) == []
    running = JobMessages(JOB)
    tell(running, EventKind.RUNNING)
    tell(running, EventKind.NODE, node_id="3", class_type="KSampler")
    (told,) = tell(running, EventKind.CANCELLED)
    assert isinstance(told, Message) and told.type == "execution_interrupted"
    assert (told.data["node_id"], told.data["node_type"]) == ("3", "KSampler")
