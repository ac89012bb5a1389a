"""Custom nodes: off until pinned, exactly what was pinned, and ComfyUI's classes as they are."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from atoll.cli.main import app
from atoll.errors import AtollError, InvalidRequest
from atoll.graph.execute import ResultCache, run_graph
from atoll.graph.graph import Graph
from atoll.graph.node import NodeContext, Registry
from atoll.graph.object_info import node_info
from atoll.graph.validate import validate_graph
from atoll.nodes.custom import declare, declared_registry, load, running_registry, states
from atoll.nodes.custom_files import find_custom_nodes, find_one
from atoll.nodes.registry import core_registry
from atoll.settings import Settings, load_settings, save_custom_nodes

FUNCTIONS = '''
from typing import Annotated
from atoll.graph.node import OneFile, Range, Socket, node

Words = Annotated[str, Socket("WORDS")]

def not_seven(fields):
    return [("times", "is 7")] if fields["times"] == 7 else []

@node("Repeat", title="Repeat words", category="words", check=not_seven)
def repeat(words: Words, *, times: Annotated[int, Range(1, 9)] = 2,
           model: Annotated[str, OneFile("checkpoints")] = "") -> Words:
    """Says it again."""
    return words * times
'''

CLASSES = """
runs = []

class Say:
    CATEGORY, RETURN_TYPES, FUNCTION = "words", ("WORDS", "INT"), "say"
    RETURN_NAMES = ("words", "length")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "text": ("STRING", {"multiline": True, "default": "hello"}),
                "case": (["lower", "upper"],),
                "seed": ("INT", {"default": 0, "min": 0, "max": 99}),
            },
            "optional": {"before": ("WORDS",), "loud": ("BOOLEAN", {"default": False})},
            "hidden": {"me": "UNIQUE_ID", "prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, text):
        return True if "forbidden" not in text else "that word is forbidden"

    def say(self, text, case, seed, before="", loud=False, me=None, prompt=None):
        runs.append((me, sorted(prompt)))
        said = before + getattr(text, case)() + "!" * loud
        return (said, len(said))

class Each:
    RETURN_TYPES, FUNCTION, OUTPUT_IS_LIST = ("WORDS",), "run", (True,)
    def INPUT_TYPES(): return {"required": {"text": ("STRING",)}}
    def run(self, text): return (text.split(),)

class Join:
    RETURN_TYPES, FUNCTION, INPUT_IS_LIST = ("WORDS",), "run", True
    def INPUT_TYPES(): return {"required": {"words": ("WORDS",), "by": ("STRING",)}}
    def run(self, words, by): return (by[0].join(words),)

class Clock:
    RETURN_TYPES, FUNCTION = ("WORDS",), "run"
    def INPUT_TYPES(): return {"required": {}}
    @classmethod
    def IS_CHANGED(cls): return float("nan")
    def run(self): runs.append("clock"); return ("now",)

class Keep:
    CATEGORY, RETURN_TYPES, FUNCTION, OUTPUT_NODE = "words", (), "keep", True
    def INPUT_TYPES(): return {"required": {"words": ("*",), "path": ("STRING",)}}
    def keep(self, words, path):
        with open(path, "a") as file: file.write(str(words) + "|")
        return {"ui": {"text": [str(words)]}, "result": ()}

NODE_CLASS_MAPPINGS = {"Say": Say, "Each": Each, "Join": Join, "Clock": Clock, "Keep": Keep}
NODE_DISPLAY_NAME_MAPPINGS = {"Say": "Say something"}
"""


class NoFiles:
    def names(self, kind: str) -> Sequence[str]:
        return [f"one of {kind}"]

    def has(self, kind: str, name: str) -> bool:
        return name in self.names(kind)


def home_with(tmp_path: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = tmp_path / "custom_nodes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def pinned(tmp_path: Path, **files: str) -> Settings:
    """A home whose custom nodes are all pinned."""
    home = home_with(tmp_path, {f"{name}.py": content for name, content in files.items()})
    found = find_custom_nodes(Settings(home=home))
    return Settings(home=home, custom_nodes={nodes.name: nodes.sha256 for nodes in found})


@pytest.fixture
def words(tmp_path: Path) -> Settings:
    return pinned(tmp_path, words=CLASSES, repeat=FUNCTIONS)


def run(graph: Graph, registry: Registry, cache: ResultCache | None = None) -> None:
    context = cast(NodeContext, SimpleNamespace(node_id="", graph=graph, extra={}))
    valid = validate_graph(graph, registry, NoFiles()).strict()
    run_graph(valid, registry, cache or ResultCache(100, lambda _: 1), context)


def saying(path: Path, **fields: Any) -> Graph:
    graph = Graph()
    first = graph.add("Say", text="Well, ", case="lower", seed=1)
    said = graph.add("Say", **{"text": "Hello", "case": "upper", "seed": 2, "before": first, **fields})
    again = graph.add("Repeat", words=said, times=2, model="one of checkpoints")
    graph.add("Keep", words=again, path=str(path))
    graph.add("Keep", words=said[1], path=str(path))
    return graph


# --- running


def test_functions_and_comfyui_classes_run_side_by_side(words: Settings, tmp_path: Path) -> None:
    run(saying(tmp_path / "out", loud=True), running_registry(words))
    assert (tmp_path / "out").read_text() == "well, HELLO!well, HELLO!|12|"
    module = sys.modules["atoll_custom_nodes_words"]
    assert [me for me, _ in module.runs] == ["1", "2"]
    assert module.runs[0][1] == ["1", "2", "3", "4", "5"]


def test_lists_and_nan_are_what_they_are_in_comfyui(words: Settings, tmp_path: Path) -> None:
    graph, out = Graph(), tmp_path / "out"
    each = graph.add("Repeat", words=graph.add("Each", text="a b c"), times=2, model="one of checkpoints")
    graph.add("Keep", words=graph.add("Join", words=each, by="-"), path=str(out))
    graph.add("Keep", words=graph.add("Clock"), path=str(out))
    registry, cache = running_registry(words), ResultCache(100, lambda _: 1)
    for _ in range(2):
        run(graph, registry, cache)
    assert out.read_text() == "aa-bb-cc|now|" * 2
    assert sys.modules["atoll_custom_nodes_words"].runs == ["clock", "clock"]


def test_what_a_node_refuses_is_told_in_its_words(words: Settings, tmp_path: Path) -> None:
    registry = running_registry(words)
    with pytest.raises(InvalidRequest, match='Node 2 "Say something": that word is forbidden'):
        run(saying(tmp_path / "out", text="forbidden"), registry)
    graph = saying(tmp_path / "out")
    graph.nodes["3"].inputs["times"] = 7  # type: ignore[index]
    with pytest.raises(InvalidRequest, match="times: is 7"):
        run(graph, Registry({**core_registry().specs, **{spec.class_type: spec for spec in _checked_late(registry)}}))


def _checked_late(registry: Registry) -> Iterator[Any]:
    """As the server judges: it has the declarations alone."""
    import dataclasses

    for spec in registry:
        yield dataclasses.replace(spec, check=None)


def test_fields_are_judged_like_those_of_every_node(words: Settings) -> None:
    graph = saying(Path("out"), case="loud", seed=100)
    sentences = [fault.sentence for fault in validate_graph(graph, running_registry(words), NoFiles()).faults]
    assert sentences == [
        'Node 2 "Say something": case "loud" is not known. There are: lower, upper.',
        'Node 2 "Say something": seed 100 is out of range; it goes from 0 to 99.',
    ]


def test_changed_code_is_another_version_in_the_cache_key(tmp_path: Path) -> None:
    first = load(find_one(pinned(tmp_path, words=CLASSES), "words.py"))[0]
    second = load(find_one(pinned(tmp_path, words=f"{CLASSES}\n# changed"), "words.py"))[0]
    assert first.class_type == second.class_type == "Say" and first.version != second.version


# --- pinning


def test_what_is_not_pinned_or_has_changed_is_neither_used_nor_run(tmp_path: Path) -> None:
    trap = f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n"
    settings = pinned(tmp_path, words=CLASSES, changed=CLASSES)
    home_with(tmp_path, {"off.py": trap, "changed.py": trap + CLASSES, "gone.py": ""})
    settings = Settings(home=tmp_path, custom_nodes={**settings.custom_nodes, "gone2.py": "0" * 64})
    assert {name: state for name, state, _ in states(settings)} == {
        "changed.py": "changed", "gone.py": "off", "gone2.py": "missing", "off.py": "off", "words.py": "pinned",
    }  # fmt: skip
    registry = running_registry(settings)
    assert registry.get("Say") is not None and not (tmp_path / "sprung").exists()
    assert running_registry(Settings(home=tmp_path)) is core_registry()


def test_the_hash_of_a_file_is_that_of_its_content_and_a_folders_counts_every_file(tmp_path: Path) -> None:
    home = home_with(
        tmp_path, {"ink.py": "x = 1", "pack/__init__.py": "", "pack/inner.py": "x = 1", "no_pack/a.py": ""}
    )
    before = {nodes.name: nodes.sha256 for nodes in find_custom_nodes(Settings(home=home))}
    assert before["ink.py"] == hashlib.sha256(b"x = 1").hexdigest()
    assert sorted(before) == ["ink.py", "pack"]
    home_with(tmp_path, {"pack/__pycache__/inner.pyc": "old", "pack/.git/HEAD": "x"})
    assert {nodes.name: nodes.sha256 for nodes in find_custom_nodes(Settings(home=home))} == before
    (tmp_path / "custom_nodes/pack/inner.py").rename(tmp_path / "custom_nodes/pack/other.py")
    assert find_one(Settings(home=home), "pack").sha256 != before["pack"]


def test_a_folder_imports_its_own_files_as_they_were_and_no_others(tmp_path: Path) -> None:
    files = {"My-Pack/__init__.py": "from .words import *\nfrom .words import NODE_CLASS_MAPPINGS\n"}
    files |= {
        "My-Pack/words/__init__.py": CLASSES,
        "lone.py": f"from .beside import x\n{CLASSES}",
        "beside.py": "x = 1",
    }
    settings = Settings(home=home_with(tmp_path, files))
    nodes = find_one(settings, "My-Pack")
    (tmp_path / "custom_nodes/My-Pack/words/__init__.py").write_text("raise SystemError('written after the look')")
    assert [spec.class_type for spec in load(nodes)] == ["Say", "Each", "Join", "Clock", "Keep"]
    with pytest.raises(InvalidRequest, match=r"lone\.py could not be loaded"):
        load(find_one(settings, "lone.py"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import comfy.utils", "They need comfy, which is not installed"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "declare none"),
        ("NODE_CLASS_MAPPINGS = {'A': object}", "Node A: its class has no INPUT_TYPES"),
    ],
)
def test_nodes_that_can_not_be_loaded_say_why(tmp_path: Path, code: str, words: str) -> None:
    settings = pinned(tmp_path, bad=code)
    with pytest.raises(AtollError) as refused:
        load(find_one(settings, "bad.py"))
    assert words in refused.value.message and refused.value.code == "custom_nodes_broken"


def test_atolls_own_nodes_are_never_replaced(tmp_path: Path) -> None:
    code = CLASSES.replace('{"Say": Say,', '{"KSampler": Say,')
    registry = running_registry(pinned(tmp_path, words=code))
    assert registry["KSampler"] is core_registry()["KSampler"]
    assert registry.get("Keep") is not None


def test_an_installed_package_brings_nodes_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "atoll_ink"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nodes.py").write_text(FUNCTIONS)
    about = tmp_path / "site" / "atoll_ink-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: atoll-ink\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[atoll.nodes]\nink = atoll_ink.nodes\none = atoll_ink.nodes:repeat\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    settings = Settings(home=tmp_path)
    assert [name for name, _, _ in states(settings)] == ["atoll-ink:ink", "atoll-ink:one"]
    for name in ("atoll-ink:ink", "atoll-ink:one"):
        nodes = find_one(settings, name)
        assert [spec.class_type for spec in load(nodes)] == ["Repeat"]
    assert running_registry(Settings(home=tmp_path, custom_nodes={nodes.name: nodes.sha256})).get("Repeat") is not None


# --- the server's side, and the command


def atoll(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["nodes", *arguments, "--home", str(home)])


def test_pinning_declares_without_running_them_here_and_keeps_the_other_settings(tmp_path: Path) -> None:
    home = home_with(tmp_path, {"words.py": CLASSES, "bad.py": "import comfy"})
    (home / "atoll.toml").write_text('port = 8000  # mine\n\n[custom_nodes]\n"old.py" = "0"\n')
    sys.modules.pop("atoll_custom_nodes_words", None)
    result = atoll(home, "pin", "words.py")
    assert result.exit_code == 0, result.output
    assert "Nodes: Say, Each, Join, Clock, Keep." in result.stdout
    assert "atoll_custom_nodes_words" not in sys.modules
    assert "# mine" in (home / "atoll.toml").read_text()

    settings = load_settings(home=home)
    nodes = find_one(settings, "words.py")
    assert settings.port == 8000 and settings.custom_nodes == {"old.py": "0", "words.py": nodes.sha256}
    declared, running = declared_registry(settings), running_registry(settings)
    for class_type in ("Say", "Each", "Join", "Clock", "Keep"):
        assert node_info(declared[class_type], NoFiles()) == node_info(running[class_type], NoFiles())
        assert declared[class_type].takes_lists == running[class_type].takes_lists
    with pytest.raises(InvalidRequest, match="in a worker only"):
        declare(settings, nodes)[0].function(context=None)

    refused = atoll(home, "pin", "bad.py")
    assert refused.exit_code == 2 and "They need comfy, which is not installed" in " ".join(refused.stderr.split())
    listed = json.loads(atoll(home, "list", "--json").stdout)["custom_nodes"]
    assert [(one["name"], one["state"]) for one in listed] == [
        ("bad.py", "off"), ("old.py", "missing"), ("words.py", "pinned"),
    ]  # fmt: skip
    assert atoll(home, "unpin", "words.py").exit_code == 0
    assert load_settings(home=home).custom_nodes == {"old.py": "0"}
    assert atoll(home, "unpin", "words.py").exit_code == 3
    assert "There are: bad.py, words.py" in " ".join(atoll(home, "pin", "none.py").stderr.split())


def test_settings_that_hold_them_otherwise_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "atoll.toml"
    path.write_text('custom_nodes = {"a.py" = "1"}\nport = 1\n')
    with pytest.raises(InvalidRequest, match="yourself"):
        save_custom_nodes(tmp_path, {"b.py": "2"})
    assert path.read_text().startswith("custom_nodes = {")
    path.write_text('[custom_nodes]\n"a.py" = "1"\n')
    save_custom_nodes(tmp_path, {})
    assert path.read_text() == ""


def test_pins_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_CUSTOM_NODES", "ink.py=12, pack:ink=34")
    assert load_settings(home=tmp_path).custom_nodes == {"ink.py": "12", "pack:ink": "34"}
