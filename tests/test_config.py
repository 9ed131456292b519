"""Configuration: strict, complete, frozen, hashed, and every field read by somebody."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from glottis.config import (
    Choice,
    Config,
    SpeedOnly,
    build,
    differences,
    fingerprint,
    require_all_read,
    to_tree,
    to_yaml,
    unread,
)
from glottis.configfile import apply_overrides, merge, parse_value, read_mapping, read_tree
from glottis.errors import ConfigError
from glottis.models import MODELS
from glottis.registry import Registry


class SmallConfig(Config):
    width: int = Field(8, ge=1, le=64)
    """Channels."""


class DeepConfig(Config):
    depth: int = 3
    """Layers."""
    rates: tuple[float, ...] = (0.1, 0.2)
    """One per layer."""


NETS: Registry[type] = Registry("net", "glottis.version")
NETS.register("small", SmallConfig)(int)
NETS.register("deep", DeepConfig)(float)


class OptimConfig(Config):
    rate: float = Field(1e-3, gt=0)
    """Learning rate."""
    workers: Annotated[int, SpeedOnly] = 2
    """Speed only."""


class RecipeConfig(Config):
    net: Annotated[Config, Choice(NETS)]
    """The network."""
    extras: Annotated[tuple[Config, ...], Choice(NETS)] = ()
    """More of them."""
    optim: OptimConfig = OptimConfig()
    """The optimiser."""
    flag: bool = False
    """A switch."""
    root: Path = Path()
    """A folder."""


TREE = {"net": {"name": "small", "width": 4}, "extras": [{"name": "deep", "depth": 1}]}


def problems(tree: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(RecipeConfig, tree, "recipe.yaml")
    return str(caught.value)


def test_components_are_typed_by_their_name() -> None:
    config = build(RecipeConfig, TREE)
    assert isinstance(config.net, SmallConfig)
    assert isinstance(config.extras[0], DeepConfig)
    assert config.net.width == 4
    assert NETS.entry_of(config.net).target is int


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    text = problems(
        {
            "net": {"name": "small", "widht": 3},
            "extras": [{"name": "dep"}, {"name": "deep", "depth": "2"}],
            "optim": {"rate": -1},
            "flagg": True,
        }
    )
    assert "5 problems" in text
    assert "net.widht: unknown key; did you mean 'width'?" in text
    assert "extras.0.name: there is no net called 'dep'" in text
    assert "did you mean deep" in text
    assert "extras.1.depth: must be a valid integer, not the text '2'" in text
    assert "optim.rate: must be greater than 0" in text
    assert "flagg: unknown key; did you mean 'flag'?" in text


def test_missing_keys_are_named() -> None:
    assert "net: missing" in problems({})
    assert "needs 'name'" in problems({"net": {"width": 3}})


@pytest.mark.parametrize(
    ("key", "value"),
    [("flag", "True"), ("flag", 1), ("root", 3), ("optim", {"rate": "1e-4"}), ("optim", [])],
)
def test_nothing_is_converted_that_is_not_of_the_type(key: str, value: object) -> None:
    assert key in problems({**TREE, key: value})


def test_a_text_where_something_else_belongs_says_what_to_write() -> None:
    text = problems({"net": "Small", "flag": "False", "optim": {"rate": "1 // slow"}})
    assert "net: needs 'name', the net to use; there is no 'Small'; did you mean 'small'?" in text
    assert "net: needs 'name', the net to use; write {name: deep}" in problems({"net": "deep"})
    assert "flag: must be true or false, not the text 'False'; remove the quotes" in text
    assert "a comment begins with #" in text


def test_hints_are_asked_about_unknown_keys_and_components_only() -> None:
    asked = []

    def hint(path: str, value: object) -> str:
        asked.append(path)
        return "write net.width" if path.endswith("broad") else ""

    tree = {"net": {"name": "smal", "width": "3"}, "old": {"broad": 3, "narrow": 4}, "flag": 2}
    with pytest.raises(ConfigError) as caught:
        build(RecipeConfig, tree, "recipe.yaml", hint)
    assert sorted(asked) == ["net.name", "old", "old.broad", "old.narrow"]
    assert "old.broad: write net.width" in caught.value.seen
    assert "migrating" in caught.value.fix
    assert caught.value.why


def test_an_integer_is_a_fine_float_and_nothing_else_is() -> None:
    assert build(RecipeConfig, {**TREE, "optim": {"rate": 1}}).optim.rate == 1.0
    assert "width" in problems({"net": {"name": "small", "width": 4.5}})
    assert "width" in problems({"net": {"name": "small", "width": True}})


def test_a_config_cannot_be_changed() -> None:
    config = build(RecipeConfig, TREE)
    with pytest.raises(ValidationError):
        config.flag = True


def test_the_resolved_config_builds_an_equal_one(tmp_path: Path) -> None:
    config = build(RecipeConfig, TREE)
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(config))
    again = build(RecipeConfig, read_tree(path))
    assert again == config
    assert fingerprint(again) == fingerprint(config)
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_fingerprint_sees_numbers_and_not_speed() -> None:
    base = fingerprint(build(RecipeConfig, TREE))
    assert fingerprint(build(RecipeConfig, {**TREE, "optim": {"workers": 9}})) == base
    assert fingerprint(build(RecipeConfig, {**TREE, "optim": {"rate": 9.0}})) != base
    assert fingerprint(build(RecipeConfig, {**TREE, "net": {"name": "deep"}})) != base


def test_unread_settings_are_an_error() -> None:
    config = build(RecipeConfig, TREE)
    assert "net.width" in unread(config)
    with pytest.raises(ConfigError, match=r"net\.width"):
        require_all_read(config)
    _ = config.net.width, config.net.name, config.flag, config.root  # type: ignore[attr-defined]
    _ = config.optim.rate, config.optim.workers
    assert unread(config) == ["extras.0.depth", "extras.0.rates", "extras.0.name"]
    _ = [(e.depth, e.rates, e.name) for e in config.extras]  # type: ignore[attr-defined]
    require_all_read(config)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("aasist", {"frequency_mask_width": 9}, "'frequency_mask_width' does nothing here"),
        ("nested_original", {"norm_groups": 4}, "acts only with norm=mixed or norm=group"),
        ("lstm_autoencoder", {"lstm_layers": 1, "lstm_dropout": 0.1}, "two or more lstm_layers"),
    ],
)
def test_an_option_that_others_switch_off_is_refused(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        MODELS.config(name, **options)
    idle = dict(list(options.items())[:-1])
    assert to_tree(MODELS.config(name, **idle))  # at its default it does not matter


def test_printing_and_comparing_do_not_count_as_reading() -> None:
    config = build(RecipeConfig, TREE)
    text = (repr(config), to_yaml(config), fingerprint(config), config == config, to_tree(config))
    assert text
    assert "optim.rate" in unread(config)


def test_differences_name_keys_and_values() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]


# ------------------------------------------------------------------------------ files


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_duplicate_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "a: 1\nb: 2\na: 3\n")
    with pytest.raises(ConfigError, match="line 3: the key 'a' stands twice"):
        read_mapping(path)


def test_scalars_are_read_as_people_mean_them(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.yaml",
        "a: 1e-4\nb: yes\nc: true\nd: 010\ne: 1:30\nf: .5\ng: null\nh: 2026-01-01\n",
    )
    values = read_mapping(path)
    assert values == {
        **{"a": 1e-4, "b": "yes", "c": True, "d": 10},
        **{"e": "1:30", "f": 0.5, "g": None, "h": "2026-01-01"},
    }


@pytest.mark.parametrize(
    "text", ["a: [1\n", "- 1\n", "a: 1\n b: 2\n", "1: 2\n", "", "a: !!python/name:os.system\n"]
)
def test_files_that_are_no_recipe_are_clear_errors(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_mapping(write(tmp_path, "a.yaml", text))


def test_a_missing_or_binary_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_mapping(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        read_mapping(tmp_path / "b.yaml")


BASE = "net: {name: small, width: 4}\nflag: true\noptim: {rate: 0.5}\n"
OVER = "extends: base.yaml\noptim: {workers: 3}\nnet: {name: deep}\n"


def test_extends_is_one_level(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", BASE)
    over = write(tmp_path, "over.yaml", OVER)
    assert read_tree(over) == {
        "net": {"name": "deep"},  # another name: nothing of the old section stays
        "flag": True,
        "optim": {"rate": 0.5, "workers": 3},
    }
    write(tmp_path, "third.yaml", "extends: over.yaml\n")
    with pytest.raises(ConfigError, match="one level"):
        read_tree(tmp_path / "third.yaml")


def test_overrides_use_the_same_checks() -> None:
    tree = apply_overrides(TREE, ["optim.rate=2e-4", "extras.0.depth=7", "flag=true"])
    config = build(RecipeConfig, tree)
    assert config.optim.rate == 2e-4
    assert config.extras[0].depth == 7  # type: ignore[attr-defined]
    assert config.flag is True
    assert "not the text 'yes'" in problems(apply_overrides(TREE, ["flag=yes"]))
    assert "did you mean 'optim'" in problems(apply_overrides(TREE, ["optm.rate=1.0"]))


def test_an_override_of_a_name_drops_the_old_options_only() -> None:
    tree = apply_overrides(TREE, ["net.depth=5", "net.name=deep"])
    assert tree["net"] == {"name": "deep", "depth": 5}
    assert TREE["net"] == {"name": "small", "width": 4}


@pytest.mark.parametrize("text", ["optim.rate", "=3", "extras.7.depth=1", "flag.x=1", "extras.x=1"])
def test_impossible_overrides_are_clear_errors(text: str) -> None:
    with pytest.raises(ConfigError):
        apply_overrides({**TREE, "flag": False}, [text])


def test_merge_keeps_what_the_overlay_does_not_name() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_parse_value_reads_lists_and_text() -> None:
    assert parse_value("[1, 2.0, x]", "k=v") == [1, 2.0, "x"]


# ------------------------------------------------------------------------------ registry


def test_registering_twice_is_an_error() -> None:
    registry: Registry[type] = Registry("thing", "glottis.version")
    registry.register("a", SmallConfig)(int)
    with pytest.raises(ConfigError, match="registered twice"):
        registry.register("a", SmallConfig)(float)


def test_an_unknown_name_shows_close_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean small"):
        NETS["smal"]


def test_a_room_that_cannot_be_imported_says_so_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "a_broken_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "thing.py").write_text("import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[type] = Registry("thing", "a_broken_room")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
            registry.names()


def test_config_by_name_is_checked() -> None:
    config = NETS.config("small", width=5)
    assert isinstance(config, SmallConfig)
    with pytest.raises(ConfigError, match="width"):
        NETS.config("small", width=500)


JSON = '{\n\t"net": {"name": "small", "width": 4}, NOTE\n\t"flag": true\n}\n'


def test_a_json_file_is_read_like_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(JSON.replace(" NOTE", ""))
    assert read_mapping(path) == {"net": {"name": "small", "width": 4}, "flag": True}
    path.write_text('{"flag": true,\n "flag": false}')
    with pytest.raises(ConfigError, match="line 2: the key 'flag' stands twice"):
        read_mapping(path)


@pytest.mark.parametrize("note", ["// a note", "//", "/* a note */"])
def test_a_comment_in_json_is_named_with_its_line(tmp_path: Path, note: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(JSON.replace("NOTE", note))
    with pytest.raises(ConfigError, match=r"recipe.json: line 2: '/[/*]' begins a comment"):
        read_mapping(path)


def test_slashes_in_a_text_are_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    tree = {"root": "http://host//folder /* x", 'quoted " // key': "a // b"}
    path.write_text(json.dumps(tree))
    assert read_mapping(path) == tree
