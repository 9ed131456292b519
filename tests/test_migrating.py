"""docs/migrating.md and its table: complete, and every answer names something real."""

from __future__ import annotations

import importlib.util
import re
import shlex
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from glottis.augment import AUGMENTATIONS
from glottis.cli.main import VERBS, app
from glottis.config import Config, build
from glottis.configfile import apply_overrides, merge, read_mapping
from glottis.data.corpora import CORPORA
from glottis.errors import ConfigError
from glottis.features import FEATURES
from glottis.losses import LOSSES
from glottis.models import MODELS
from glottis.train import Recipe, load_recipe
from glottis.train.foreign import Row, groups, starts

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = {
    **{"model": MODELS, "loss": LOSSES, "features": FEATURES},
    **{"augment": AUGMENTATIONS},
}
ROWS = [row for group in groups() for row in group.rows]
BASE = {
    "speaker": {
        **{"task": "speaker", "data": {"manifest": "voices.csv"}, "batch": {"size": 8}},
        **{"model": {"name": "resnetse34l"}, "loss": {"name": "aam_softmax"}},
        **{"optim": {"name": "adam"}, "train": {"epochs": 1}},
    },
    "spoof": {
        **{"task": "spoof", "data": {"manifest": "clips.csv"}, "batch": {"size": 8}},
        **{"model": {"name": "aasist"}, "loss": {"name": "weighted_cross_entropy"}},
        **{"optim": {"name": "adam"}, "train": {"epochs": 1}},
    },
}


def named(row: Row) -> str:
    return row.item[:40]


# ---------------------------------------------------------------- complete


def items(text: str, separators: str = ",;") -> list[str]:
    """The items of an enumeration; commas in brackets and in numbers are part of an item."""
    found, depth = [""], 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        in_number = re.match(r"\d,\d{3}\b", text[max(0, i - 1) :])
        if letter in separators and depth == 0 and not in_number:
            found.append("")
        else:
            found[-1] += letter
    return [" ".join(item.split()) for item in found if item.strip()]


def test_an_enumeration_is_split_where_it_should_be() -> None:
    assert items("a (b, c), d/e 64,600; f [g, h] 2") == ["a (b, c)", "d/e 64,600", "f [g, h] 2"]
    assert items("a (b; c), d; e", ";") == ["a (b; c), d", "e"]


def test_every_key_and_command_that_users_know_has_a_row(shared: Path) -> None:
    text = (shared / "lessons.md").read_text(encoding="utf-8")
    section = text[text.index("\n## 4.") : text.index("\n## 5.")]
    pieces = re.split(r"\*\*([^*]+)\.\*\* ", section)[1:]
    known = {
        title: items(body.strip().removesuffix("."), ";" if title == "Commands" else ",;")
        for title, body in zip(pieces[::2], pieces[1::2], strict=True)
    }
    assert sum(map(len, known.values())) > 180  # the section was understood
    ours = {g.title: [row.item for row in g.rows] for g in groups() if not g.extra}
    assert ours == known


def test_a_row_says_something() -> None:
    for row in ROWS:
        assert row.here or row.write or row.values or row.note, row.item
        if row.answer in ("absent", "planned"):
            assert row.note, f"{row.item}: why?"
        if row.answer in ("ours", "replaced"):
            assert row.here, row.item
            assert not row.later, row.item
        if row.answer == "planned":
            assert row.later, f"{row.item}: what will it be?"
        assert "|" not in row.item + row.write + row.note  # it is a cell of a table


def test_a_key_has_one_answer_or_differs_by_value() -> None:
    rows = Counter(key.lower() for row in ROWS for key in row.keys)
    shared_keys = {key for key, count in rows.items() if count > 1}
    assert shared_keys == {"model", "ensemble"}


# ---------------------------------------------------------------- real


def exists(reference: str) -> bool:
    """Whether a verb, an option, a key of a recipe or a Python name is there."""
    words = reference.split()
    if words[0] == "glottis":
        return verb_exists(words[1:])
    if reference.startswith("glottis."):
        module, _, name = reference.rpartition(".")
        spec = importlib.util.find_spec(module)
        return spec is not None and hasattr(importlib.import_module(module), name)
    path, of, component = reference.partition(" of ")
    section, *rest = path.split(".")
    if of and section in COMPONENTS:
        registry = COMPONENTS[section]
        return component in registry and has_field([registry[component].config], rest)
    if of:
        variants = variants_of(Recipe.__pydantic_fields__[section].annotation)
        chosen = [v for v in variants if v.__pydantic_fields__["name"].default == component]
        return has_field(chosen, rest)
    return has_field([Recipe], [section, *rest])


def has_field(configs: list[type[Config]], path: list[str]) -> bool:
    """Whether all of these classes have a dotted field."""
    if not path:
        return True
    name, *rest = path
    if not configs or not all(name in config.__pydantic_fields__ for config in configs):
        return False
    inner = [
        v for c in configs for v in variants_of(c.__pydantic_fields__[name].annotation) if rest
    ]
    return has_field(inner, rest)


