"""The left side of the page: every field of an ImageRequest, filled in by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement
from nicegui.elements.mixins.validation_element import ValidationElement

from atoll.api.faults import RequestFault
from atoll.api.image_request import LONGEST_PROMPT, ImageDefaults, ImageRequest
from atoll.api.model_info import ModelInfo
from atoll.web.image_well import ImageWell
from atoll.web.text import Words

# Fields that a model has an opinion about (`ImageDefaults`).
MODEL_FIELDS = ("width", "height", "num_inference_steps", "guidance_scale", "sampler", "scheduler")
# One more than may be, so that the service says it is too long; a whole book would not pass the socket.
BOUND = f"maxlength={LONGEST_PROMPT + 1}"
ASPECTS = {"square": (1, 1), "portrait": (3, 4), "landscape": (4, 3), "wide": (16, 9)}


def native_sizes(defaults: ImageDefaults) -> dict[str, tuple[int, int]]:
    """Sizes of the usual shapes with about as many pixels as the model was trained for, in multiples of 8."""
    side = sqrt(defaults.width * defaults.height)
    # Small models need fine steps to keep the shape; the big ones like multiples of 64.
    step = 64 if side >= 512 else 8
    return {
        name: (max(step, round(side * sqrt(w / h) / step) * step), max(step, round(side * sqrt(h / w) / step) * step))
        for name, (w, h) in ASPECTS.items()
    }


class PromptForm:
    """Fields by the name they have in ImageRequest. Says nothing about what is valid: the request does."""

    def __init__(
        self,
        words: Words,
        *,
        models: Sequence[ModelInfo],
        vaes: Sequence[ModelInfo],
        samplers: Sequence[str],
        schedulers: Sequence[str],
        on_submit: Callable[[], Any],
        on_change: Callable[[], Any],
        on_picture: Callable[[int, int], Any],
    ) -> None:
        self.words = words
        self.models = {model.name: model for model in models}
        self.fields: dict[str, ValidationElement[Any]] = {}
        self.last_seed: int | None = None
        self._defaults = models[0].defaults if models else ImageDefaults()
        self._on_change = on_change
        self._on_picture = on_picture
        with ui.element("form").classes("compose").props("novalidate") as form:
            form.props["aria-label"] = words["compose"]
            form.on("submit", lambda: None, js_handler="(event) => event.preventDefault()")
            with ui.element("div").classes("compose__fields"):
                self._build_prompts()
                self._build_start_picture()
                with ui.element("details").classes("settings").props("open id=settings"):
                    TextElement(tag="summary", text=words["settings"])
                    self._build_settings(list(self.models), [vae.name for vae in vaes], samplers, schedulers)
            with ui.element("div").classes("compose__foot"):
                self.trouble = ui.element("div").classes("trouble").props("role=alert id=trouble")
                with ui.element("button").classes("button button--main").props("type=button id=generate") as button:
                    self.button_word = TextElement(tag="span", text=words["generate"])
                    TextElement(tag="kbd", text="Ctrl ↵").props("aria-hidden=true")
                button.on("click", on_submit)
        self.trouble.set_visibility(False)

    # --- reading and filling in

    def values(self) -> dict[str, Any]:
        """What is filled in, as ImageRequest wants it; what is blank is left out. No mask yet: the browser holds it."""
        values = {name: field.value for name, field in self.fields.items() if field.value not in (None, "")}
        values["only_masked"] = self.only_masked.value
        if self.well.picture is None:
            for name in ("denoising_strength", "mask_blur", "only_masked", "only_masked_padding"):
                values.pop(name, None)
        else:
            values["init_image"] = self.well.picture
            if not self.well.has_mask:
                for name in ("mask_blur", "only_masked", "only_masked_padding"):
                    values.pop(name, None)
        return values

    def draft(self) -> dict[str, Any]:
        """All that is filled in, for the next time this tab is drawn."""
        values = {name: field.value for name, field in self.fields.items()}
        return values | {"only_masked": self.only_masked.value, "start_picture": self.well.picture}

    def fill(self, values: Mapping[str, Any]) -> None:
        """Take over values by field name; what a list does not offer (a model gone since) is left as it was."""
        if (model := values.get("model")) in self.models:
            self.fields["model"].value = model  # first, because it brings its own defaults along
        for name, value in values.items():
            field = self.fields.get(name)
            if field is None or (isinstance(field, ui.select) and value not in field.options):
                continue
            field.value = value
        if "only_masked" in values:
            self.only_masked.value = bool(values["only_masked"])
        if "start_picture" in values:
            self.well.show(values["start_picture"])

    def take_over(self, request: ImageRequest) -> None:
        """Fill in a whole request ("reuse parameters"), start picture and mask included."""
        values = request.model_dump(exclude={"mask_image", "init_image"}, exclude_none=True)
        values["seed"] = str(request.seed)
        values["vae"] = request.vae or ""
        self.fill(values)
        self.well.show(request.init_image, request.mask_image)
        self.last_seed = request.seed

    def set_size(self, width: int, height: int) -> None:
        self.fields["width"].value, self.fields["height"].value = width, height

    def use_prompt(self, prompt: str) -> None:
        self.fields["prompt"].value = prompt
        self.fields["prompt"].run_method("focus")

    # --- saying what is wrong

    def clear_faults(self) -> None:
        for field in self.fields.values():
            _mark(field, None)
        self.trouble.set_visibility(False)

    def show_faults(self, faults: Sequence[RequestFault]) -> None:
        """Each fault at its field; what has no field here is said above the button."""
        homeless = []
        for fault in faults:
            if (field := self.fields.get(fault.field)) is not None:
                _mark(field, fault_words(self.words, fault, field.value))
            else:
                homeless.append(fault.message)
        if homeless:
            self.show_trouble(" ".join(homeless))
        elif faults:
            first = next(name for name in self.fields if any(fault.field == name for fault in faults))
            ui.run_javascript(f"studio.point_at('field-{first}')")

    def show_trouble(self, message: str) -> None:
        self.trouble.clear()
        with self.trouble:
            TextElement(tag="b", text=self.words["trouble"])
            TextElement(tag="p", text=message)
            with ui.element("button").classes("tool tool--icon").props("type=button") as close:
                close.props["aria-label"] = self.words["dismiss"]
                TextElement(tag="span", text="close").classes("icon").props("aria-hidden=true")
            close.on("click", lambda: self.trouble.set_visibility(False))
        self.trouble.set_visibility(True)

    # --- building

    def _keep(self, name: str, field: ValidationElement[Any]) -> None:
        field.props(f"for=field-{name} outlined dense no-error-icon hide-bottom-space")
        self.fields[name] = field

        def changed() -> None:
            _mark(field, None)
            self._on_change()

        field.on_value_change(changed)

    def _label(self, name: str, hint: str | None = None) -> None:
        with TextElement(tag="label", text=self.words[name]).classes("label").props(f"for=field-{name}"):
            if hint is not None:
                TextElement(tag="small", text=self.words[hint])

    def _build_prompts(self) -> None:
        words = self.words
        with ui.element("div").classes("field field--prompt"):
            self._label("prompt")
            prompt = ui.textarea(placeholder=words["prompt_hint"]).props(f"autofocus autogrow {BOUND}")
            self._keep("prompt", prompt)
        with ui.element("div").classes("field"):
            self._label("negative_prompt")
            negative = ui.textarea(placeholder=words["negative_hint"]).props(f"autogrow rows=1 {BOUND}")
            self._keep("negative_prompt", negative)

    def _build_start_picture(self) -> None:
        words = self.words
        with ui.element("div").classes("field"):
            TextElement(tag="div", text=words["start_picture"]).classes("label")
            self.well = ImageWell(
                on_picture=self._picture_taken, on_change=self._on_start_change, on_fault=self.show_trouble
            )
            with ui.element("div").classes("start") as self._start_fields:
                self._number_with_slider("denoising_strength", 0.75, 0, 1, 0.01, hint="denoising_hint")
            with ui.element("div").classes("start") as self._mask_fields:
                with ui.element("div").classes("pair"):
                    with ui.element("div").classes("field"):
                        self._label("mask_blur")
                        self._keep("mask_blur", ui.number(value=4, step=1))
                    with ui.element("div").classes("field"):
                        self._label("only_masked_padding")
                        self._padding = ui.number(value=32, step=4)
                        self._keep("only_masked_padding", self._padding)
                switch = ui.checkbox(words["only_masked"]).props("dense").classes("check")
                switch.tooltip(words["only_masked_hint"])
                self.only_masked = switch
                switch.on_value_change(self._on_start_change)
        self._on_start_change()

    def _build_settings(
        self, models: list[str], vaes: list[str], samplers: Sequence[str], schedulers: Sequence[str]
    ) -> None:
        words, defaults = self.words, self._defaults
        with ui.element("div").classes("field"):
            self._label("model")
            self._keep("model", ui.select(models, value=models[0] if models else None, on_change=self._model_chosen))
        with ui.element("div").classes("field"):
            with ui.element("div").classes("size"):
                with ui.element("div").classes("field"):
                    self._label("width")
                    self._keep("width", ui.number(value=defaults.width, step=8))
                with ui.element("button").classes("tool tool--icon").props("type=button") as swap:
                    swap.props["aria-label"] = swap.props["title"] = words["swap"]
                    TextElement(tag="span", text="swap_horiz").classes("icon").props("aria-hidden=true")
                swap.on("click", lambda: self.set_size(self.fields["height"].value, self.fields["width"].value))
                with ui.element("div").classes("field"):
                    self._label("height")
                    self._keep("height", ui.number(value=defaults.height, step=8))
            self._presets = ui.element("div").classes("presets").props("role=group")
            self._presets.props["aria-label"] = words["size"]
            self._build_presets()
        self._number_with_slider("num_inference_steps", defaults.num_inference_steps, 1, 60, 1)
        self._number_with_slider("guidance_scale", defaults.guidance_scale, 1, 20, 0.5)
        with ui.element("div").classes("pair"):
            with ui.element("div").classes("field"):
                self._label("sampler")
                self._keep("sampler", ui.select(list(samplers), value=_offered(defaults.sampler, samplers)))
            with ui.element("div").classes("field"):
                self._label("scheduler")
                self._keep("scheduler", ui.select(list(schedulers), value=_offered(defaults.scheduler, schedulers)))
        with ui.element("div").classes("pair pair--seed"):
            with ui.element("div").classes("field"):
                self._label("seed")
                seed = ui.input(placeholder=words["seed_random"]).props("inputmode=numeric autocomplete=off")
                self._keep("seed", seed)
                with seed.add_slot("append"):
                    self._seed_button("casino", "seed_dice", lambda: seed.set_value(""))
                    self._seed_button("push_pin", "seed_keep", lambda: seed.set_value(str(self.last_seed or "")))
            with ui.element("div").classes("field"):
                self._label("batch_size")
                self._keep("batch_size", ui.number(value=1, step=1))
        with ui.element("details").classes("advanced"):
            TextElement(tag="summary", text=words["advanced"])
            with ui.element("div").classes("pair"):
                with ui.element("div").classes("field"):
                    self._label("clip_skip")
                    self._keep("clip_skip", ui.number(value=1, step=1))
                with ui.element("div").classes("field"):
                    self._label("vae")
                    self._keep("vae", ui.select({"": words["vae_own"]} | {name: name for name in vaes}, value=""))

    def _seed_button(self, icon: str, title: str, on_click: Callable[[], Any]) -> None:
        with ui.element("button").classes("tool tool--icon").props("type=button") as button:
            button.props["aria-label"] = button.props["title"] = self.words[title]
            TextElement(tag="span", text=icon).classes("icon").props("aria-hidden=true")
        button.on("click", on_click)

    def _number_with_slider(
        self, name: str, value: float, lowest: float, highest: float, step: float, *, hint: str | None = None
    ) -> Element:
        with ui.element("div").classes("field slide") as block:
            self._label(name, hint)
            number = ui.number(value=value, step=step)
            self._keep(name, number)
            slider = ui.slider(min=lowest, max=highest, step=step, value=value)
            slider.props["aria-label"] = self.words[name]
            slider.bind_value(number)
        return block

    def _build_presets(self) -> None:
        self._presets.clear()
        with self._presets:
            for name, (width, height) in native_sizes(self._defaults).items():
                with ui.element("button").classes("chip").props("type=button") as chip:
                    shape = ui.element("i").classes("chip__shape").props("aria-hidden=true")
                    shape.style(f"aspect-ratio: {width} / {height}")
                    TextElement(tag="span", text=self.words[name])
                    TextElement(tag="small", text=f"{width}×{height}")
                chip.on("click", lambda size=(width, height): self.set_size(*size))

    # --- what follows from a choice

    def _model_chosen(self) -> None:
        """A new model brings its own defaults, where the old one's were left alone."""
        model = self.models.get(self.fields["model"].value)
        if model is None:
            return
        old, self._defaults = self._defaults, model.defaults
        for name in MODEL_FIELDS:
            field = self.fields[name]
            if field.value == getattr(old, name):
                field.value = getattr(model.defaults, name)
        self._build_presets()

    def _picture_taken(self, width: int, height: int) -> None:
        self._on_start_change()
        self._on_picture(width, height)

    def _on_start_change(self) -> None:
        self._start_fields.set_visibility(self.well.picture is not None)
        self._mask_fields.set_visibility(self.well.picture is not None and self.well.has_mask)
        self._padding.set_enabled(self.only_masked.value)
        self._on_change()


