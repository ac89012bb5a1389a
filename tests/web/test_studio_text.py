"""Both languages say the same things, and the page says nothing that is not among them."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import atoll.web
from atoll.web.text import HTML_LANGUAGE, LANGUAGES, TEXT, Words

WEB = Path(atoll.web.__file__).parent
SAME_IN_EVERY_LANGUAGE: set[str] = set()  # no word of the studio is; a product name would be


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_language_is_complete() -> None:
    assert set(TEXT) == set(LANGUAGES) == set(HTML_LANGUAGE)


@pytest.mark.parametrize("language", sorted(set(TEXT) - {"en"}))
def test_languages_have_the_same_words_with_the_same_places(language: str) -> None:
    english, other = TEXT["en"], TEXT[language]
    assert set(other) == set(english)
    for key, text in english.items():
        assert other[key].strip(), key
        assert places(other[key]) == places(text), key
        assert other[key] != text or key in SAME_IN_EVERY_LANGUAGE, f"{key} is not translated"


def test_chinese_is_written_in_chinese() -> None:
    assert [key for key, text in TEXT["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)] == []


def test_each_word_is_used_and_each_used_word_exists() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in WEB.iterdir()
        if path.suffix in (".py", ".js") and path.name != "text.py"
    )
    named = set(re.findall(r"texts\.(\w+)", source)) | set(re.findall(r"words(?:\[|\()\s*\"(\w+)\"", source))
    assert named <= set(TEXT["en"]), "named in the page, but in no language"
    quoted = named | set(re.findall(r"[\"'](\w+)[\"']", source))
    assert set(TEXT["en"]) <= quoted, "in the languages, but nowhere in the page"


def test_templates_hold_no_words_of_their_own() -> None:
    for path in WEB.glob("*.js"):
        template = re.search(r"template: `(.*?)`,\n", path.read_text(encoding="utf-8"), re.DOTALL)
        if template is None:
            continue
        between_tags = re.sub(r"<span class=\"icon\".*?</span>", "", template[1], flags=re.DOTALL)
        between_tags = re.sub(r"{{.*?}}", "", between_tags, flags=re.DOTALL)
        for text in re.findall(r">([^<>]+)<", between_tags):
            assert not re.search(r"[A-Za-z]{2,}", text), f"{path.name}: {text.strip()!r}"


def test_an_unknown_language_falls_back_to_english() -> None:
    assert Words("tlh")["prompt"] == TEXT["en"]["prompt"]
    assert Words("zh")("step_of", step=3, total=20) == "第 3 步，共 20 步"
