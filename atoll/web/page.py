"""The page at `/`: what an artist sees. It fills in requests and shows what the services tell; it decides nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from nicegui import background_tasks, ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from atoll.api.faults import FaultyRequest
from atoll.api.image_request import ImageDefaults, complete_request, parse_image_request
from atoll.api.services import REQUEST_KEY, StudioServices
from atoll.errors import AtollError
from atoll.jobs.events import EventKind
from atoll.jobs.job import Job, JobState
from atoll.web.gallery import Gallery
from atoll.web.job_view import JobView
from atoll.web.prompt_form import PromptForm
from atoll.web.stage import Stage
from atoll.web.text import HTML_LANGUAGE, LANGUAGES, Words

HERE = Path(__file__).parent
REDRAW_EVERY_S = 0.05  # steps of a small model come faster than anyone sees
REMEMBER_AFTER_S = 0.3
ASK_AGAIN_AFTER_S = 2.0
RECALL_TIMEOUT_S = 10.0
MAX_QUEUE_SHOWN = 100
MAX_JOBS_KNOWN = 100  # of one tab
MOVES = {EventKind.QUEUED, EventKind.RUNNING, EventKind.REQUEUED, EventKind.DONE, EventKind.FAILED, EventKind.CANCELLED}


class StudioPage:
    """One open tab. Its draft and the ids of its jobs live in the tab itself, so a reload finds both again."""

    def __init__(self, services: StudioServices, words: Words, theme: str | None) -> None:
        self.services = services
        self.words = words
        self.theme = theme
        self.client = ui.context.client
        self.jobs: list[str] = []  # this tab's, oldest first
        self.view: JobView | None = None
        self._following: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._redraw: asyncio.TimerHandle | None = None
        self._remember: asyncio.TimerHandle | None = None
        self._recalled = False
        self._submitting = False
        self.client.on_delete(self._leave)
        self.client.on_exception(self._say_unexpected)

    # --- building

    async def build(self) -> None:
        words, services = self.words, self.services
        checkpoints = await asyncio.to_thread(services.models, "checkpoints")
        vaes = await asyncio.to_thread(services.models, "vae")
        self._build_head()
        ui.dark_mode({"dark": True, "light": False}.get(self.theme or ""))
        TextElement(tag="a", text=words["skip_to_prompt"]).classes("skip").props("href=#field-prompt")
        self._build_top()
        with ui.element("main").classes("desk"):
            self.form = PromptForm(
                words,
                models=checkpoints,
                vaes=vaes,
                samplers=services.samplers(),
                schedulers=services.schedulers(),
                on_submit=self.submit,
                on_change=self._remember_soon,
                on_picture=self._fit_size,
            )
            with ui.element("div").classes("work").props("id=work"):
                self.stage = Stage(
                    words,
                    {
                        "example": lambda event: self.form.use_prompt(event.args),
                        "cancel": lambda event: self.cancel(event.args),
                        "show": lambda event: self.show(event.args),
                        "open": lambda event: self.gallery.open(event.args),
                        "reuse": lambda event: self.reuse(event.args),
                        "start": lambda event: self.form.well.take(event.args),
                    },
                )
                self.gallery = Gallery(
                    {
                        "look": self._describe,
                        "reuse": lambda event: self.reuse(event.args),
                        "start": lambda event: self.form.well.take(event.args),
                    }
                )
        if not checkpoints:
            self.form.show_trouble(words("models_missing", folder=services.settings.models_dir / "checkpoints"))

    def _build_head(self) -> None:
        background = {"dark": "html{background:#0d1213}", "light": "html{background:#f3f5f2}"}.get(
            self.theme or "", "@media (prefers-color-scheme: dark){html{background:#0d1213}}"
        )
        language = json.dumps(HTML_LANGUAGE[self.words.language])
        ui.add_head_html(
            f"<style>{background}</style><style>{(HERE / 'studio.css').read_text(encoding='utf-8')}</style>"
            f"<script>{(HERE / 'studio.js').read_text(encoding='utf-8')}"
            f"studio.texts = {json.dumps(self.words.all)}; document.documentElement.lang = {language};</script>"
        )
        ui.page_title(self.words["title"])

    def _build_top(self) -> None:
        words = self.words
        with ui.element("header").classes("top"):
            with ui.element("h1"):
                ui.html((HERE / "logo.svg").read_text(encoding="utf-8"), sanitize=False).props("aria-hidden=true")
                TextElement(tag="span", text="Atoll")
            with ui.element("div").classes("segment").props("role=group") as languages:
                languages.props["aria-label"] = words["language"]
                for code, name in LANGUAGES.items():
                    button = TextElement(tag="button", text=name).props(f"type=button lang={HTML_LANGUAGE[code]}")
                    chosen = code == words.language
                    button.props["aria-pressed"] = "true" if chosen else "false"
                    button.classes("on" if chosen else "")
                    button.on("click", lambda: None, js_handler=f"() => studio.language({json.dumps(code)})")
            with ui.element("button").classes("tool tool--icon").props("type=button id=theme") as theme:
                theme.props["aria-label"] = theme.props["title"] = words["switch_theme"]
                TextElement(tag="span", text="contrast").classes("icon").props("aria-hidden=true")
            theme.on("click", lambda: None, js_handler="() => studio.theme()")

    # --- the tab's memory

    async def start(self) -> None:
        """Once the browser is connected: recall the draft, find the running job, and watch what happens."""
        try:
            memory = await ui.run_javascript("studio.recall()", timeout=RECALL_TIMEOUT_S)
        except TimeoutError:
            memory = None
        if memory is None:  # the tab was closed meanwhile
            return
        self.form.fill(memory["draft"] or memory["last"] or {})
        self.jobs = list(memory["jobs"])
        self._recalled = True
        self._spawn(self._watch())
        if (job_id := await self._job_to_show()) is not None:
            await self.show(job_id)

    async def _job_to_show(self) -> str | None:
        """This tab's first job that still runs or waits; else its last one; else whatever runs."""
        known = [job for job in [await self._job(job_id) for job_id in self.jobs] if job is not None]
        for job in known:
            if not job.state.is_terminal:
                return job.job_id
        if known:
            return known[-1].job_id
        running = await asyncio.to_thread(self.services.jobs, states=[JobState.RUNNING], limit=1)
        return running[0].job_id if running else None

    async def _job(self, job_id: str) -> Job | None:
        try:
            return await asyncio.to_thread(self.services.job, job_id)
        except AtollError:
            return None

    def _remember_soon(self) -> None:
        if self._recalled and self._remember is None:
            self._remember = asyncio.get_running_loop().call_later(REMEMBER_AFTER_S, self._remember_now)

    def _remember_now(self) -> None:
        self._remember = None
        self._store("sessionStorage", "atoll-draft", self.form.draft())
        self._store("sessionStorage", "atoll-jobs", self.jobs)

    def _store(self, store: str, name: str, value: Any) -> None:
        # JSON of JSON is a JavaScript string literal.
        self.client.run_javascript(f"{store}.setItem('{name}', {json.dumps(json.dumps(value))})")

    # --- asking

    async def submit(self) -> None:
        if self._submitting:
            return
        self._submitting = True
        try:
            self.form.clear_faults()
            values = self.form.values()
            if (mask := await self.form.well.export_mask()) is not None:
                values["mask_image"] = mask
            request = parse_image_request(values)
            job = await asyncio.to_thread(self.services.submit_image, request)
        except FaultyRequest as error:
            self.form.show_faults(error.faults)
        except AtollError as error:
            self.form.show_trouble(error.message)
        except TimeoutError:
            self.form.show_trouble(self.words["mask_timeout"])
        else:
            self.jobs = [*self.jobs[1 - MAX_JOBS_KNOWN :], job.job_id]
            self._remember_now()
            self._store("localStorage", "atoll-last", self.form.draft() | {"start_picture": None, "seed": ""})
            if self.view is None or self.view.ended:
                await self.show(job.job_id)
                self.client.run_javascript("studio.reveal()")
        finally:
            self._submitting = False

    async def cancel(self, job_id: str) -> None:
        if self.view is not None and self.view.job_id == job_id:
            self.view.cancelling = True
            self._draw()
        await self._try(lambda: self.services.cancel(job_id))

    async def reuse(self, sha256: str) -> None:
        request = await self._try(lambda: self.services.request_of_job(self.services.artifact(sha256).job_id))
        if request is None:
            self.form.show_trouble(self.words["reuse_impossible"])
            return
        self.form.clear_faults()
        self.form.take_over(request)
        ui.notify(self.words["reused"], position="top", timeout=1500)
        self.client.run_javascript("document.querySelector('#field-prompt').focus()")

    def _say_unexpected(self, error: Exception) -> None:
        """A fault of ours: said here, and logged with its trace by NiceGUI."""
        self.form.show_trouble(self.words("unexpected", error=f"{type(error).__name__}: {error}"))

    async def _try(self, ask: Callable[[], Any]) -> Any:
        """Ask the services; what they refuse is said in the page."""
        try:
            return await asyncio.to_thread(ask)
        except AtollError as error:
            self.form.show_trouble(error.message)
            return None

    def _fit_size(self, width: int, height: int) -> None:
        """A new start picture brings its own size, as far as the model can hold it."""
        model = self.form.models.get(self.form.fields["model"].value)
        fitted = complete_request(
            parse_image_request({}), model.defaults if model else ImageDefaults(), (width, height)
        )
        assert fitted.width is not None and fitted.height is not None
        self.form.set_size(fitted.width, fitted.height)

    # --- showing

    async def show(self, job_id: str) -> None:
        """Put a job on the stage and follow it to its end."""
        job = await self._try(lambda: self.services.job(job_id))
        if job is None:
            return
        request = await asyncio.to_thread(self.services.request_of_job, job_id)
        view = JobView(job.job_id)
        if request is not None:
            view = JobView(
                job.job_id, prompt=request.prompt, width=request.width, height=request.height, seed=request.seed
            )
            self.form.last_seed = request.seed
        self.view = view
        self._draw()
        if self._following is not None:
            self._following.cancel()
        self._following = self._spawn(self._follow(view))
        await self._show_queue()

    async def _follow(self, view: JobView) -> None:
        after = 0
        while not view.ended:
            try:
                async for event in self.services.events(view.job_id, after=after):
                    view.apply(event)
                    after = event.seq
                    self._draw_soon()
            except AtollError as error:
                self.form.show_trouble(error.message)
                await asyncio.sleep(ASK_AGAIN_AFTER_S)
        self._draw()
        await self._show_next(view)

    async def _show_next(self, ended: JobView) -> None:
        """Go on to this tab's next job, if the one that ended is still on the stage."""
        for job_id in self.jobs:
            job = await self._job(job_id)
            if job is not None and not job.state.is_terminal and self.view is ended:
                self._following = None  # this very task: it ends by itself
                await self.show(job_id)
                return

    async def _watch(self) -> None:
        """Keep the queue and the gallery as they are, whichever door changed them."""
        after = await asyncio.to_thread(self.services.last_event_number)
        await self._show_queue()
        while True:
            try:
                async for event in self.services.events(after=after):
                    after = event.seq
                    if event.kind in MOVES:
                        await self._show_queue()
                    if event.kind is EventKind.DONE:
                        self.gallery.refresh()
            except AtollError:
                await asyncio.sleep(ASK_AGAIN_AFTER_S)

    async def _show_queue(self) -> None:
        active = [JobState.QUEUED, JobState.RUNNING]
        jobs = await asyncio.to_thread(self.services.jobs, states=active, limit=MAX_QUEUE_SHOWN)
        jobs.sort(key=lambda job: (job.state is not JobState.RUNNING, -job.priority, job.number))
        shown = self.view.job_id if self.view else None
        self.stage.show_queue(
            [
                {"job_id": job.job_id, "state": job.state.value, "prompt": self._name(job)}
                for job in jobs
                if job.job_id != shown
            ]
        )
        mine = any(job.job_id in self.jobs for job in jobs)
        self.form.button_word.text = self.words["add_to_queue" if mine else "generate"]

    def _name(self, job: Job) -> str:
        request = job.extra.get(REQUEST_KEY)
        if request is None:
            return self.words("workflow", count=len(job.graph))
        return request["prompt"] or self.words["no_prompt"]

    async def _describe(self, event: GenericEventArguments) -> None:
        sha256 = event.args["sha256"]
        entry = await self._try(lambda: self.services.artifact(sha256))
        if entry is None:
            return
        request = await self._try(lambda: self.services.request_of_job(entry.job_id))
        words, artifact = self.words, entry.artifact
        rows: list[tuple[str, str, bool]] = []
        if request is not None:
            rows = [
                (words[name], str(value), name in ("prompt", "negative_prompt"))
                for name in SHOWN_FIELDS
                if (value := getattr(request, name)) not in (None, "")
                and (name != "denoising_strength" or request.init_image)
            ]
        rows.append((words["size"], f"{artifact.width} × {artifact.height}", False))
        rows.append((words["made_at"], datetime.fromtimestamp(entry.created_at).strftime("%Y-%m-%d %H:%M"), False))
        rows.append((words["file"], artifact.filename, False))
        self.gallery.describe(sha256, rows, str(request.seed) if request else None)

    def _draw(self) -> None:
        if self._redraw is not None:
            self._redraw.cancel()
            self._redraw = None
        if not self.client.is_deleted:
            self.stage.show(self.view)

    def _draw_soon(self) -> None:
        if self._redraw is None:
            self._redraw = asyncio.get_running_loop().call_later(REDRAW_EVERY_S, self._draw)

    # --- tasks of this tab

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = background_tasks.create(work, name="studio page", context=self.client)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        for timer in (self._redraw, self._remember):
            if timer is not None:
                timer.cancel()


SHOWN_FIELDS = (
    "prompt", "negative_prompt", "model", "num_inference_steps", "guidance_scale", "sampler", "scheduler", "seed",
    "denoising_strength",
)  # fmt: skip
