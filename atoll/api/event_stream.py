"""Events as they happen, for any number of listeners, none of whom can hold up the work or another listener.

A listener reads numbered rows at its own pace, so a slow one only falls behind and a vanished one costs nothing.
One watcher looks for new rows on behalf of all of them; news from the worker makes it look at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from atoll.jobs.events import Event, EventKind
from atoll.jobs.store import JobStore

LOOK_EVERY_S = 0.25  # when no news comes: a worker of another process may have written
PAGE = 200  # events read at once


class EventStream:
    """Follows the store's events on the loop that its first listener runs on."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._wakes: set[asyncio.Event] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def notify(self) -> None:
        """Something was written. From any thread."""
        loop, news = self._loop, self._news
        if loop is not None and news is not None and not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    async def follow(self, job_id: str | None = None, *, after: int = 0) -> AsyncIterator[Event]:
        """Events numbered above `after`, then each as it happens; of one job until its last, of all for ever.

        Who falls behind gets every event, but of the previews only the newest.
        Raises: NotFound.
        """
        has_ended = job_id is not None and (await asyncio.to_thread(self._store.get, job_id)).state.is_terminal
        wake = asyncio.Event()
        self._add(wake)
        try:
            while True:
                wake.clear()  # before reading: what is written from here on wakes again
                page = await asyncio.to_thread(self._store.events, job_id, after=after, limit=PAGE)
                for event in _with_newest_previews(page):
                    yield event
                    after = event.seq
                    if job_id is not None and event.kind.is_terminal:
                        return
                if len(page) == PAGE:
                    continue
                if has_ended:  # they had seen the last event before
                    return
                await wake.wait()
        finally:
            self._remove(wake)

    def _add(self, wake: asyncio.Event) -> None:
        self._wakes.add(wake)
        if self._watcher is None or self._watcher.done():
            self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
            self._watcher = asyncio.create_task(self._watch(self._news))

    def _remove(self, wake: asyncio.Event) -> None:
        self._wakes.discard(wake)
        if not self._wakes and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self, news: asyncio.Event) -> None:
        seen = -1
        while True:
            try:
                await asyncio.wait_for(news.wait(), LOOK_EVERY_S)
                news.clear()
            except TimeoutError:  # no news: look whether somebody wrote who can't tell us
                try:
                    latest = await asyncio.to_thread(self._store.last_seq)
                except Exception:  # the database is away: each listener meets that itself, in its own words
                    latest = -1
                if latest == seen != -1:
                    continue
                seen = latest
            for wake in self._wakes:
                wake.set()


def _with_newest_previews(page: Sequence[Event]) -> list[Event]:
    """The page without the previews that a later preview of the same job overtakes; most steps carry none."""
    shown = [event for event in page if event.kind is EventKind.STEP and event.data.get("preview")]
    newest = {event.job_id: event.seq for event in shown}
    overtaken = {event.seq for event in shown if newest[event.job_id] != event.seq}
    return [replace(event, data={**event.data, "preview": None}) if event.seq in overtaken else event for event in page]
