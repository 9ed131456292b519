"""Configurations of five reports on other trainers, given as they stand: every key is answered.

A foreign key is refused with exit code 2 and told what to write; what is told does what it says.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from glottis.config import Config, build
from glottis.configfile import apply_overrides, read_mapping, read_tree
from glottis.train import Recipe, load_recipe
from glottis.train.assemble import assemble
from glottis.train.foreign import groups
from helpers.cli import glottis
from helpers.tones import speaker_tree, spoof_tree

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def tree(task: str) -> dict[str, Any]:
    """A recipe without any foreign key; its files do not exist."""
    return {"speaker": speaker_tree, "spoof": spoof_tree}[task](Path("nowhere"))


def refused(path: Path, *overrides: str) -> str:
    """What the command line says about a recipe that it refuses."""
    outcome = glottis("train", path, *overrides, "--out", path.parent / "run")
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert not (path.parent / "run").exists()
    return outcome.err


def value_of(recipe: Config, path: str) -> Any:
    """The value at a dotted path of a recipe."""
    here: Any = recipe
    for part in path.split("."):
        here = here[int(part)] if part.isdigit() else getattr(here, part)
    return here


# ---------------------------------------------------------------- key by key


@dataclass(frozen=True)
class Snippet:
    """What a report has in its configuration, and what it is here.

    write: the translation, which the error must contain.  Empty: there is none, and ``says`` is in
    the error instead.  gives: values of the recipe with the translation.
    """

    report: str
    key: str
    value: Any
    write: str = ""
    gives: dict[str, Any] | None = None
    says: str = ""
    task: str = "speaker"


PAIRS = "batch.size=null batch.speakers=50 batch.utterances="
SNIPPETS = [
    # 000: AASIST on a small GPU
    Snippet("000", "mixed_precision", "True", "train.precision=bf16", {"train.precision": "bf16"}),
    Snippet("000", "mixed_precision", "False", "train.precision=fp32", {"train.precision": "fp32"}),
    Snippet("000", "num_workers", 2, "data.workers=2", {"data.workers": 2}),
    Snippet("000", "cache_size", 100, "data.cache_mb=400", {"data.cache_mb": 400.0}),
    Snippet("000", "prefetch_factor", 2, "data.prefetch=2", {"data.prefetch": 2}),
    Snippet(
        *("000", "warmup_epochs", 0, "schedule.name=cosine"),
        gives={"schedule.warmup_steps": None},
    ),
    Snippet(
        *("000", "Freq_aug", "True", "model.frequency_mask=true"),
        gives={"model.frequency_mask": True},
        task="spoof",
    ),
    Snippet(
        *("000", "mixup", True, "augment='[{name: mixup, probability: 0.5, alpha: 0.5}]'"),
        gives={"augment.0.alpha": 0.5},
        task="spoof",
    ),
    Snippet(
        *("000", "focal_loss", True, "loss.name=focal loss.gamma=2 loss.alpha='[0.1, 0.9]'"),
        gives={"loss.gamma": 2.0, "loss.alpha": (0.1, 0.9)},
        task="spoof",
    ),
    Snippet("000", "batch_size", 64, "batch.size=64", {"batch.size": 64}),
    Snippet("000", "max_norm", 5.0, "train.clip_norm=5.0", {"train.clip_norm": 5.0}),
    Snippet("000", "empty_cache", True, says="left out on purpose"),
    # 001: bottlenecks of a VoxCeleb trainer
    Snippet("001", "batch_size", 128, "batch.size=128", {"batch.size": 128}),
    Snippet("001", "nDataLoaderThread", 8, "data.workers=8", {"data.workers": 8}),
    Snippet("001", "pin_memory", True, "data.pin_memory=true", {"data.pin_memory": True}),
    Snippet("001", "prefetch_factor", 3, "data.prefetch=3", {"data.prefetch": 3}),
    Snippet(
        *("001", "persistent_workers", True, "data.persistent_workers=true"),
        gives={"data.persistent_workers": True},
    ),
    Snippet("001", "drop_last", True, "data.drop_last=true", {"data.drop_last": True}),
    Snippet("001", "mixedprec", True, "train.precision=bf16", {"train.precision": "bf16"}),
    Snippet(
        *("001", "accumulation_steps", 4, "batch.size=400 train.accumulation=4"),
        gives={"batch.size": 400, "train.accumulation": 4},
    ),
    Snippet("001", "test_interval", 3, "evaluate.every_epochs=3", {"evaluate.every_epochs": 3}),
    Snippet("001", "train_path", "/fast", "data.root=/fast", {"data.root": "/fast"}),
    Snippet(
        *("001", "nPerSpeaker", 2, f"{PAIRS}2 loss.name=angular_prototypical"),
        gives={"batch.speakers": 50, "batch.utterances": 2},
    ),
    Snippet("001", "nPerSpeaker", 1, "batch.size=100", {"batch.utterances": None}),
    Snippet(
        *("001", "model", "ResNetSE152", "model.name=resnetse152"),
        gives={"model.num_blocks": (3, 8, 36, 3)},
    ),
    Snippet("001", "model", "ResNetSE34L", "model.name=resnetse34l", {"model.pooling": "sap"}),
    Snippet(
        *("001", "use_checkpoint", True, "runtime.activation_checkpointing=true"),
        gives={"runtime.activation_checkpointing": True},
    ),
    Snippet("001", "nLcasses", 5994, says="left out on purpose: The classes are counted"),
    # 002: Matryoshka ReDimNet
    Snippet(
        *("002", "mrl_dims", [64, 128, 192, 256]),
        write="model.embedding_size=256 loss.name=matryoshka loss.dims='[64, 128, 192, 256]'",
        gives={"loss.dims": (64, 128, 192, 256), "model.embedding_size": 256},
    ),
    Snippet(
        *("002", "dropout", 0.1, "model.name=mlp_mixer model.dropout=0.1"),
        gives={"model.dropout": 0.1},
    ),
    Snippet(
        *("002", "feat_agg_dropout", 0.1, "model.name=redimnet_b2 model.aggregation_dropout=0.1"),
        gives={"model.aggregation_dropout": 0.1},
    ),
    Snippet("002", "weight_decay", 1e-3, "optim.weight_decay=0.001", {"optim.weight_decay": 1e-3}),
    Snippet("002", "learning_rate", 1e-4, "optim.rate=0.0001", {"optim.rate": 1e-4}),
    Snippet("002", "learning_rate", "1e-4", "optim.rate=1e-4", {"optim.rate": 1e-4}),
    Snippet("002", "freeze_backbone_epochs", 15, says="not there yet: Stages"),
    Snippet("002", "progressive_mrl", True, says="not there yet: All sizes"),
    Snippet(
        "002", "label_smoothing", 0.1, "loss.label_smoothing=0.1", {"loss.label_smoothing": 0.1}
    ),
    Snippet("002", "backbone_lr", 1e-5, says="not there yet: Two rates"),
    Snippet("002", "use_eer_validation", True, "evaluate.trials=trials_dev.txt", {}),
    Snippet(
        *("002", "wandb_project", "mrl", "log.wandb_project=voices log.wandb_tags='[baseline]'"),
        gives={"log.wandb_tags": ("baseline",)},
    ),
    # 003: speed-ups of a deepfake detector
    Snippet("003", "use_amp", True, "train.precision=bf16", {"train.precision": "bf16"}),
    Snippet(
        *("003", "cudnn_benchmark_toggle", "True", "runtime.cudnn_benchmark=true"),
        gives={"runtime.cudnn_benchmark": True},
    ),
    Snippet(
        *("003", "cudnn_deterministic_toggle", "False", "runtime.deterministic=false"),
        gives={"runtime.deterministic": False},
    ),
    Snippet("003", "use_compile", False, "runtime.compile=true", {"runtime.compile": True}),
    Snippet("003", "preset", "balanced", says="not there yet: The keys are there one by one"),
    # 004: nested network
    Snippet(
        *("004", "num_levels", 5, "model.name=nested model.num_levels=5"),
        gives={"model.num_levels": 5},
    ),
    Snippet(
        *("004", "fusion_type", "sum", "model.name=nested model.fusion=sum"),
        gives={"model.fusion": "sum"},
    ),
    Snippet("004", "lr", 8e-4, "optim.rate=0.0008", {"optim.rate": 8e-4}),
    Snippet(
        *("004", "lr_decay", 0.97, "schedule.name=step schedule.every_epochs=1"),
        gives={"schedule.every_epochs": 1},
    ),
    Snippet("004", "weight_decay", 2e-4, "optim.weight_decay=0.0002", {}),
    Snippet("004", "batch_size", 48, "batch.size=48", {"batch.size": 48}),
    Snippet("004", "max_epoch", 150, "train.epochs=150", None),
    Snippet(
        *("004", "patience", 20, "evaluate.trials=trials_dev.txt evaluate.patience=20"),
        gives={"evaluate.patience": 20},
    ),
    Snippet("004", "encoder_type", "SAP", "model.pooling=sap", {"model.pooling": "sap"}),
]


def named(snippet: Snippet) -> str:
    return f"{snippet.report} {snippet.key}={snippet.value}"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=named)
def test_a_key_in_a_json_recipe_is_answered(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tree(snippet.task) | {snippet.key: snippet.value}, indent=4))
    said = refused(path)
    assert f"  {snippet.key}: " in said
    assert snippet.write in said
    assert snippet.says in said
    assert "why: a key that nothing reads" in said
    assert "fix: " in said


@pytest.mark.parametrize("snippet", SNIPPETS, ids=named)
def test_an_override_is_answered(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree(snippet.task)))
    said = refused(path, f"{snippet.key}={json.dumps(snippet.value)}")
    assert snippet.write in said
    assert snippet.says in said


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if s.write], ids=named)
def test_the_translation_does_what_it_says(snippet: Snippet) -> None:
    words = shlex.split(snippet.write)
    words += ["train.steps=null"] if "train.epochs" in snippet.write else []
    words += ["evaluate.every_steps=null"] if "evaluate.every_epochs" in snippet.write else []
    recipe = build(Recipe, apply_overrides(tree(snippet.task), words))
    for path, value in (snippet.gives or {}).items():
        assert value_of(recipe, path) == value


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


# ---------------------------------------------------------------- what is written is applied


def test_the_dropout_of_report_002_is_in_the_network(tones: Path, tmp_path: Path) -> None:
    words = "model.name=redimnet_b0 model.aggregation_dropout=0.15 batch.size=4"
    recipe = build(Recipe, apply_overrides(speaker_tree(tones), shlex.split(words)))
    trainer = assemble(recipe, tmp_path / "run").trainer
    rates = [m.p for m in trainer.task.embedder.modules() if isinstance(m, nn.Dropout)]
    assert 0.15 in rates
    trainer.trackers.close()


def test_the_levels_of_report_004_are_in_the_network(tones: Path, tmp_path: Path) -> None:
    words = "model.name=nested model.num_levels=3 model.fusion=attention batch.size=4"
    recipe = build(Recipe, apply_overrides(speaker_tree(tones), shlex.split(words)))
    trainer = assemble(recipe, tmp_path / "run").trainer
    assert len(trainer.task.embedder.network.levels) == 3
    trainer.trackers.close()


def test_a_key_without_effect_does_not_pass(tmp_path: Path) -> None:
    """Dropout that nothing reads, which report 002 trained with for a week."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree("speaker")))
    assert "model.dropout: unknown key; write model.name=" in refused(path, "model.dropout=0.1")
