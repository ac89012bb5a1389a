"""How prompts are read: emphasis, escapes, BREAK, and limits."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.diffusion.prompt import MAX_PROMPT_CHARACTERS, Break, Words, parse_prompt
from atoll.errors import InvalidRequest


def read(prompt: str, syntax: str = "a1111") -> list[tuple[str, float] | str]:
    return [
        "BREAK" if isinstance(part, Break) else (part.text, pytest.approx(part.weight))
        for part in parse_prompt(prompt, syntax)  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red apple", [("a red apple", 1.0)]),
        ("", []),
        ("a (red) apple", [("a ", 1.0), ("red", 1.1), (" apple", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("[[red]]", [("red", 1 / 1.21)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1.0)]),
        ("((red:1.5) car)", [("red", 1.65), (" car", 1.1)]),
        ("(a [b] c)", [("a ", 1.1), ("b", 1.0), (" c", 1.1)]),
        (r"a \(red\) \[old\] \\ car", [("a (red) [old] \\ car", 1.0)]),
        (r"(smile \(wide\):1.2)", [("smile (wide)", 1.2)]),
        ("at 10:30 (noon)", [("at 10:30 ", 1.0), ("noon", 1.1)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(red", [("red", 1.1)]),
        ("red) car", [("red) car", 1.0)]),
        ("(red] car", [("red] car", 1.1)]),
        ("a dog BREAK a cat", [("a dog ", 1.0), "BREAK", (" a cat", 1.0)]),
        ("(a BREAK b:1.2)", [("a ", 1.2), "BREAK", (" b", 1.2)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("红色的苹果 (大:1.2)", [("红色的苹果 ", 1.0), ("大", 1.2)]),
    ],
)
def test_a_prompt_is_read_as_in_a1111(prompt: str, expected: list[tuple[str, float] | str]):
    assert read(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red) apple", [("a ", 1.0), ("red", 1.1), (" apple", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("((red:1.5) car)", [("red", 1.5), (" car", 1.1)]),  # a number replaces what is around it
        ("[red] BREAK", [("[red] BREAK", 1.0)]),
        (r"a \(red\) \[old\] \\", [(r"a (red) \[old\] \\", 1.0)]),
        ("(red", [("(red", 1.0)]),
    ],
)
def test_a_prompt_is_read_as_in_comfyui(prompt: str, expected: list[tuple[str, float] | str]):
    assert read(prompt, "comfy") == expected


@given(st.text(max_size=200), st.sampled_from(["a1111", "comfy"]))
def test_text_without_special_signs_survives_as_it_is(text: str, syntax: str):
    plain = "".join(character for character in text if character not in "()[]\\").replace("BREAK", "")
    assert "".join(part.text for part in parse_prompt(plain, syntax)) == plain  # type: ignore[union-attr,arg-type]


@given(st.text(alphabet="ab()[]:1.\\ ,", max_size=60), st.sampled_from(["a1111", "comfy"]))
def test_any_brackets_are_read_without_a_fault(text: str, syntax: str):
    parts = [part for part in parse_prompt(text, syntax) if isinstance(part, Words)]  # type: ignore[arg-type]
    assert all(first.weight != second.weight for first, second in pairwise(parts))
    assert sum(len(part.text) for part in parts) <= len(text)


@pytest.mark.parametrize("syntax", ["a1111", "comfy"])
@pytest.mark.parametrize("piece", ["a ", "a:", ":1", "1", "\\", "(a)", ",", "BREAK ", "[]", " "])
def test_the_longest_prompt_is_read_at_once(piece: str, syntax: str):
    prompt = (piece * MAX_PROMPT_CHARACTERS)[:MAX_PROMPT_CHARACTERS]
    start = time.perf_counter()
    parse_prompt(prompt, syntax)  # type: ignore[arg-type]
    assert time.perf_counter() - start < 5.0  # a quadratic reader would take minutes


def test_too_long_a_prompt_is_refused_in_words():
    with pytest.raises(InvalidRequest, match="has 2,000,000 characters; at most 100,000 are read"):
        parse_prompt("x" * 2_000_000)


@pytest.mark.parametrize("prompt", ["(red:99999)", "(" * 100 + "red", "(red:" + "9" * 400 + ")"])
def test_emphasis_beyond_reason_is_refused_in_words(prompt: str):
    with pytest.raises(InvalidRequest, match=r"stresses words .* at most 1000"):
        parse_prompt(prompt)


def test_an_unknown_syntax_is_refused_in_words():
    with pytest.raises(InvalidRequest, match=r'syntax "forge" is unknown. Known: a1111, comfy'):
        parse_prompt("a cat", "forge")  # type: ignore[arg-type]
