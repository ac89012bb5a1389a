"""What a page knows of a job follows from the job's events alone."""

from __future__ import annotations

import itertools
from typing import Any

from atoll.jobs.events import Event, EventKind
from atoll.web.job_view import JobView, describe_job
from atoll.web.text import Words

ENGLISH = Words("en")
ARTIFACT = {
    "sha256": "ab" * 32, "filename": "tiny_00001_.png", "media_type": "image/png", "size_bytes": 9, "width": 64,
    "height": 64, "kind": "output", "node_id": "7", "index": 0,
}  # fmt: skip


def told(view: JobView, *events: tuple[EventKind, float, dict[str, Any]]) -> JobView:
    for seq, (kind, time, data) in zip(itertools.count(1), events, strict=False):
        view.apply(Event(seq, view.job_id, kind, data, time))
    return view


def step(number: int, total: int, time: float, node: str = "3", preview: str | None = None) -> Any:
    return EventKind.STEP, time, {"node_id": node, "step": number, "total": total, "preview": preview}


def test_a_job_goes_from_waiting_over_its_steps_to_its_pictures() -> None:
    view = JobView("a", prompt="a cat", seed=2**63)
    assert describe_job(view, ENGLISH)["title"] == "Waiting in the queue"
    told(view, (EventKind.QUEUED, 0, {}), (EventKind.RUNNING, 1, {}))
    assert describe_job(view, ENGLISH)["fraction"] is None
    told(view, step(3, 20, 2, preview="AAAA"))
    drawn = describe_job(view, ENGLISH)
    assert (drawn["title"], drawn["fraction"]) == ("Step 3 of 20", 3 / 20)
    assert drawn["preview"] == "data:image/jpeg;base64,AAAA"
    told(view, (EventKind.ARTIFACT, 3, ARTIFACT), (EventKind.DONE, 3, {}))
    drawn = describe_job(view, ENGLISH)
    assert view.ended
    assert drawn["phase"] == "done"
    assert drawn["pictures"][0]["url"].endswith(f"{'ab' * 32}/file")
    assert drawn["pictures"][0]["seed"] == str(2**63), "a seed beyond 2^53 must not become a JavaScript number"


def test_the_first_step_does_not_count_for_the_time_left() -> None:
    view = told(JobView("a"), (EventKind.RUNNING, 0, {}), step(1, 11, 30))  # 30 s, because a model was loaded
    assert view.seconds_left is None
    told(view, step(2, 11, 31), step(3, 11, 32))
    assert view.seconds_left == 8
    assert describe_job(view, ENGLISH)["detail"] == "about 8 s left"


def test_a_second_sampler_of_the_graph_is_timed_by_itself() -> None:
    view = told(JobView("a"), (EventKind.RUNNING, 0, {}), step(1, 4, 1), step(4, 4, 4), step(1, 9, 10, node="8"))
    assert view.seconds_left is None
    told(view, step(2, 9, 12, node="8"))
    assert view.seconds_left == 14


def test_a_preview_stays_until_a_newer_one_comes() -> None:
    view = told(JobView("a"), (EventKind.RUNNING, 0, {}), step(1, 4, 1, preview="AA"), step(2, 4, 2))
    assert view.preview == "AA"


def test_a_job_whose_worker_died_starts_over() -> None:
    view = told(
        JobView("a"),
        (EventKind.RUNNING, 0, {}),
        step(5, 9, 1, preview="AA"),
        (EventKind.REQUEUED, 2, {"reason": "died"}),
    )
    drawn = describe_job(view, ENGLISH)
    assert (drawn["phase"], drawn["preview"]) == ("waiting", None)
    assert drawn["detail"] == ENGLISH["requeued"]
    told(view, (EventKind.RUNNING, 3, {}))
    assert describe_job(view, ENGLISH)["fraction"] is None


def test_a_failure_is_told_in_its_own_words() -> None:
    view = told(JobView("a"), (EventKind.FAILED, 1, {"code": "out_of_memory", "message": "Node 3 ran out of memory."}))
    assert describe_job(view, ENGLISH)["detail"] == "Node 3 ran out of memory."


def test_temporary_pictures_are_no_results() -> None:
    view = told(JobView("a"), (EventKind.ARTIFACT, 1, ARTIFACT | {"kind": "temp"}), (EventKind.DONE, 2, {}))
    assert view.artifacts == []
