"""The documentation speaks of what exists: links, paths, verbs, options, names; its code runs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from glottis.cli.main import VERBS, app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OUR_PATH = re.compile(r"(?<![\w/.])(?:src|docs|tests|recipes|tools|benchmarks)/[\w./*-]*")
ROOMS = "|".join(sorted(p.name for p in (ROOT / "src/glottis").iterdir() if p.is_dir()))
ROOM_PATH = re.compile(rf"(?<![\w/.])(?:{ROOMS})/[\w/]+\.py")


def named(path: Path) -> str:
    return path.name


def fences(text: str, language: str) -> list[str]:
    """Code blocks of a language, at the margin."""
    blocks = []
    for indent, kind, code in FENCE.findall(text):
        if kind == language:
            blocks.append("".join(line.removeprefix(indent) for line in code.splitlines(True)))
    return blocks


def code_of(text: str) -> Iterator[str]:
    """Lines that are code for a shell: spans, and fences that are not Python."""
    for _, kind, code in FENCE.findall(text):
        if kind != "python":
            yield from (line.partition("  #")[0] for line in code.splitlines())
    yield from SPAN.findall(FENCE.sub("", text))


def slug(heading: str) -> str:
    """The anchor of a heading."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).split()
    return "-".join(words)


def tool(name: str) -> Any:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_keys_is_up_to_date() -> None:
    module = tool("write_keys")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run tools/write_keys.py"


def test_the_page_of_faults_is_up_to_date() -> None:
    module = tool("write_reliability")
    found = module.PAGE.read_text(encoding="utf-8")
    assert found == module.page(), "run tools/write_reliability.py"


def test_the_page_of_models_is_up_to_date() -> None:
    from glottis.models import MODELS
    from glottis.models.facts import facts

    module = tool("write_zoo")
    unknown = [name for name in MODELS.names() if facts(name).needs]  # an extra is not installed
    found, expected = module.PAGE.read_text(encoding="utf-8"), module.page()
    for name in unknown:
        found, expected = (
            "\n".join(line for line in text.split("\n") if not line.startswith(f"| `{name}` |"))
            for text in (found, expected)
        )
    assert found == expected, "run tools/write_zoo.py"


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_paths_of_the_repository_exist(path: Path) -> None:
    missing = []
    for line in code_of(path.read_text(encoding="utf-8")):
        for name in OUR_PATH.findall(line):
            wanted = name.rstrip(".").replace("NAME", "*")  # a place for a name of one's own
            if not list(ROOT.glob(wanted)) and not (path.parent / wanted).exists():
                missing.append(name)
        for name in ROOM_PATH.findall(line):
            if not (ROOT / "src" / "glottis" / name).exists():
                missing.append(name)
    assert not missing


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_commands_have_real_verbs_and_options(path: Path) -> None:
    group: Any = get_command(app)
    for line in code_of(path.read_text(encoding="utf-8")):
        for call in re.findall(r"(?<![\w./-])(?:-m )?glottis +([^;&|`]+)", line):
            words = call.split()
            if words[0] in ("--help", "--version", "VERB"):
                continue
            assert words[0] in VERBS, f"{path.name}: glottis {call}"
            command = group.get_command(None, words[0])
            known = {option for parameter in command.params for option in parameter.opts}
            used = {word.strip("[],.").partition("=")[0] for word in words if "--" in word}
            assert used - {"--help"} <= known, f"{path.name}: glottis {call}"


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_dotted_names_can_be_imported(path: Path) -> None:
    for span in SPAN.findall(path.read_text(encoding="utf-8")):
        if re.fullmatch(r"glottis(\.\w+)+", span):
            assert resolved(span), f"{path.name}: {span}"


def resolved(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


def test_the_site_has_every_page_and_no_other() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages(nav)) == [path.name for path in PAGES]


def pages(nav: Any) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages(value)


@pytest.fixture(scope="module")
def workplace(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    import torch
    from safetensors.torch import load_file

    import glottis
    from glottis.models import save_model

    folder = tmp_path_factory.mktemp("workplace")
    weights = load_file(shared / "golden/AASIST_weights.safetensors")
    torch.save(weights, folder / "AASIST.pth")
    copies = {
        "float32.wav": ("a.wav", "b.wav", "clip.wav"),
        "speech_aac.m4a": ("b.m4a", "clip.m4a"),
    }
    for source, names in copies.items():
        for name in names:
            shutil.copy(shared / "speech/nasty" / source, folder / name)
    model = glottis.create_model("resnetse34l", seed=1, embedding_size=256, pooling="asp")
    save_model(model, folder / "runs/mine/checkpoints/best")
    return folder


EXAMPLES = [
    pytest.param(code, id=f"{path.name} {number}")
    for path in TEXTS
    for number, code in enumerate(fences(path.read_text(encoding="utf-8"), "python"))
    if code.startswith("import glottis")
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(workplace)
    wave = torch.randn(2, 32000, generator=torch.Generator().manual_seed(0))  # (B, S)
    exec(compile(code, "example", "exec"), {"wave": wave})


def test_the_first_page_has_an_example() -> None:
    assert any("README" in str(example.id) for example in EXAMPLES)
