"""Every switch of a recipe takes effect: read back, counted, or compared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glottis.data.batch import Batch
from glottis.data.loader import Loader
from glottis.errors import ConfigError, DataError, TrainingStopped
from glottis.report.history import read_metrics
from glottis.train import engine as engine_module
from glottis.train import train_recipe
from glottis.train.assemble import assemble
from glottis.train.engine import Trainer
from glottis.train.runtime import pick_device
from glottis.train.step import step
from helpers.tones import recipe, speaker_tree, spoof_tree, write_corpus


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(autouse=True)
def _torch_flags() -> Iterator[None]:
    backends = torch.backends
    saved = (
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
        torch.get_num_threads(),
    )
    yield
    torch.use_deterministic_algorithms(False)
    backends.cudnn.benchmark, backends.cudnn.deterministic = saved[0], saved[1]
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = saved[2], saved[3]
    torch.set_num_threads(saved[4])


def trainer(tones: Path, tmp_path: Path, make: Any = speaker_tree, **changes: Any) -> Trainer:
    changes = {"evaluate": {}, **changes}
    return assemble(recipe(make(tones, **changes)), tmp_path / "run").trainer


def one_step(made: Trainer, **changes: Any) -> dict[str, torch.Tensor]:
    made.task.train()
    batch = next(made.loader.batches(0, 1))
    options = {"accumulation": made.phase.accumulation, "clip_norm": made.phase.clip_norm}
    return step(made.task, batch, made.optim, made.precision, **(options | changes))


# ------------------------------------------------------------------------------ data


def test_loader_switches_reach_the_loader(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fake(dataset: Any, **options: Any) -> Iterator[Batch]:
        seen.update(options)
        return iter(())

    data = {"workers": 3, "prefetch": 7, "pin_memory": True, "start_method": "spawn"}
    made = trainer(tones, tmp_path, **{f"data__{key}": value for key, value in data.items()})
    monkeypatch.setattr("glottis.data.loader.DataLoader", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert list(made.loader.batches(0, 2)) == []
    assert seen["num_workers"] == 3
    assert seen["prefetch_factor"] == 7
    assert seen["pin_memory"] is True
    assert seen["persistent_workers"] is True
    assert seen["multiprocessing_context"] == "spawn"


class Pids(torch.utils.data.Dataset[Any]):
    """Batches that say which process made them."""

    group = 0

    def __getitems__(self, draws: Any) -> int:
        return os.getpid()


@pytest.mark.parametrize("persistent", [True, False])
def test_persistent_workers_live_across_epochs(
    tones: Path, tmp_path: Path, persistent: bool
) -> None:
    made = trainer(tones, tmp_path, data__workers=1, data__persistent_workers=persistent)
    loader = Loader(Pids(), made.loader.sampler, made.loader.options)  # type: ignore[arg-type]
    pids = list(loader.batches(0, 2 * loader.steps_per_epoch))
    assert os.getpid() not in pids
    assert len(set(pids)) == (1 if persistent else 2)  # type: ignore[arg-type]


def test_drop_last_decides_about_the_incomplete_batch(tones: Path, tmp_path: Path) -> None:
    kept = trainer(tones, tmp_path, batch__size=7, data__drop_last=False)
    assert kept.loader.steps_per_epoch == 4  # 24 clips
    (tmp_path / "run" / "run.json").unlink()
    assert trainer(tones, tmp_path, batch__size=7).loader.steps_per_epoch == 3


def test_non_blocking_reaches_the_copy(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    copy = Batch.to

    def spy(self: Batch, device: torch.device, *, non_blocking: bool = False) -> Batch:
        asked.append(non_blocking)
        return copy(self, device, non_blocking=non_blocking)

    monkeypatch.setattr(Batch, "to", spy)
    for value in (True, False):
        tree = speaker_tree(tones, train__steps=1, evaluate={}, data__non_blocking=value)
        train_recipe(recipe(tree), tmp_path / str(value))
    assert asked == [True, False]


def test_the_cache_of_decoded_clips_is_used_and_its_hit_rate_logged(
    tones: Path, tmp_path: Path
) -> None:
    tree = speaker_tree(tones, train__steps=9, evaluate={}, data__cache_mb=10, log__every_steps=9)
    train_recipe(recipe(tree), tmp_path / "run")
    rates = [r["train/cache_hit_rate"] for r in read_metrics(tmp_path / "run")]
    assert rates[-1] > 0.6  # nine batches of eight from 24 clips
    tree["data"]["cache_mb"] = 0.0
    train_recipe(recipe(tree), tmp_path / "none")
    assert "train/cache_hit_rate" not in read_metrics(tmp_path / "none")[-1]


def test_data_root_is_where_the_files_are(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="files are missing"):
        trainer(tones, tmp_path, data__root=str(tmp_path))


def test_a_root_may_come_from_the_environment(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONES", str(tones))
    made = trainer(tones, tmp_path, data__root="${TONES}")
    assert len(made.loader.dataset) == 24
    monkeypatch.delenv("TONES")
    with pytest.raises(ConfigError, match="environment variable TONES"):
        trainer(tones, tmp_path, data__root="${TONES}")


def test_broken_files_are_quarantined_and_too_many_stop_the_run(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "tones")
    for name in ("s00_0_bonafide", "s03_1_bonafide"):
        (root / f"{name}.wav").write_bytes(b"this is not audio")
    tree = speaker_tree(root, train__steps=3, evaluate={}, data__workers=1)
    result = train_recipe(recipe(tree), tmp_path / "run")
    assert result["quarantined"] == 2
    text = (tmp_path / "run" / "quarantine.jsonl").read_text()
    assert "s00_0_bonafide" in text
    assert "reason" in text
    tree["data"]["broken_budget"] = 1
    with pytest.raises(TrainingStopped, match="2 files are broken"):
        train_recipe(recipe(tree), tmp_path / "strict")
    assert (tmp_path / "strict" / "train.log").read_text().count("cannot be read") == 2


# ------------------------------------------------------------------------------ numerics


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
def test_a_compiled_network_trains_to_the_same_loss(tones: Path, tmp_path: Path) -> None:
    plain, compiled = trainer(tones, tmp_path / "a"), None
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
            made.task, batch, made.optim, made.precision, accumulation=pieces, clip_norm=0.0
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


# ------------------------------------------------------------------------------ intervals, readers


def test_intervals_are_named_by_their_unit(tones: Path, tmp_path: Path) -> None:
    made = trainer(tones, tmp_path, checkpoint={})
    assert made.phase.save_every == 5 * 3  # five epochs of three steps by default
    assert made.phase.evaluate_every == 3
    other = trainer(
        tones,
        tmp_path / "b",
        checkpoint={"every_epochs": 2},
        evaluate={"every_steps": 4, "trials": str(tones / "trials_dev.txt")},
    )
    assert (other.phase.save_every, other.phase.evaluate_every) == (6, 4)
    with pytest.raises(ConfigError, match="not both"):
        recipe(speaker_tree(tones, evaluate__every_epochs=1))


def test_evaluation_workers_read_ahead_and_change_nothing(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    threads: dict[int, set[int]] = {0: set(), 2: set()}
    import threading

    from glottis.data.source import FileSource

    read = FileSource.read
    for readers in (0, 2):

        def spy(self: Any, row: int, start: int, count: int, readers: int = readers) -> np.ndarray:
            threads[readers].add(threading.get_ident())
            return read(self, row, start, count)

        monkeypatch.setattr(FileSource, "read", spy)
        tree = speaker_tree(tones, train__steps=1, data__evaluation_workers=readers)
        tree["evaluate"]["every_steps"] = 1
        train_recipe(recipe(tree), tmp_path / str(readers))
        made[readers] = [
            r["dev/eer"] for r in read_metrics(tmp_path / str(readers)) if "dev/eer" in r
        ]
    assert made[0] == made[2]
    assert threads[0] == {threading.get_ident()}
    assert len(threads[2] - {threading.get_ident()}) >= 1


def test_nothing_is_read_from_the_device_between_log_lines(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    item, tolist = torch.Tensor.item, torch.Tensor.tolist
    inside = []

    def counted(original: Any) -> Any:
        def read(self: torch.Tensor) -> Any:
            if inside:
                reads.append(1)
            return original(self)

        return read

    original = engine_module.step

    def watched(*args: Any, **options: Any) -> Any:
        inside.append(1)
        result = original(*args, **options)
        inside.pop()
        return result

    monkeypatch.setattr(torch.Tensor, "item", counted(item))
    monkeypatch.setattr(torch.Tensor, "tolist", counted(tolist))
    monkeypatch.setattr(torch.Tensor, "__bool__", counted(torch.Tensor.__bool__))
    monkeypatch.setattr(torch.Tensor, "__float__", counted(torch.Tensor.__float__))
    monkeypatch.setattr(engine_module, "step", watched)
    tree = speaker_tree(tones, train__steps=4, evaluate={}, log__every_steps=4)
    train_recipe(recipe(tree), tmp_path / "run")
    assert reads == []
