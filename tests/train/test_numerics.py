"""Every switch of the numerics takes effect, and changes only what it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.errors import ConfigError
from glottis.report.history import read_metrics
from glottis.train import train_recipe
from glottis.train.engine import Trainer
from glottis.train.runtime import pick_device
from glottis.train.step import Pieces, step
from helpers.tones import recipe, speaker_tree, spoof_tree
from helpers.training import one_step, trainer


def weights_after(made: Trainer, steps: int = 1) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        one_step(made)
    return {name: p.detach().clone() for name, p in made.task.named_parameters()}


def test_channels_last_changes_the_layout_and_hardly_the_numbers(
    tones: Path, tmp_path: Path
) -> None:
    plain = trainer(tones, tmp_path / "a")
    last = trainer(tones, tmp_path / "b", runtime__channels_last=True)
    weight = last.task.embedder.network.stages[1][0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    losses = [one_step(made)["loss"].item() for made in (plain, last)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_precision_reaches_the_network(tones: Path, tmp_path: Path) -> None:
    losses = {}
    for name in ("fp32", "bf16", "fp16"):
        made = trainer(tones, tmp_path / name, train__precision=name)
        dtypes: list[torch.dtype] = []
        layer = made.task.embedder.network.stages[0][0].conv1
        layer.register_forward_hook(lambda m, i, o, seen=dtypes: seen.append(o.dtype))
        made.precision.scale.clamp_(max=64.0)  # the first fp16 scale overflows, by design
        stats = one_step(made)
        assert dtypes == [made.precision.dtype]
        assert stats["skipped"].item() == 0
        losses[name] = stats["loss"].item()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_activation_checkpointing_recomputes_and_changes_nothing(
    tones: Path, tmp_path: Path
) -> None:
    plain = trainer(tones, tmp_path / "a")
    saved = trainer(tones, tmp_path / "b", runtime__activation_checkpointing=True)
    calls = {"plain": 0, "saved": 0}
    for name, made in (("plain", plain), ("saved", saved)):
        conv = made.task.embedder.network.stages[1][1].conv1

        def count(*_: Any, name: str = name) -> None:
            calls[name] += 1

        conv.register_forward_hook(count)
    one, other = weights_after(plain), weights_after(saved)
    assert calls == {"plain": 1, "saved": 2}
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)
    for a, b in zip(plain.task.buffers(), saved.task.buffers(), strict=True):
        torch.testing.assert_close(a, b)  # batch norm saw the batch once
    keys = saved.task.embedder.state_dict().keys()
    assert keys == plain.task.embedder.state_dict().keys()


def test_compile_is_asked_for_and_keeps_the_names(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **k: asked.append(k))
    made = trainer(tones, tmp_path, runtime__compile=True)
    assert asked == [{"dynamic": False}]
    assert not any("_orig_mod" in name for name in made.task.embedder.state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*torch.jit:DeprecationWarning")  # the compiler's own imports
def test_a_compiled_network_trains_to_the_same_loss(tones: Path, tmp_path: Path) -> None:
    plain = trainer(tones, tmp_path / "a")
    compiled = trainer(tones, tmp_path / "b", runtime__compile=True)
    losses = [one_step(made)["loss"].item() for made in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_backend_flags_are_set(tones: Path, tmp_path: Path) -> None:
    trainer(tones, tmp_path / "a", runtime__tf32=False, runtime__cudnn_benchmark=False)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark
    trainer(tones, tmp_path / "b", runtime__tf32=True, runtime__cudnn_benchmark=True)
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark
    trainer(tones, tmp_path / "c", runtime__deterministic=True, runtime__threads=1)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert torch.get_num_threads() == 1


def test_an_unavailable_device_is_an_error_and_not_a_fallback() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="this machine has none"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="not a device"):
        pick_device("gpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("loss", [None, [0.1, 0.9]])
def test_accumulation_has_the_gradient_of_the_whole_batch(
    tones: Path, tmp_path: Path, loss: list[float] | None
) -> None:
    # batch norm sees the pieces by design: it is put into eval() here to compare the rest
    changes: dict[str, Any] = {"optim": {"name": "sgd", "rate": 0.1, "momentum": 0.0}}
    if loss:
        changes["loss"] = {"name": "weighted_cross_entropy", "class_weights": loss}
    make = spoof_tree if loss else speaker_tree
    results = []
    for pieces in (1, 3):
        made = trainer(tones, tmp_path / str(pieces), make, train__accumulation=pieces, **changes)
        batch = next(made.loader.batches(0, 1))
        made.task.eval()
        made.task.training = False
        stats = step(
            made.task, batch, made.optim, made.precision, pieces=Pieces(pieces), clip_norm=0.0
        )
        results.append((stats, [p.detach().clone() for p in made.task.parameters()]))
    assert results[0][0]["loss"].item() == pytest.approx(results[1][0]["loss"].item(), rel=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_clipping_limits_the_update_and_reports_the_norm_before(
    tones: Path, tmp_path: Path
) -> None:
    changes = {"optim": {"name": "sgd", "rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}}
    made = trainer(tones, tmp_path, train__clip_norm=0.5, **changes)
    before = [p.detach().clone() for p in made.optim.parameters]
    stats = one_step(made)
    moved = torch.cat(
        [(p - q).flatten() for p, q in zip(made.optim.parameters, before, strict=True)]
    )
    assert stats["grad_norm"].item() > 5
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_the_default_clip_norm_is_five(tones: Path, tmp_path: Path) -> None:
    assert trainer(tones, tmp_path).phase.clip_norm == 5.0


def test_warm_up_lowers_the_first_rates(tones: Path, tmp_path: Path) -> None:
    tree = speaker_tree(
        tones,
        train__steps=4,
        evaluate={},
        schedule={"name": "constant", "warmup_steps": 4},
        log__every_steps=1,
        checkpoint__every_steps=4,
    )
    train_recipe(recipe(tree), tmp_path / "run")
    rates = [r["train/rate"] for r in read_metrics(tmp_path / "run")]
    assert rates == pytest.approx([5e-4, 7.5e-4, 1e-3, 1e-3])  # of the step that comes next
