"""Watchers: each sign of a sick run is named once, and a healthy run hears nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glottis.models import SpoofOutput
from glottis.report.history import read_metrics
from glottis.train.guards import Guard
from glottis.train.state import State
from glottis.train.task import embedding_stats
from glottis.train.watchers import (
    EmbeddingWatcher,
    GradientWatcher,
    ResourceWatcher,
    ScaleWatcher,
    SelectionWatcher,
)
from helpers.training import trainer

Line = dict[str, float]


def heard(guard: Guard, lines: Iterator[Line], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a watcher says of lines that come every tenth step."""
    caplog.clear()
    for number, line in enumerate(lines, 1):
        if any(name.startswith("dev/") for name in line):
            guard.after_eval(10 * number, line)
        else:
            guard.after_step(10 * number, line)
    return caplog.messages


def norms(*values: float, clipped: float = 0.0) -> Iterator[Line]:
    return ({"grad_norm": value, "clipped": clipped} for value in values)


def test_gradient_norms_that_jump_double_or_are_always_clipped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def made() -> Guard:
        return GradientWatcher(steps_per_epoch=100)

    assert heard(made(), norms(*[2.0, 3.0] * 30), caplog) == []
    (said,) = heard(made(), norms(*[2.0] * 20, 20.0, 30.0), caplog)
    assert said.startswith("[H4] the gradient norm is 20 at step 210, 10 times its median")
    (said,) = heard(made(), norms(*[2.0] * 20, *[4.5] * 20), caplog)
    assert said.startswith("[H4] the gradient norm doubled within an epoch (2 to 4.")
    (said,) = heard(made(), norms(*[2.0] * 30, clipped=0.6), caplog)
    assert said.startswith("[H4] 60 % of the gradients of the last epoch were clipped")


def test_a_loss_scale_that_collapses_or_skips(caplog: pytest.LogCaptureFixture) -> None:
    good = [{"loss_scale": 65536.0, "skipped_steps": 0.0}] * 80
    assert (
        heard(ScaleWatcher(), iter([{"loss_scale": 32768.0, "skipped_steps": 2.0}, *good]), caplog)
        == []
    )
    (said,) = heard(ScaleWatcher(), iter([*good, {"loss_scale": 0.5}]), caplog)
    assert said.startswith("[H5] the loss scale is 0.5")
    (said,) = heard(ScaleWatcher(), iter([{"loss_scale": 8.0, "skipped_steps": 0.2}] * 80), caplog)
    assert "10 of 500 steps were skipped" in said


def test_embeddings_that_collapse_or_grow(caplog: pytest.LogCaptureFixture) -> None:
    fine = [{"embedding_norm": 1.0, "embedding_cosine": 0.5}] * 20
    assert heard(EmbeddingWatcher(), iter(fine), caplog) == []
    early = [{"embedding_norm": 1.0, "embedding_cosine": 0.99}] * 9
    assert heard(EmbeddingWatcher(), iter([*early, *fine]), caplog) == []  # before 100 steps
    (said,) = heard(EmbeddingWatcher(), iter([*fine, {"embedding_cosine": 0.96}]), caplog)
    assert said.startswith("[O8] the embeddings of a batch have a mean cosine of 0.960 (step 210)")
    (said,) = heard(EmbeddingWatcher(), iter([*fine, {"embedding_norm": 12.0}]), caplog)
    assert said.startswith("[H9] the embeddings are 12 times longer")
    (said,) = heard(EmbeddingWatcher(), iter([*fine, {"embedding_norm": 0.05}]), caplog)
    assert "20 times shorter" in said


def selections(*pairs: tuple[float, float], worse: float = 0.0) -> Iterator[Line]:
    """(training loss, EER), each EER with a half width of 2 points."""
    for loss, eer in pairs:
        yield {"loss": loss}
        span = {"dev/eer": eer, "dev/eer_low": eer - 0.02, "dev/eer_high": eer + 0.02}
        yield {**span, "dev/worse_in_a_row": worse, "dev/minus_best": 0.05}


def test_training_that_learns_by_heart(caplog: pytest.LogCaptureFixture) -> None:
    healthy = selections((9.0, 0.10), (6.0, 0.09), (4.0, 0.08), (3.0, 0.08), (2.0, 0.09))
    assert heard(SelectionWatcher(), healthy, caplog) == []
    heart = selections((9.0, 0.10), (8.0, 0.10), (7.0, 0.12), (5.0, 0.16))
    (said,) = heard(SelectionWatcher(), heart, caplog)
    assert said.startswith("[H7] over three evaluations the training loss fell from 9.000 to 5.000")
    assert "rose from 10.00 to 16.00 %" in said
    within = selections((9.0, 0.10), (8.0, 0.10), (7.0, 0.12), (5.0, 0.13))
    assert heard(SelectionWatcher(), within, caplog) == []
    (said,) = heard(SelectionWatcher(), selections((9.0, 0.15), worse=3.0), caplog)
    assert said.startswith("[H8] 3 evaluations in a row are worse than the best beyond doubt")


def test_memory_that_grows_epochs_that_slow_down_and_long_evaluations(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def resources(count: int, grows: float = 0.0, slower: float = 0.0) -> Iterator[Line]:
        for n in range(count):
            memory = 1000 + grows * 10 * n
            yield {"memory/process_mb": memory, "clips_per_s": 100 * (1 - slower) ** (n / 10)}

    def made() -> Guard:
        return ResourceWatcher(steps_per_epoch=100)

    assert heard(made(), resources(80), caplog) == []
    assert heard(made(), resources(80, grows=0.5), caplog) == []
    (said,) = heard(made(), resources(80, grows=2.0), caplog)
    assert said.startswith("[F5] memory grows by 2.0 MiB per step")
    assert heard(made(), resources(9, grows=9.0), caplog) == []  # while it warms up
    (said,) = heard(made(), resources(80, slower=0.1), caplog)
    assert said.startswith("[F8] the last epoch made ")
    evaluation = {"dev/share_of_time": 0.4, "dev/seconds": 11.0}
    assert heard(made(), iter([evaluation | {"dev/seconds": 9.0}]), caplog) == []
    (said,) = heard(made(), iter([evaluation]), caplog)
    assert said.startswith("[F8] evaluations take 40 % of the time")


def test_the_cosine_of_a_batch_is_that_of_its_pairs() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    unit = torch.nn.functional.normalize(x, dim=1)
    cosines = unit @ unit.T
    pairs = [cosines[i, j] for i in range(6) for j in range(6) if i != j]
    found = embedding_stats(x)
    torch.testing.assert_close(found["embedding_cosine"], torch.stack(pairs).mean())
    torch.testing.assert_close(found["embedding_norm"], x.norm(dim=1).mean())
    alone = embedding_stats(x[:1])  # the same names: processes with unequal shares add them up
    assert alone["embedding_cosine"] == pytest.approx(0, abs=1e-6)
    spoof = embedding_stats(SpoofOutput(x, x[:, :2]))
    assert torch.equal(spoof["embedding_norm"], found["embedding_norm"])


def test_everything_that_is_watched_is_in_the_metrics(tones: Path, tmp_path: Path) -> None:
    trainer(tones, tmp_path, train__steps=2, log__every_steps=1).train(State())
    line: dict[str, Any] = read_metrics(tmp_path / "run")[-1]
    for name in ("grad_norm", "clipped", "embedding_norm", "embedding_cosine", "skipped_steps"):
        assert f"train/{name}" in line
    for name in ("rate", "margin", "loss_scale", "data_wait", "memory/process_mb", "clips_per_s"):
        assert f"train/{name}" in line
