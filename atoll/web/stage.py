"""The right side's upper half: the job on show and the jobs that wait. The browser side is stage.js."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui.element import Element

from atoll.web.job_view import JobView, describe_job
from atoll.web.text import Words

# Captions that the built-in model knows; they stay English because its text encoder does.
EXAMPLES = {
    "example_1": "a red apple, 3d style, blue background",
    "example_2": "a cat, flat style, yellow background",
    "example_3": "a sailing boat, 3d style, white background",
}


class Stage(Element, component="stage.js"):
    def __init__(self, words: Words, handlers: dict[str, Callable[[Any], Any]]) -> None:
        """`handlers` by event: example(prompt), cancel(job), show(job), open(sha256), reuse(sha256), start(url)."""
        super().__init__()
        self._words = words
        self.show(None)
        self.show_queue([])
        for event, handler in handlers.items():
            self.on(event, handler)

    def show(self, view: JobView | None) -> None:
        if view is None:
            examples = [{"prompt": prompt, "label": self._words[key]} for key, prompt in EXAMPLES.items()]
            self.props["view"] = {"phase": "empty", "title": "", "examples": examples}
        else:
            self.props["view"] = describe_job(view, self._words)

    def show_queue(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Jobs that wait or run: {job_id, state, prompt}, the next one first."""
        self.props["queue"] = [
            {
                **job,
                "state_words": self._words["queue_running" if job["state"] == "running" else "queue_waiting"],
                "cancel_words": self._words("queue_cancel", prompt=job["prompt"]),
            }
            for job in jobs
        ]
