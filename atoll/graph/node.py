"""What a node is: a typed function whose signature is its form.

    @node("ImageScaleBy", title="Upscale Image By", category="image/upscaling")
    def image_scale_by(image: Image, *, scale_by: Annotated[float, Range(0.01, 8.0, step=0.01)] = 1.0) -> Image: ...

Positional parameters are sockets (links from other nodes), keyword-only ones are fields (values). Types of sockets and
outputs are annotations that carry a `Socket`. A parameter annotated `NodeContext` gets the context of the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

from atoll.graph.graph import Graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])


# --- what a running node may ask of its surroundings


class LoadedModels(Protocol):
    """Parts of checkpoints by name, kept warm between nodes and jobs."""

    def checkpoint(self, name: str) -> Any: ...
    def vae(self, name: str) -> Any: ...
    def text_encoder(self, name: str, *, device: str | None = None) -> Any: ...
    def unet(self, name: str) -> Any: ...
    def fingerprint(self, kind: str, name: str) -> str: ...
    def clear(self) -> None: ...


class InputPictures(Protocol):
    """Pictures that were uploaded, by name."""

    def read(self, name: str) -> bytes: ...
    def digest(self, name: str) -> str: ...


class NodeContext(Protocol):
    """What the caller of a graph hands to its nodes. `node_id` is set by `run_graph` before each node."""

    node_id: str

    @property
    def graph(self) -> Graph: ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """ComfyUI's extra_pnginfo: goes into pictures beside the graph; may hold "workflow"."""

    @property
    def models(self) -> LoadedModels: ...

    @property
    def inputs(self) -> InputPictures: ...

    def on_step(self, step: int, total: int, preview: Callable[[], bytes] | None) -> None:
        """Told after each step, from 1 to `total`; `preview` makes a small JPEG. Raises JobCancelled to stop."""

    def save_image(
        self,
        image: NDArray[np.uint8],
        *,
        filename_prefix: str,
        kind: Literal["output", "temp"],
        node_id: str,
        index: int,
        metadata: Mapping[str, str],
    ) -> None:
        """Queue one picture (height, width, 3 or 4 channels) to be encoded and stored; returns at once."""


class Choices(Protocol):
    """Names of files that exist now, for the fields that choose one."""

    def names(self, kind: str) -> Sequence[str]:
        """Of `kind`: checkpoints, vae, text_encoders, diffusion_models, inputs or latents."""

    def has(self, kind: str, name: str) -> bool:
        """Whether `name` can be used, which may be true of more than is listed."""


# --- what annotations carry


@dataclass(frozen=True)
class Socket:
    """The type name on a link: IMAGE, LATENT, MODEL, ..."""

    type: str


@dataclass(frozen=True)
class Range:
    """Least and greatest value of a number, and the steps an editor offers."""

    min: float
    max: float
    step: float | None = None
    round: float | Literal[False] | None = None
    control_after_generate: bool = False
    display: str | None = None  # how an editor shows it: "color"


@dataclass(frozen=True)
class OneOf:
    """A choice from fixed names; an editor takes the first."""

    names: tuple[str, ...]
    advanced: bool = False


@dataclass(frozen=True)
class OneFile:
    """A choice from the files of a kind that exist when asked (see `Choices`)."""

    kind: str
    image_upload: bool = False
    folder: str | None = None  # where an editor looks for pictures, if not among the uploaded ones
    remote: Mapping[str, Any] | None = None  # an editor asks there for the names, instead of being told here


@dataclass(frozen=True)
class Text:
    """How an editor shows a text, and how long it may be."""

    multiline: bool = False
    dynamic_prompts: bool = False
    max_length: int = 100_000  # characters; a longer prompt is an accident or an attack


@dataclass(frozen=True)
class Tooltip:
    """A sentence on this input, shown by editors."""

    text: str


# --- a node, declared

NOTHING = inspect.Parameter.empty
FieldCheck = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
Fingerprint = Callable[[NodeContext, Mapping[str, Any]], str]


@dataclass(frozen=True)
class InputSpec:
    """One input. `type` is a socket's type, INT, FLOAT, STRING, BOOLEAN or COMBO."""

    name: str
    type: str
    is_socket: bool
    required: bool
    default: Any = NOTHING
    range: Range | None = None
    choices: OneOf | OneFile | None = None
    text: Text | None = None
    tooltip: str | None = None


@dataclass(frozen=True)
class OutputSpec:
    """is_list: gives a list of such values, each of which later nodes take by itself."""

    type: str
    name: str
    is_list: bool = False


@dataclass(frozen=True)
class NodeSpec:
    """A node as the graph knows it. See `node` for the meaning of the parts."""

    class_type: str
    function: Callable[..., Any]
    version: int
    title: str
    category: str
    description: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    is_output: bool
    cached: bool
    hidden: Mapping[str, str]
    check: FieldCheck | None
    fingerprint: Fingerprint | None
    context_parameter: str | None
    untitled: bool = False
    schema: Literal["v1", "v3"] = "v1"
    deprecated: bool = False
    experimental: bool = False
    takes_lists: bool = False

    def input(self, name: str) -> InputSpec | None:
        return next((spec for spec in self.inputs if spec.name == name), None)


