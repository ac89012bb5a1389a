"""How a prompt is written: what is stressed, and where it breaks. No torch, so that the API server can check prompts.

Two grammars, chosen by name:

- `"a1111"`, the default: `(word)` is 1.1 times as strong, `[word]` 1/1.1 times, `(word:1.3)` 1.3 times; nested ones
  multiply. `BREAK` begins a new chunk of 77 tokens. A bracket left open reaches to the end.
- `"comfy"`, as ComfyUI's CLIPTextEncode reads a prompt: `(word)` and `(word:1.3)`, where a number replaces what is
  around it. Square brackets and BREAK are ordinary text, as is a bracket left open.

In both a backslash makes a bracket ordinary text: `\\(`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal, get_args

from atoll.errors import InvalidRequest

Syntax = Literal["a1111", "comfy"]

MAX_PROMPT_CHARACTERS = 100_000  # some 1,300 chunks of 77 tokens; a long real prompt has a few thousand characters
MAX_WEIGHT = 1000.0
EMPHASIS = 1.1  # of one pair of round brackets


@dataclass(frozen=True)
class Words:
    """Text that is equally strong. weight: 1.0 is as usual."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Break:
    """Here a new chunk begins."""


# What may be escaped and what is a bracket, by syntax.
_BRACKETS: dict[str, str] = {"a1111": r"()\[\]", "comfy": "()"}
_BREAK = re.compile(r"\bBREAK\b")


def check_prompt(prompt: str) -> None:
    """Raises: InvalidRequest if the prompt is longer than Atoll reads."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are read. Shorten it."
        )


def parse_prompt(prompt: str, syntax: Syntax = "a1111") -> list[Words | Break]:
    """Split a prompt into runs of equally strong text; neighbours differ in weight.

    Raises: InvalidRequest for a prompt that is too long, a weight beyond +-1000, or an unknown syntax.
    """
    check_prompt(prompt)
    if syntax not in get_args(Syntax):
        raise InvalidRequest(f'Prompt syntax "{syntax}" is unknown. Known: {", ".join(get_args(Syntax))}.')
    pieces = _pieces_of(syntax).findall(prompt)
    closing_of = _match_brackets(pieces, syntax)
    closings = set(closing_of.values())
    weights, runs = [1.0], list[Words]()
    for index, piece in enumerate(pieces):
        if index in closing_of:
            weights.append(_weight_inside(pieces, index, closing_of[index], weights[-1], syntax))
        elif index in closings:
            weights.pop()
        elif not (_is_weight(piece) and index + 1 in closings):
            escaped = len(piece) == 2 and piece[0] == "\\"
            runs.append(Words(piece[1:] if escaped else piece, weights[-1]))
    return list(_joined(runs, breaks=syntax == "a1111"))


@cache
def _pieces_of(syntax: Syntax) -> re.Pattern[str]:
    """Escapes, brackets, a weight before a closing bracket, and the text between them.

    Possessive (`++`): it never walks back, so that no prompt takes more than linear time.
    """
    brackets = _BRACKETS[syntax]
    escaped = brackets + (r"\\" if syntax == "a1111" else "")
    weight = r":\s*+[+-]?+(?:\d++(?:\.\d*+)?+|\.\d++)\s*+(?=\))"
    return re.compile(rf"\\[{escaped}]|[{brackets}]|{weight}|[^\\()\[\]:]++|.", re.DOTALL)


def _match_brackets(pieces: list[str], syntax: Syntax) -> dict[int, int]:
    """Index of an opening bracket -> of its closing one. A closing bracket without its partner is ordinary text."""
    closing_of: dict[int, int] = {}
    open_brackets: list[int] = []
    for index, piece in enumerate(pieces):
        if piece == "(" or (piece == "[" and syntax == "a1111"):
            open_brackets.append(index)
        elif piece in {")", "]"} and open_brackets and pieces[open_brackets[-1]] + piece in {"()", "[]"}:
            closing_of[open_brackets.pop()] = index
    if syntax == "a1111":
        closing_of |= dict.fromkeys(open_brackets, len(pieces))
    return closing_of


def _weight_inside(pieces: list[str], opening: int, closing: int, around: float, syntax: Syntax) -> float:
    if pieces[opening] == "[":
        weight = around / EMPHASIS
    elif closing < len(pieces) and _is_weight(pieces[closing - 1]):
        said = float(pieces[closing - 1][1:])
        weight = said if syntax == "comfy" else around * said
    else:
        weight = around * EMPHASIS
    if not abs(weight) <= MAX_WEIGHT:
        raise InvalidRequest(f"The prompt stresses words {weight:g} times; at most {MAX_WEIGHT:g} is possible.")
    return weight


def _is_weight(piece: str) -> bool:
    return piece[0] == ":" and len(piece) > 1


def _joined(runs: list[Words], *, breaks: bool) -> Iterator[Words | Break]:
    """Neighbours of one weight as one run, with BREAK taken out of the text where that has a meaning."""
    for weight, group in groupby(runs, key=lambda run: run.weight):
        text = "".join(run.text for run in group)
        for number, part in enumerate(_BREAK.split(text) if breaks else [text]):
            if number:
                yield Break()
            if part:
                yield Words(part, weight)
