"""The websockets of ComfyUI's clients: who listens, and what each is told.

One follower reads the job store's events for all sockets. Each socket has a queue of its own, so a slow client holds up
nobody, and what belongs to a job goes to the client that handed it in and to no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from atoll.api.comfy.artifact_names import outputs_by_node
from atoll.api.comfy.features import SERVER_FEATURES
from atoll.api.comfy.job_record import MOST_ARTIFACTS, DoorNotes, replay_events
from atoll.api.comfy.messages import JobMessages, Message, Preview
from atoll.api.comfy.prompt import queue_info
from atoll.api.services import StudioServices
from atoll.errors import AtollError
from atoll.jobs.events import Event, EventKind
from atoll.jobs.job import Job, JobState

SEND_WITHIN_S = 20.0  # a client that takes nothing for so long has gone
CLOSE_WITHIN_S = 2.0
MOST_UNSENT = 5_000  # messages; who is so far behind can read the history
RETRY_S = 1.0
QUEUE_CHANGES = {EventKind.QUEUED, EventKind.RUNNING, EventKind.REQUEUED}

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Listener:
    """A client's socket and what it still has to be sent.

    unsent: texts, and None in the place of a preview. held: what is told before the greeting; None after it.
    """

    client_id: str
    socket: WebSocket
    joined_at: float
    unsent: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    held: list[Message] | None = field(default_factory=list)
    preview: bytes | None = None
    announced: bool = False  # it told its features, so it knows what binary messages are
    takes_metadata: bool = False

    def tell(self, message: Message) -> None:
        if self.held is not None:
            self.held.append(message)
        else:
            self.unsent.put_nowait(message.to_text())

    def greet(self, greeting: list[Message]) -> None:
        """The first messages, then what was told meanwhile."""
        held, self.held = self.held or [], None
        for message in [*greeting, *held]:
            self.tell(message)

    def tell_all(self, told: list[Message | Preview], *, previews: bool) -> None:
        for message in told:
            if isinstance(message, Message):
                self.tell(message)
            elif previews:
                self.show(message)

    def show(self, preview: Preview) -> None:
        """Only the newest preview waits: who falls behind is not sent old ones, and nobody any before the greeting."""
        if self.held is not None:
            return
        is_waiting = self.preview is not None
        self.preview = preview.to_bytes(with_metadata=self.takes_metadata)
        if not is_waiting:
            self.unsent.put_nowait(None)

    async def send_all(self) -> None:
        """Send until the client is gone, takes nothing any more, or is replaced."""
        with contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
            while self.unsent.qsize() <= MOST_UNSENT:
                text = await self.unsent.get()
                if text is not None:
                    await asyncio.wait_for(self.socket.send_text(text), SEND_WITHIN_S)
                elif self.preview is not None:
                    preview, self.preview = self.preview, None
                    await asyncio.wait_for(self.socket.send_bytes(preview), SEND_WITHIN_S)
        with contextlib.suppress(RuntimeError, TimeoutError):
            await asyncio.wait_for(self.socket.close(), CLOSE_WITHIN_S)


@dataclass
class FollowedJob:
    """A job that has not ended, as far as the hub has told it."""

    job: Job
    client_id: str | None
    preview_method: str
    messages: JobMessages

    @classmethod
    def of(cls, job: Job) -> FollowedJob:
        notes = DoorNotes.of(job)
        method = (notes.extra_data or {}).get("preview_method")
        return cls(job, notes.client_id, method if isinstance(method, str) else "default", JobMessages(job))

    def shows_previews_to(self, listener: Listener) -> bool:
        """ComfyUI sends none unless it is started so, and some programs take every binary message for a result.

        So they go to who announced its features, who asked for them, and who was there before its job was.
        """
        if self.preview_method in ("default", ""):
            return listener.announced or listener.joined_at <= self.job.submitted_at
        return self.preview_method != "none"


class SocketHub:
    """Follows the job store for as long as somebody listens. Lives on the server's event loop."""

    def __init__(self, services: StudioServices) -> None:
        self._services = services
        self._listeners: dict[str, Listener] = {}
        self._jobs: dict[str, FollowedJob] = {}
        self._follower: asyncio.Task[None] | None = None

    async def serve(self, socket: WebSocket, client_id: str) -> None:
        """One client, from its greeting to its end. A client that comes back with its id takes its old place."""
        listener = Listener(client_id or uuid.uuid4().hex, socket, time.time())
        sender = asyncio.create_task(listener.send_all())
        try:
            await self._join(listener)  # before it is let in, so that it misses nothing of what it then asks for
            await socket.accept()
            await self._greet(listener)
            await self._hear(listener)
        except (WebSocketDisconnect, RuntimeError):  # gone, or closed by us
            pass
        except AtollError as error:  # the store is away; the client comes again
            logger.warning("A client of ComfyUI's kind is turned away: %s", error)
            with contextlib.suppress(RuntimeError):
                await socket.close(1011)
        finally:
            sender.cancel()
            self._leave(listener)
            with contextlib.suppress(asyncio.CancelledError):
                await sender

    async def _join(self, listener: Listener) -> None:
        if self._follower is None:
            after = await asyncio.to_thread(self._services.last_event_number)
            if self._follower is None:
                self._follower = asyncio.create_task(self._follow(after))
        replaced = self._listeners.get(listener.client_id)
        self._listeners[listener.client_id] = listener
        if replaced is not None:
            with contextlib.suppress(RuntimeError):
                await replaced.socket.close()

    async def _greet(self, listener: Listener) -> None:
        status = await asyncio.to_thread(queue_info, self._services)
        greeting = [Message("status", {"status": status, "sid": listener.client_id})]
        for job in await asyncio.to_thread(self._running_jobs, listener.client_id):
            messages = await asyncio.to_thread(self._replayed, job)
            if messages.node_id is not None:
                greeting.append(_executing(job.job_id, messages.node_id))
        listener.greet(greeting)

    def _leave(self, listener: Listener) -> None:
        if self._listeners.get(listener.client_id) is listener:
            del self._listeners[listener.client_id]
        if not self._listeners and self._follower is not None:
            self._follower.cancel()
            self._follower = None
            self._jobs.clear()

    async def _hear(self, listener: Listener) -> None:
        """What a client says: which features it has. Anything else is passed over."""
        while True:
            message = await listener.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            features = _features_in(message.get("text"))
            if features is not None:
                listener.announced = True
                listener.takes_metadata = bool(features.get("supports_preview_metadata"))
                listener.tell(Message("feature_flags", SERVER_FEATURES))

    async def _follow(self, after: int) -> None:
        while True:
            try:
                async with aclosing(self._services.events(after=after)) as events:  # type: ignore[type-var]
                    async for event in events:
                        await self._tell_safely(event)
                        after = event.seq
            except AtollError as error:  # the store is away for a moment
                logger.warning("ComfyUI's clients wait for news: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _tell_safely(self, event: Event) -> None:
        try:
            await self._tell(event)
        except AtollError:
            raise
        except Exception:  # one event that cannot be told must not silence all that follow
            logger.exception("Event %s of job %s could not be told to ComfyUI's clients.", event.seq, event.job_id)

    async def _tell(self, event: Event) -> None:
        client = None
        if event.kind is not EventKind.QUEUED:  # thousands may wait, of which nothing need be known yet
            client = await self._tell_client(event)
        if event.kind in QUEUE_CHANGES or event.kind.is_terminal:
            status = Message("status", {"status": await asyncio.to_thread(queue_info, self._services)})
            for listener in self._listeners.values():
                listener.tell(status)
        if event.kind.is_terminal and client is not None:
            client.tell(_executing(event.job_id, None))

    async def _tell_client(self, event: Event) -> Listener | None:
        """Tell the client that handed the job in, and say which one that is, if it listens."""
        followed = self._jobs.get(event.job_id)
        if followed is None:
            followed = self._jobs[event.job_id] = await asyncio.to_thread(self._start_following, event)
        outputs = await asyncio.to_thread(self._outputs, followed.job) if event.kind is EventKind.DONE else None
        told = followed.messages.apply(event, outputs)
        listener = self._listeners.get(followed.client_id or "")
        if listener is not None:
            listener.tell_all(told, previews=followed.shows_previews_to(listener))
        if event.kind.is_terminal:
            del self._jobs[event.job_id]
        return listener

    def _start_following(self, event: Event) -> FollowedJob:
        followed = FollowedJob.of(self._services.job(event.job_id))
        replay_events(self._services, followed.messages, event.job_id, before=event.seq)
        return followed

    def _outputs(self, job: Job) -> dict[str, Any]:
        entries = self._services.artifacts(job_id=job.job_id, kind=None, limit=MOST_ARTIFACTS)
        return outputs_by_node(entries, job.graph)

    def _running_jobs(self, client_id: str) -> list[Job]:
        running = self._services.jobs(states={JobState.RUNNING}, limit=100)
        return [job for job in running if DoorNotes.of(job).client_id == client_id]

    def _replayed(self, job: Job) -> JobMessages:
        messages = JobMessages(job)
        replay_events(self._services, messages, job.job_id)
        return messages


def _executing(prompt_id: str, node_id: str | None) -> Message:
    """Node None says that the job has ended and its history is written."""
    if node_id is None:
        return Message("executing", {"node": None, "prompt_id": prompt_id})
    return Message("executing", {"node": node_id, "display_node": node_id, "prompt_id": prompt_id})


def _features_in(text: object) -> dict[str, Any] | None:
    """The data of a client's `feature_flags`; None if the text is anything else."""
    try:
        message = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != "feature_flags":
        return None
    features = message.get("data")
    return features if isinstance(features, dict) else {}
