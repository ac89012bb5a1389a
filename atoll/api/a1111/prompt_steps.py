"""Prompts that change on the way: `[from:to:when]` and `[this|that]`, as a text for each step.

`[a:b:0.5]` is a for half of the steps and then b; `[a:b:10]` changes after step 10; `[b:10]` begins b then and
`[a::10]` ends a. `[a|b]` takes turns at every step. They may hold each other. Any other bracket is left as it is.

In the second pass of a hires fix the steps are counted on: a share from 1 to 2, or a step behind those of the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from atoll.errors import InvalidRequest

DEEPEST = 30  # changes inside each other; deeper ones are text
MOST_CHANGES = 200
LONGEST_WORDINGS = 1_000_000  # characters of all wordings together
_NUMBER = re.compile(r"\s*(?:\d+(?:\.\d*)?|\.\d+)\s*")
_PIECE = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)


@dataclass(frozen=True)
class Change:
    """`[before:after:when]`; `when` as it was written."""

    before: Sequence[Part]
    after: Sequence[Part]
    when: str


@dataclass(frozen=True)
class Turns:
    """`[this|that|...]`."""

    options: Sequence[Sequence[Part]]


Part = str | Change | Turns


@dataclass(frozen=True)
class TextOfSteps:
    """One wording and the steps that it is for: (first, one past the last), counted from 0."""

    text: str
    ranges: tuple[tuple[int, int], ...]


def texts_of_steps(prompt: str, steps: int, *, steps_before: int | None = None) -> list[TextOfSteps]:
    """What is said at each of `steps` steps; of a prompt that does not change, itself alone.

    steps_before: those of the first pass, if this is the second one.
    """
    parts = parse_parts(prompt)
    if all(isinstance(part, str) for part in parts):
        return [TextOfSteps(prompt, ((0, steps),))]
    if _count(parts) > MOST_CHANGES:
        raise InvalidRequest(
            f"The prompt changes at more than {MOST_CHANGES} places. Write fewer [from:to:when] and [a|b]."
        )
    ranges: dict[str, list[tuple[int, int]]] = {}
    for step in range(steps):
        own = ranges.setdefault(_said(parts, step, steps, steps_before), [])
        if own and own[-1][1] == step:
            own[-1] = own[-1][0], step + 1
        else:
            own.append((step, step + 1))
    if sum(map(len, ranges)) > LONGEST_WORDINGS:
        raise InvalidRequest(
            f"The prompt has {len(ranges)} wordings, of more than {LONGEST_WORDINGS:,} characters together. Shorten it."
        )
    return [TextOfSteps(text, tuple(own)) for text, own in ranges.items()]


@lru_cache(maxsize=256)
def parse_parts(prompt: str) -> tuple[Part, ...]:
    """The text with its changes and turns found."""
    pieces = _PIECE.findall(prompt)
    return _parts(pieces, 0, len(pieces), _partners(pieces), 0)


def _partners(pieces: Sequence[str]) -> dict[int, int]:
    """Index of each opening bracket that is closed -> of what closes it."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    for index, piece in enumerate(pieces):
        if piece in ("[", "("):
            waiting.append(index)
        elif piece in ("]", ")") and waiting and pieces[waiting[-1]] + piece in ("[]", "()"):
            found[waiting.pop()] = index
    return found


def _parts(pieces: Sequence[str], start: int, end: int, partners: dict[int, int], depth: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    text: list[str] = []  # what stands before the next change
    index = start
    while index < end:
        closing = partners.get(index) if pieces[index] == "[" else None
        special = None
        if closing is not None and closing < end and depth < DEEPEST:
            special = _special(pieces, index + 1, closing, partners, depth)
        if special is None or closing is None:
            text.append(pieces[index])
            index += 1
        else:
            parts += ["".join(text), special]
            text = []
            index = closing + 1
    return (*parts, "".join(text))


def _special(
    pieces: Sequence[str], start: int, end: int, partners: dict[int, int], depth: int
) -> Change | Turns | None:
    """What stands between two square brackets, if it is more than emphasis."""
    for mark in ("|", ":"):
        cuts = [start - 1, *_cuts(pieces, start, end, partners, mark), end]
        spans = [(before + 1, after) for before, after in pairwise(cuts)]
        if mark == "|" and len(spans) > 1:
            return Turns([_parts(pieces, *span, partners, depth + 1) for span in spans])
        last = slice(*spans[-1])
        when = "".join(pieces[last]) if last.stop - last.start == 1 else ""
        if mark == ":" and len(spans) in (2, 3) and _NUMBER.fullmatch(when):
            texts = [_parts(pieces, *span, partners, depth + 1) for span in spans[:-1]]
            return Change(texts[0] if len(texts) == 2 else (), texts[-1], when.strip())
    return None


def _cuts(pieces: Sequence[str], start: int, end: int, partners: dict[int, int], mark: str) -> list[int]:
    """Where `mark` stands, but not inside of further brackets."""
    found, index = [], start
    while index < end:
        if pieces[index] == mark:
            found.append(index)
        index = partners.get(index, index) + 1
    return found


def _count(parts: Sequence[Part]) -> int:
    """How many changes and turns there are, those inside of others too."""
    count = 0
    for part in parts:
        if isinstance(part, Change):
            count += 1 + _count(part.before) + _count(part.after)
        elif isinstance(part, Turns):
            count += 1 + sum(map(_count, part.options))
    return count


def _said(parts: Sequence[Part], step: int, steps: int, steps_before: int | None) -> str:
    said = []
    for part in parts:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Turns):
            said.append(_said(part.options[step % len(part.options)], step, steps, steps_before))
        else:
            chosen = part.before if step < _step_of(part.when, steps, steps_before) else part.after
            said.append(_said(chosen, step, steps, steps_before))
    return "".join(said)


def _step_of(when: str, steps: int, steps_before: int | None) -> int:
    """How many steps come before the change."""
    if "." in when:
        return int((float(when) - (0 if steps_before is None else 1)) * steps)
    return int(when) - (steps_before or 0)
