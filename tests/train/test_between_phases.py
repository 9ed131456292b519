"""What goes over from one phase to the next: margins, moments, rates, sizes, frozen parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError, ModelError
from glottis.models import read_card
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.assemble import assemble
from glottis.train.state import State
from helpers.tones import recipe, speaker_tree, spoof_tree
from helpers.training import one_step, trainer

ALL: dict[str, Any] = {"name": "all", "train": {"steps": 4}}
HEAD = ALL | {"name": "head only", "parts": ["network.embedding.*", "head.*"]}
SIZES = ALL | {"name": "sizes", "loss": {"name": "matryoshka", "dims": [8, 16]}}
KEPT = {"checkpoint__keep": 20}


def tree(tones: Path, *phases: dict[str, Any], **changes: Any) -> dict[str, Any]:
    short = {"evaluate__every_steps": 2, "log__every_steps": 1, "checkpoint__every_steps": 2}
    return speaker_tree(tones, **{**short, **changes}) | {"phases": list(phases)}


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "latest" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param((ALL, HEAD), id="frozen again"),
        pytest.param(
            (ALL | {"margin": {"start": 0.0, "end": 0.5, "epochs": 1.0}}, ALL | {"name": "more"}),
            id="after a ramp",
        ),
        pytest.param((ALL, SIZES, ALL | {"name": "more"}), id="sizes and none again"),
    ],
)
def test_a_resume_in_the_second_phase_is_exact(
    phases: tuple[dict[str, Any], ...], tones: Path, tmp_path: Path
) -> None:
    made, out = recipe(tree(tones, *phases, **KEPT)), tmp_path / "run"
    train_recipe(made, out)
    whole, lines = weights(out), read_metrics(out)
    train_recipe(made, out, resume=True, checkpoint=out / "checkpoints" / "step-00000006")
    assert weights(out) == whole
    margins = [
        [line["train/margin"] for line in some if "train/margin" in line]
        for some in (lines, read_metrics(out))
    ]
    assert margins[0] == margins[1]


def test_a_ramp_ends_with_its_phase(tones: Path, tmp_path: Path) -> None:
    ramp = ALL | {"margin": {"start": 0.0, "end": 0.5, "epochs": 1.0}}
    made = assemble(recipe(tree(tones, ramp, ALL | {"name": "more"})), tmp_path / "run")
    own = made.trainer.task.head.margin
    made.trainer.train(State())
    assert made.trainer.task.head.margin == 0.5
    assert made.enter(1, made.trainer).task.head.margin == own != 0.5


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        ({"margin": 0.3}, True),  # another loss object, the same class weights
        ({"name": "sub_centre_aam"}, False),  # three for each class
    ],
)
def test_class_weights_that_go_on_keep_their_moments(
    loss: dict[str, Any], kept: bool, tones: Path, tmp_path: Path
) -> None:
    made = assemble(recipe(tree(tones, ALL, ALL | {"name": "b", "loss": loss})), tmp_path / "run")
    first = made.trainer
    state = first.train(State())
    moment = first.optim.inner.state[first.task.head.centres]["exp_avg"].clone()
    state.next_phase(first.phase.steps_per_epoch)
    second = made.enter(1, first)
    assert second.task.head is not None
    now = second.optim.inner.state[second.task.head.centres]["exp_avg"]
    assert torch.equal(now, moment) if kept else not now.any()


def test_what_a_guard_has_lowered_stays_lowered(tones: Path, tmp_path: Path) -> None:
    for declared in (False, True):
        again = ALL | {"name": "b", "raises_rate": declared}
        made = assemble(recipe(tree(tones, ALL, again)), tmp_path / str(declared))
        made.trainer.optim.lower(0.1)
        assert made.enter(1, made.trainer).optim.lowered == (1.0 if declared else 0.1)


def test_rates_are_compared_with_the_phase_that_trained_the_part(
    tones: Path, tmp_path: Path
) -> None:
    slow = {"optim": {"rate": 1e-5}}
    fast = {"rate": 1e-5, "part_rates": {"network.embedding.*": 1.0, "network": 1000.0}}
    phases = (ALL | slow, HEAD | slow, ALL | {"name": "c", "optim": fast})
    with pytest.raises(
        ConfigError, match=r"network.stem.weight to 1.00e-02; 'all' ends at 1.00e-05"
    ):
        assemble(recipe(tree(tones, *phases)), tmp_path / "run")


def test_the_best_has_all_sizes_and_a_plain_phase_has_one(tones: Path, tmp_path: Path) -> None:
    """The first phase may be better than all that follow: it lacks a size."""
    grows = [ALL, SIZES, ALL | {"name": "plain again"}]
    made = recipe(tree(tones, *grows, **KEPT))
    result = train_recipe(made, tmp_path / "run")
    assert result["best_step"] > 4
    folder = tmp_path / "run" / "checkpoints"
    dims = [read_card(folder / f"step-{step:08d}")["dims"] for step in (4, 8, 12)]
    assert dims == [[16], [8, 16], [16]]


def test_a_size_that_is_added_leaves_the_class_weights_of_the_others(
    tones: Path, tmp_path: Path
) -> None:
    one = {"name": "matryoshka", "dims": [16], "shared": False}
    two = ALL | {"name": "two", "loss": {"dims": [8, 16]}}
    made = assemble(recipe(tree(tones, ALL, two, loss=one)), tmp_path / "run")
    before = made.trainer.task.head.heads["16"].centres.detach().clone()
    head = made.enter(1, made.trainer).task.head
    assert torch.equal(head.heads["16"].centres, before)
    assert head.heads["8"].centres.shape == (6, 8)


def test_a_phase_may_have_augmentations_of_its_own(tones: Path, tmp_path: Path) -> None:
    louder = ALL | {"name": "b", "augment": [{"name": "gain", "gain_db": [-6.0, 6.0]}]}
    made = assemble(recipe(tree(tones, ALL, louder)), tmp_path / "run")
    assert made.trainer.task.augmenter is None
    second = made.enter(1, made.trainer)
    assert second.task.augmenter is not None
    assert second.task.augmenter.names == ("gain",)
    assert torch.isfinite(one_step(second)["loss"])


def test_a_teacher_is_checked_with_the_loss_and_augmentations_of_its_phase(
    tones: Path, tmp_path: Path
) -> None:
    train_recipe(recipe(speaker_tree(tones, train__steps=1, evaluate={})), tmp_path / "teacher")
    learns = {"distillation": {"teacher": str(tmp_path / "teacher"), "kind": "kl"}}
    other = ALL | {"name": "other"}
    grouped = {"batch": {"speakers": 3, "utterances": 2}, "loss": {"name": "angular_prototypical"}}
    classes = {"batch": {"size": 8}, "loss": {"name": "aam_softmax"}}
    assemble(recipe(tree(tones, ALL, other | classes | learns, **grouped)), tmp_path / "a")
    with pytest.raises(ConfigError, match="this loss does not give them"):
        assemble(recipe(tree(tones, ALL, other | grouped | learns)), tmp_path / "b")
    mixed = {"augment": [{"name": "mixup"}]}
    with pytest.raises(ConfigError, match="another voice than the teacher"):
        assemble(recipe(tree(tones, ALL, other | mixed | learns)), tmp_path / "c")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"broken_budget": 0}},
        {"data": {"cache_mb": 50.0}},
        {"data": {"evaluation_workers": 2}},
        {"evaluate": {"batch_seconds": 5.0}},
        {"checkpoint": {"keep": 7}},
    ],
)
def test_what_is_of_the_run_is_refused_in_a_phase(changes: dict[str, Any], tones: Path) -> None:
    made = recipe(tree(tones, ALL | changes))
    with pytest.raises(ConfigError, match="in a phase it would do nothing"):
        assemble(made, tones / "never")


@pytest.mark.parametrize("waiting", ["until_plateau", "guard"])
def test_what_waits_for_evaluations_needs_something_that_selects(waiting: str, tones: Path) -> None:
    made = tree(tones, ALL | ({waiting: 1} if waiting == "until_plateau" else {}))
    made["evaluate"] = {}
    if waiting == "guard":
        made["guard"] = {"evaluations": 1}
    with pytest.raises(
        ConfigError, match=f"{waiting}.* waits for evaluations, but nothing selects"
    ):
        recipe(made)


def test_a_guard_that_could_not_freeze_again_is_refused_at_the_start(
    tones: Path, tmp_path: Path
) -> None:
    grouped = {"batch": {"speakers": 3, "utterances": 2}, "loss": {"name": "triplet"}}
    made = tree(tones, ALL, **grouped) | {"guard": {"action": "freeze"}}
    with pytest.raises(ConfigError, match=r"guard.action=freeze: no parameter is called 'head"):
        assemble(recipe(made), tmp_path / "run")


def test_the_checkpoint_of_another_recipe_is_refused_calmly(tones: Path, tmp_path: Path) -> None:
    train_recipe(recipe(tree(tones, HEAD, ALL)), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    cases: list[tuple[dict[str, Any], str, str]] = [
        (tree(tones), "step-00000008", "is of phase 2; this recipe has 1"),
        (tree(tones), "step-00000004", "optimiser has groups of"),
        (tree(tones, loss={"name": "sub_centre_aam"}), "step-00000004", "has other weights"),
    ]
    for number, (other, name, says) in enumerate(cases):
        with pytest.raises(ModelError, match=says):
            train_recipe(
                recipe(other), tmp_path / f"{number}", resume=True, checkpoint=folder / name
            )


def test_the_chance_level_is_that_of_the_margin_at_the_first_step(
    tones: Path, tmp_path: Path
) -> None:
    ramp = ALL | {"margin": {"start": 0.0, "end": 0.5, "epochs": 1.0}}
    made = assemble(recipe(tree(tones, ramp)), tmp_path / "run").trainer
    guard: Any = next(one for one in made.guards if type(one).__name__ == "ChanceGuard")
    own = made.task.head.chance_loss(6)
    made.task.head.set_margin(0.0)
    without = made.task.head.chance_loss(6)
    made.train(State())
    assert guard._chance == without < own


def test_an_adapted_network_keeps_the_statistics_of_norms_without_weights(
    tones: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    adapters = {"rank": 2, "targets": ["network"]}
    made = trainer(tones, tmp_path, spoof_tree, model={"name": "lcnn"}, adapters=adapters)
    norms = {n: b.clone() for n, b in made.task.named_buffers() if "running" in n}
    assert norms.keys() <= made.task.frozen().keys()
    one_step(made)
    after = dict(made.task.named_buffers())
    assert norms
    assert all(torch.equal(after[name], value) for name, value in norms.items())


def test_a_norm_without_weights_is_named_by_its_buffers(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": {"name": "lcnn"}, "train__steps": 1}
    made = trainer(tones, tmp_path, spoof_tree, **changes)
    norms = [n for n, m in made.task.named_modules() if hasattr(m, "running_mean")]
    modules = dict(made.task.named_modules())
    bare = next(name for name in norms if not list(modules[name].parameters()))
    made.task.free(["network.classifier"])
    assert not made.task.train().get_submodule(bare).training
    made.task.free(["network.classifier", bare.removeprefix("embedder.")])
    assert made.task.train().get_submodule(bare).training


def test_momentum_may_begin_with_a_phase(tones: Path, tmp_path: Path) -> None:
    plain = HEAD | {"optim": {"name": "sgd", "momentum": 0.0, "nesterov": False}}
    heavy = ALL | {"optim": {"name": "sgd", "momentum": 0.9, "rate": 1e-3}}
    made = assemble(recipe(tree(tones, plain, heavy)), tmp_path / "run")
    state = made.trainer.train(State())
    state.next_phase(made.trainer.phase.steps_per_epoch)
    second = made.enter(1, made.trainer)
    velocities = [moments["momentum_buffer"] for moments in second.optim.inner.state.values()]
    assert not any(velocity.any() for velocity in velocities)
    assert second.train(state).step == 8
