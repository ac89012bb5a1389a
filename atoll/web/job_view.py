"""What the page knows of the job it shows, gathered from the job's events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from atoll.jobs.events import Event, EventKind
from atoll.web.text import Words

Phase = Literal["empty", "waiting", "running", "done", "failed", "cancelled"]


@dataclass
class JobView:
    """One job as its owner sees it. `prompt`, `width`, `height` and `seed` are the request's, None if it has none."""

    job_id: str
    prompt: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    phase: Phase = "waiting"
    step: int = 0
    total: int = 0
    seconds_left: float | None = None
    preview: str | None = None  # base64 of a JPEG
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None
    requeued: bool = False
    cancelling: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    _pace_node: str | None = None  # the node whose steps are timed, and when its first step ended
    _pace_from: tuple[int, float] = (0, 0.0)

    @property
    def ended(self) -> bool:
        return self.phase in ("done", "failed", "cancelled")

    def apply(self, event: Event) -> None:
        """Take in one event; events come in the order of their numbers."""
        data = event.data
        match event.kind:
            case EventKind.QUEUED:
                self.phase = "waiting"
            case EventKind.RUNNING:
                self.phase, self.started_at = "running", event.time
                self.step = self.total = 0
                self.seconds_left, self._pace_node = None, None
            case EventKind.REQUEUED:
                self.phase, self.requeued, self.preview, self.artifacts = "waiting", True, None, []
            case EventKind.STEP:
                self._take_step(data, event.time)
            case EventKind.ARTIFACT:
                if data.get("kind", "output") == "output":
                    self.artifacts.append(dict(data))
            case EventKind.DONE:
                self.phase, self.finished_at = "done", event.time
            case EventKind.FAILED:
                self.phase, self.failure = "failed", str(data.get("message", ""))
            case EventKind.CANCELLED:
                self.phase = "cancelled"

    def _take_step(self, data: dict[str, Any], now: float) -> None:
        self.step, self.total = int(data["step"]), int(data["total"])
        self.preview = data.get("preview") or self.preview
        if self._pace_node != data.get("node_id"):
            # The first step of a node also pays for what is warmed up in it, so the pace is taken from its end on.
            self._pace_node, self._pace_from = data.get("node_id"), (self.step, now)
            self.seconds_left = None
            return
        first, since = self._pace_from
        if self.step > first:
            self.seconds_left = (now - since) / (self.step - first) * (self.total - self.step)


def describe_job(view: JobView, words: Words) -> dict[str, Any]:
    """The view as stage.js draws it: every word chosen, every number ready."""
    title, detail = _words_of(view, words)
    counting = view.phase == "running" and view.total > 0
    return {
        "job_id": view.job_id,
        "phase": view.phase,
        "title": title,
        "detail": detail,
        "spoken": words["waiting"] if view.phase == "waiting" else words["starting"],
        "fraction": view.step / view.total if counting else None,
        "preview": f"data:image/jpeg;base64,{view.preview}" if view.preview else None,
        "prompt": view.prompt or "",
        "width": view.width or 1,
        "height": view.height or 1,
        "cancelling": view.cancelling,
        "took": _time_taken(view, words),
        "pictures": [_describe_artifact(view, artifact) for artifact in view.artifacts],
    }


def _words_of(view: JobView, words: Words) -> tuple[str, str]:
    match view.phase:
        case "waiting":
            return words["waiting"], words["requeued"] if view.requeued else ""
        case "running" if not view.total:
            return words["starting"], ""
        case "running" if view.step >= view.total:
            return words["finishing"], ""
        case "running":
            return words("step_of", step=view.step, total=view.total), _time_left(view.seconds_left, words)
        case "done":
            count = len(view.artifacts)
            return words["done_one"] if count == 1 else words("done_many", count=count), ""
        case "failed":
            return words["failed"], view.failure or ""
        case "cancelled":
            return words["cancelled"], words["cancelled_hint"]
    return "", ""


def _time_left(seconds: float | None, words: Words) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return words("seconds_left", seconds=max(1, round(seconds)))
    return words("minutes_left", minutes=round(seconds / 60))


def _time_taken(view: JobView, words: Words) -> str:
    if view.started_at is None or view.finished_at is None:
        return ""
    return words("took", seconds=f"{view.finished_at - view.started_at:.1f}")


def _describe_artifact(view: JobView, artifact: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": f"{artifact['sha256']}-{artifact['node_id']}-{artifact['index']}",
        "sha256": artifact["sha256"],
        "url": f"/api/v1/artifacts/{artifact['sha256']}/file",
        "filename": artifact["filename"],
        "width": artifact["width"],
        "height": artifact["height"],
        "seed": str(view.seed) if view.seed is not None else None,  # as text: it may be beyond what JavaScript counts
        "label": f"{view.prompt or ''} {artifact['width']} × {artifact['height']}".strip(),
    }