def node(
    class_type: str,
    *,
    title: str,
    category: str,
    version: int = 1,
    is_output: bool = False,
    cached: bool = True,
    order: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    output_names: Sequence[str] | None = None,
    hidden: Mapping[str, str] | None = None,
    check: FieldCheck | None = None,
    fingerprint: Fingerprint | None = None,
    untitled: bool = False,
    schema: Literal["v1", "v3"] = "v1",
    deprecated: bool = False,
    experimental: bool = False,
    takes_lists: bool = False,
    gives_lists: bool = False,
) -> Callable[[Function], Function]:
    """Declare a function as the node `class_type`.

    Args:
        version: raise it when the same inputs give another result; it is part of the cache key.
        is_output: it leaves something behind, so it always runs, and a graph needs at least one.
        cached: False for what another place keeps warm already (loaded models).
        order: the inputs' order in editors, where it differs from the signature's.
        optional: inputs that may be absent; their Python default is used.
        hidden: inputs that ComfyUI lists as hidden; the function reads them from its context.
        check: fields -> (field, sentence) for each thing wrong that no single range can say.
        fingerprint: (context, fields) -> what the cache key must hold beside the fields, such as a file's identity.
        untitled: editors are told no title and show the class type; `title` is for sentences.
        schema: in which of ComfyUI's two forms GET /object_info shows it.
        takes_lists: sockets and fields arrive as lists of all values, where else the node runs once for each.
        gives_lists: each output is a list of values.
    """

    def declare(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        inputs: dict[str, InputSpec] = {}
        context_parameter = None
        for parameter in signature.parameters.values():
            if parameter.annotation is NodeContext:
                context_parameter = parameter.name
            else:
                inputs[parameter.name] = _input_spec(class_type, parameter, required=parameter.name not in optional)
        names = tuple(order or inputs)
        if sorted(names) != sorted(inputs):
            raise TypeError(f"{class_type}: order names {names}, the signature {tuple(inputs)}")
        types = _output_types(signature.return_annotation)
        function.__node_spec__ = NodeSpec(  # type: ignore[attr-defined]
            class_type=class_type,
            function=function,
            version=version,
            title=title,
            category=category,
            description=inspect.getdoc(function) or "",
            inputs=tuple(inputs[name] for name in names),
            outputs=tuple(
                OutputSpec(type_, name, gives_lists) for type_, name in zip(types, output_names or types, strict=True)
            ),
            is_output=is_output,
            cached=cached and not is_output,
            hidden=dict(hidden or {}),
            check=check,
            fingerprint=fingerprint,
            context_parameter=context_parameter,
            untitled=untitled,
            schema=schema,
            deprecated=deprecated,
            experimental=experimental,
            takes_lists=takes_lists,
        )
        return function

    return declare


@dataclass(frozen=True)
class Registry:
    """The nodes that graphs may use, by class type."""

    specs: Mapping[str, NodeSpec] = field(default_factory=dict)

    @classmethod
    def of(cls, *functions: Callable[..., Any]) -> Registry:
        """A registry of functions declared with `@node`."""
        specs: list[NodeSpec] = [function.__node_spec__ for function in functions]  # type: ignore[attr-defined]
        registry = cls({spec.class_type: spec for spec in specs})
        if len(registry.specs) != len(specs):
            raise TypeError("two nodes share a class type")
        return registry

    def get(self, class_type: str) -> NodeSpec | None:
        return self.specs.get(class_type)

    def __getitem__(self, class_type: str) -> NodeSpec:
        return self.specs[class_type]

    def __iter__(self) -> Iterator[NodeSpec]:
        return iter(self.specs.values())

    def __len__(self) -> int:
        return len(self.specs)


_FIELD_TYPES = {int: "INT", float: "FLOAT", str: "STRING", bool: "BOOLEAN"}


def _input_spec(class_type: str, parameter: inspect.Parameter, *, required: bool) -> InputSpec:
    is_socket = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    base, metadata = _unwrapped(parameter.annotation)
    carried = {type(item): item for item in metadata}
    socket, tooltip = carried.get(Socket), carried.get(Tooltip)
    choices = carried.get(OneOf) or carried.get(OneFile)
    if is_socket != (socket is not None):
        raise TypeError(f"{class_type}.{parameter.name}: sockets are positional, fields keyword-only")
    if not required and parameter.default is NOTHING:
        raise TypeError(f"{class_type}.{parameter.name}: an optional input needs a Python default")
    return InputSpec(
        name=parameter.name,
        type=socket.type if socket else "COMBO" if choices else _FIELD_TYPES[base],
        is_socket=is_socket,
        required=required,
        default=parameter.default,
        range=carried.get(Range),
        choices=choices,
        text=carried.get(Text),
        tooltip=tooltip.text if tooltip else None,
    )


def _output_types(annotation: Any) -> list[str]:
    if annotation is None or annotation is NOTHING:
        return []
    parts = get_args(annotation) if get_origin(annotation) is tuple else (annotation,)
    return [next(item.type for item in _unwrapped(part)[1] if isinstance(item, Socket)) for part in parts]


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """(type, what its Annotated carries); of an `X | None`, those of X."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, tuple(metadata)
    return annotation, ()
