"""Whole configuration files of the reports, and command lines of other trainers.

They are refused with exit code 2 and told, line by line, what to write.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from glottis.config import build
from glottis.configfile import apply_overrides, read_mapping, read_tree
from glottis.train import Recipe, load_recipe
from glottis.train.foreign import groups
from helpers.foreign import refused, tree, value_of

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


# ---------------------------------------------------------------- whole files


AASIST_CONF = {
    "database_path": "./LA/",
    "asv_score_path": "ASVspoof2019_LA_asv_scores/scores.txt",
    "model_path": "./models/weights/AASIST.pth",
    "batch_size": 24,
    "num_epochs": 100,
    "loss": "CCE",
    "track": "LA",
    "eval_all_best": "True",
    "eval_output": "eval_scores_using_best_dev_model.txt",
    "cudnn_deterministic_toggle": "True",
    "cudnn_benchmark_toggle": "False",
    "model_config": {
        "architecture": "AASIST",
        "nb_samp": 64600,
        "first_conv": 128,
        "filts": [70, [1, 32], [32, 32], [32, 64], [64, 64]],
        "gat_dims": [64, 32],
        "pool_ratios": [0.5, 0.7, 0.5, 0.5],
        "temperatures": [2.0, 2.0, 100.0, 100.0],
    },
    "optim_config": {
        "optimizer": "adam",
        "amsgrad": "False",
        "base_lr": 0.0001,
        "lr_min": 0.000005,
        "betas": [0.9, 0.999],
        "weight_decay": 0.0001,
        "scheduler": "cosine",
    },
}
REPORT_000 = {
    **{"mixed_precision": "True", "num_workers": 2, "cache_size": 100, "prefetch_factor": 2},
    **{"warmup_epochs": 0, "Freq_aug": "True"},
}
REPORT_002 = {
    "model": {
        **{"name": "b2", "C": 16, "F": 72, "block_1d_type": "conv+att"},
        **{"block_2d_type": "convnext_like", "embed_dim": 256, "mrl_dims": [64, 128, 192, 256]},
    },
    "data": {"train_dataset": "vox2", "val_dataset": "vox1", "num_workers": 8},
    "training": {
        **{"batch_size": 64, "num_epochs": 100, "learning_rate": 1e-4, "weight_decay": 1e-3},
        **{"dropout": 0.1, "feat_agg_dropout": 0.1, "freeze_backbone_epochs": 15},
        **{"warmup_epochs": 5, "mixed_precision": True, "grad_clip": 1.0},
    },
}
REPORT_004 = {
    **{"model": "NestedSpeakerNet", "num_levels": 4, "fusion_type": "concat", "nOut": 512},
    **{"encoder_type": "SAP", "n_mels": 80, "trainfunc": "aamsoftmax", "margin": 0.2, "scale": 30},
    **{"optimizer": "adam", "lr": 0.0008, "lr_decay": 0.97, "weight_decay": 0.0002},
    **{"batch_size": 48, "nPerSpeaker": 1, "max_epoch": 150, "patience": 20, "test_interval": 1},
    **{"train_list": "train.txt", "test_list": "test.txt", "train_path": "/vox2", "augment": True},
}


def keys_of(given: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in given.items():
        found += [prefix + key]
        found += keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) else []
    return found


@pytest.mark.parametrize(
    ("name", "given", "silent"),
    [
        ("AASIST.conf", AASIST_CONF | REPORT_000, set()),
        ("config.yaml", REPORT_002, {"model", "model.name", "data", "training"}),
        ("nested.yaml", REPORT_004, set()),
    ],
)
def test_every_key_of_a_whole_configuration_has_a_line_of_its_own(
    name: str, given: dict[str, Any], silent: set[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(given, indent="\t") if "conf" in name else yaml.safe_dump(given))
    lines = refused(path).splitlines()
    answers = {line.partition(": ")[0].strip(): line for line in lines}
    for key in keys_of(given):
        if key in silent:
            continue
        assert key in answers, key
        told = answers[key]
        assert "write " in told or "here that is" in told or "left out" in told or "yet" in told, (
            told
        )
    assert any("write model.name=" in line for line in lines)


def test_the_model_of_another_trainer_is_named_in_a_section_too(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree("speaker") | {"model": {"name": "b2"}}))
    assert "write model.name=redimnet_b2" in refused(path)


def test_aasist_conf_is_our_recipe() -> None:
    conf, ours = AASIST_CONF, read_tree(RECIPES / "aasist.yaml")
    recipe = load_recipe(RECIPES / "aasist.yaml", ["data.manifest=la.csv"])
    optim: Any = conf["optim_config"]
    network: Any = conf["model_config"]
    model: Any = recipe.model
    assert recipe.batch.size == conf["batch_size"]
    assert recipe.train.epochs == conf["num_epochs"]
    assert recipe.optim.name == optim["optimizer"]
    assert recipe.optim.rate == optim["base_lr"]
    assert recipe.optim.weight_decay == optim["weight_decay"]
    assert list(value_of(recipe, "optim.betas")) == optim["betas"]
    final = recipe.optim.rate * value_of(recipe, "schedule.final_factor")
    assert final == pytest.approx(optim["lr_min"])
    assert round(recipe.data.crop_seconds * recipe.data.sample_rate) == network["nb_samp"]
    assert list(model.graph_sizes) == network["gat_dims"]
    assert list(model.pool_ratios) == network["pool_ratios"][:3]
    assert list(model.temperatures) == network["temperatures"][:3]
    assert ours["loss"]["class_weights"] == [0.1, 0.9]


# ---------------------------------------------------------------- report 003: JSON


COMMENTED = """{
    "use_amp": true,  // automatic mixed precision
    "cudnn_benchmark_toggle": "True",  // 10-30 % faster
    "use_compile": false
}
"""


def test_json_with_comments_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(COMMENTED)
    said = refused(path)
    assert "config.json: line 2: '//' begins a comment; JSON has none" in said
    assert "why: what follows would be read as a part of the value" in said
    assert "fix: delete the comments, or write the recipe as YAML" in said


def test_the_same_without_comments_is_answered_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    lines = [line.partition("  //")[0] for line in COMMENTED.splitlines()]
    path.write_text("\n".join(lines))
    said = refused(path)
    for text in ("train.precision=bf16", "runtime.cudnn_benchmark=true", "runtime.compile=true"):
        assert text in said


@pytest.mark.parametrize("name", ["speech_resnetse34l", "aasist", "se_resnet"])
def test_a_recipe_may_be_json(name: str, tmp_path: Path) -> None:
    given = read_mapping(RECIPES / f"{name}.yaml")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(given, indent=4))
    more = ["data.manifest=clips.csv"]
    assert load_recipe(path, more) == load_recipe(RECIPES / f"{name}.yaml", more)


@pytest.mark.parametrize("value", ["True", "False", "true"])
def test_a_text_is_no_switch(value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tree("spoof") | {"runtime": {"cudnn_benchmark": value}}))
    assert (
        f"runtime.cudnn_benchmark: must be true or false, not the text '{value}'; remove the quotes"
        in refused(path)
    )


@pytest.mark.parametrize("preset", ["maximum speed", "reproducibility", "balanced"])
def test_a_preset_can_be_written_out(preset: str) -> None:
    (row,) = [row for group in groups() for row in group.rows if row.item.startswith("preset")]
    recipe = build(Recipe, apply_overrides(tree("spoof"), shlex.split(row.values[preset])))
    exact = preset == "reproducibility"
    assert recipe.runtime.deterministic is exact
    assert recipe.runtime.cudnn_benchmark is not exact
    assert recipe.train.precision == ("fp32" if exact else "bf16")
    assert recipe.runtime.compile is (preset == "maximum speed")


# ---------------------------------------------------------------- the command line of others


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "AASIST.conf"], "write glottis train RECIPE"),
        (["--batch_size=100"], "write batch.size=100"),
        (["--augment", "False"], "write augment="),
        (["--initial_model", "x.model"], "write init="),
        (["--distributed"], "torchrun"),
        (["--comment", "first"], "write description="),
        (["--eval"], "write glottis evaluate"),
    ],
)
def test_an_option_of_another_trainer_is_answered(
    words: list[str], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree("speaker")))
    said = refused(path, *words)
    assert f"there is no option '{words[0].partition('=')[0]}'" in said
    assert told in said


def test_an_option_that_nobody_knows_is_left_to_the_parser(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree("speaker")))
    assert "No such option: --no-such-thing" in refused(path, "--no-such-thing")
