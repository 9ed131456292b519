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
from glottis.train.runtime import automatic_workers
from helpers.tones import recipe, speaker_tree, write_corpus
from helpers.training import trainer

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
    off = {
        key: trainer(tones, tmp_path, **{f"data__{key}": False, "data__workers": 1})
        for key in ("pin_memory", "persistent_workers")
    }
    monkeypatch.setattr("glottis.data.loader.DataLoader", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert list(made.loader.batches(0, 2)) == []
    assert seen["num_workers"] == 3
    assert seen["prefetch_factor"] == 7
    assert seen["pin_memory"] is True
    assert seen["persistent_workers"] is True
    assert seen["multiprocessing_context"] == "spawn"
    for key, other in off.items():
        assert list(other.loader.batches(0, 2)) == []
        assert seen[key] is False


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 1), (2, 1, 2), (64, 1, 4), (4, 2, 2), (1, 2, 1)]
)
def test_the_automatic_number_of_workers_fits_the_usable_cores(
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    processes: int,
    workers: int,
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert trainer(tones, tmp_path, data__workers=None).loader.options.workers == workers
    assert trainer(tones, tmp_path, data__workers=3).loader.options.workers == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert automatic_workers() == workers


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