def _mark(field: ValidationElement[Any], message: str | None) -> None:
    field.error = message
    if message is None:
        field.props.pop("aria-invalid", None)
    else:
        field.props["aria-invalid"] = "true"  # which Quasar leaves out


def fault_words(words: Words, fault: RequestFault, value: Any) -> str:
    """A fault in the words of the page, short because it stands at its field; in those of the service otherwise."""
    rules = _rules(fault.field)
    match fault.type:
        case "multiple_of" if isinstance(value, int | float):
            step = rules["multipleOf"]
            below = int(value // step * step)
            nearest = f"{below}, {below + step}" if below >= rules["minimum"] else str(rules["minimum"])
            return words("fault_multiple_of", given=f"{value:g}", step=step, nearest=nearest)
        case "greater_than_equal":
            return words("fault_too_small", limit=rules["minimum"])
        case "less_than_equal":
            return words("fault_too_big", limit=rules["maximum"])
        case "string_too_long":
            return words("fault_too_long", limit=rules["maxLength"])
        case "int_from_float" | "int_parsing":
            return words["whole_number"]
        case "float_parsing" | "finite_number":
            return words["not_a_number"]
    return fault.message


def _rules(field: str) -> dict[str, Any]:
    schema = ImageRequest.model_json_schema()["properties"].get(field, {})
    return dict(schema) | next(iter(schema.get("anyOf", [])), {})


def _offered(name: str, names: Sequence[str]) -> str | None:
    return name if name in names else next(iter(names), None)