def variants_of(annotation: Any) -> list[type[Config]]:
    """The config classes that an annotation allows."""
    options = (annotation, *typing.get_args(annotation))
    return [o for o in options if isinstance(o, type) and issubclass(o, Config)]


def verb_exists(words: list[str]) -> bool:
    """``prepare``, ``train --resume``, ``prepare fakeorreal version=``."""
    if words[0] not in VERBS:
        return False
    command = get_command(app).get_command(None, words[0])  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    for i, word in enumerate(words[1:], 1):
        if word.startswith("--") and word not in options:
            return False
        if words[0] == "prepare" and i == 1 and not word.startswith("--") and word not in CORPORA:
            return False
        if word.endswith("=") and not has_field([CORPORA[words[1]].config], [word[:-1]]):
            return False
    return True


@pytest.mark.parametrize(
    ("reference", "real"),
    [
        *[("data.workers", True), ("data.worker", False), ("evaluate.window.seconds", True)],
        *[("optim.rate", True), ("optim.momentum", False), ("optim.momentum of sgd", True)],
        *[("model.dropout of se_resnet", True), ("model.dropout of resnetse34l", False)],
        *[("model.dropout of no_such_model", False), ("glottis train --resume", True)],
        *[("glottis train --restart", False), ("glottis no_such_verb", False)],
        ("glottis prepare fakeorreal version=", True),
        *[("glottis prepare fakeorreal verson=", False), ("glottis prepare nocorpus", False)],
        *[("glottis.score.min_dcf", True), ("glottis.score.no_such_name", False)],
    ],
)
def test_what_does_not_exist_is_found_out(reference: str, real: bool) -> None:
    assert exists(reference) is real


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_what_a_row_names_exists_and_what_is_not_there_yet_does_not(row: Row) -> None:
    for reference in row.here:
        assert exists(reference), f"{row.item}: there is no {reference}"
    for reference in row.later:
        assert not exists(reference), (
            f"{reference} exists now: correct the row '{row.item}' of foreign.yaml, "
            "then run tools/write_migrating.py"
        )


# ---------------------------------------------------------------- what to write


def texts(row: Row) -> Iterator[str]:
    yield from [row.write] if row.write else []
    yield from row.values.values()


@pytest.mark.parametrize("row", [row for row in ROWS if any(texts(row))], ids=named)
def test_what_to_write_is_accepted(row: Row) -> None:
    for text in texts(row):
        words = shlex.split(text)
        if words[0] in ("glottis", "torchrun"):
            assert verb_exists(words[words.index("glottis") + 1 :]), text
            words = [w for w in words if "=" in w and "glottis prepare" not in text]
        build(Recipe, apply_overrides(BASE[row.base], [w for w in words if "=" in w]), text)


def test_what_to_write_for_the_value_of_the_user() -> None:
    for row in ROWS:
        if row.same:
            last = shlex.split(row.write)[-1].partition("=")[0]
            tree = apply_overrides(BASE[row.base], shlex.split(row.write))
            value: Any = tree
            for part in last.split("."):
                value = value[part]
            assert apply_overrides(BASE[row.base], shlex.split(row.written(value))) == tree


COMMANDS = [
    re.sub(r" \(.*", "", command)
    for start in starts()
    for _, ours in start.rows
    for command in re.split(r"; |, then ", ours)
]


def test_each_trainer_has_five_lines_to_start_with() -> None:
    assert [len(start.rows) for start in starts()] == [5, 5, 5, 5]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "glottis train " in c])
def test_the_first_commands_are_accepted(command: str) -> None:
    words = shlex.split(command)
    recipe, *rest = words[words.index("train") + 1 :]
    load_recipe(ROOT / recipe, [word for word in rest if "=" in word])


@pytest.mark.parametrize("text", [c for c in COMMANDS if re.match(r"[a-z.]+=", c)])
def test_the_first_settings_are_accepted(text: str) -> None:
    tree = merge(BASE["speaker"], {"model": {"name": "redimnet_b2"}})
    build(Recipe, apply_overrides(tree, shlex.split(text)), text)


# ---------------------------------------------------------------- the page


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("w", ROOT / "tools" / "write_migrating.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run tools/write_migrating.py"


def test_the_page_shows_a_real_error(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    shown = page.split("```")[1].strip().splitlines()
    command = shlex.split(shown[0])
    with pytest.raises(ConfigError) as caught:
        load_recipe(ROOT / command[3], command[4:])
    said = str(caught.value).replace(f"{ROOT}/", "").splitlines()
    for line, real in zip(shown[1:], said, strict=True):
        assert real.startswith(line.removeprefix("glottis: ").removesuffix(" ..."))


def test_the_table_has_no_unknown_columns() -> None:
    table = read_mapping(ROOT / "src/glottis/train/foreign.yaml")
    assert set(table) == {"starts", "groups"}
    answers = {row["answer"] for group in table["groups"] for row in group["rows"]}
    assert answers == {"ours", "replaced", "absent", "planned"}
