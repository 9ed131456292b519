"""Report 000 rebuilt: the epsilon, the evaluation that keeps its tensors, 64 clips in 4 GB.

Each part first does what the report did, in a few plain lines, and shows that nothing complained;
then the same case here.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glottis.models import create_model
from glottis.score.embed import Extraction, embed_clips
from glottis.train.monitor import Monitor
from glottis.train.recipe import RuntimeConfig
from glottis.train.runtime import prepare_network
from glottis.train.watchers import ResourceWatcher
from helpers.memory import LivePeak
from helpers.tones import speaker_tree, write_corpus
from helpers.training import one_step, trainer

GIB = 2**30

# ------------------------------------------------------------------------------ the epsilon


def report_softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1) + 1e-10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_epsilon_on_the_softmax_cures_no_nan(bad: float) -> None:
    scores = torch.tensor([1.0, bad, 2.0])
    assert torch.isnan(report_softmax(scores)).all()  # and nothing was said
    assert torch.isnan(report_softmax(torch.full((3,), -torch.inf))).all()  # all masked: 0 / 0
    finite = torch.tensor([[1e4, -1e4, 3e38]])  # what the softmax bears without an epsilon
    assert torch.isfinite(torch.softmax(finite, dim=-1)).all()
    assert (torch.tensor(1.0) + 1e-10 == 1).item()  # fp32 does not even see it
    assert torch.tensor(1e-10, dtype=torch.float16).item() == 0


def test_the_epsilon_lets_a_nan_into_the_weights_and_the_masked_step_does_not(
    tones: Path, tmp_path: Path
) -> None:
    plain = nn.Linear(4, 3)
    optim = torch.optim.Adam(plain.parameters(), lr=1e-3)
    wave = torch.ones(2, 4)
    wave[0, 0] = float("nan")  # one bad clip
    report_softmax(plain(wave)).square().sum().backward()
    nn.utils.clip_grad_norm_(plain.parameters(), 5.0)
    optim.step()
    assert torch.isnan(plain.weight).all()  # clipping has even spread it

    made = trainer(tones, tmp_path)
    before = {name: value.clone() for name, value in made.task.state_dict().items()}
    hook = made.task.embedder.network.register_forward_hook(
        lambda module, inputs, output: output + output.new_tensor(float("nan"))
    )
    assert one_step(made)["skipped"].item() == 1
    hook.remove()
    for name, value in made.task.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert one_step(made, 1)["skipped"].item() == 0


# ------------------------------------------------------------------------------ evaluation


class Tiny(nn.Module):
    """The smallest speaker model that an evaluation takes."""

    sample_rate, min_samples, embedding_size, dims = 16000, 100, 8, (8,)
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(100, 8)

    def forward(self, wave: Tensor) -> Tensor:
        embedding: Tensor = self.layer(wave[:, :100])
        return embedding


class Clips:
    """Clips of 0.1 s, made when they are read."""

    sample_rate = 16000

    def num_samples(self, row: int) -> int:
        return 1600

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        return np.full(count, row % 100 + 1, np.int16)


def test_an_evaluation_that_keeps_its_outputs_grows_and_ours_is_flat_over_1000_batches() -> None:
    model, batches = Tiny(), 1000
    sick = 200
    kept, grown = [], []
    with LivePeak() as memory:
        for _ in range(sick):
            kept.append(model(torch.ones(1, 1600)))  # no no_grad, no detach, no .cpu()
            grown.append(memory.now)
    assert all(output.grad_fn is not None for output in kept)
    every = np.diff(grown[10:])
    assert every.min() > 0  # with every batch, to the end

    live: list[int] = []
    with LivePeak() as memory:
        how = Extraction(
            batch_seconds=0.1, spot_checks=0, progress=lambda done, total: live.append(memory.now)
        )
        model.window = create_model("resnetse34l").window  # type: ignore[assignment]
        found = embed_clips(model, [str(n) for n in range(batches)], Clips(), how)  # type: ignore[arg-type]
    assert len(live) == batches
    assert found.matrix.shape == (batches, 8)
    assert max(live[10:]) == min(live[10:])
    assert max(live) < 0.1 * grown[-1]


def lines(grows: Callable[[int], Any], steps: int) -> list[dict[str, float]]:
    """Memory after each tenth step of an evaluation on the meta device, which takes none."""
    kept = []
    found = []
    with LivePeak() as memory:
        for number in range(steps):
            kept.append(grows(number))
            if number % 10 == 0:
                found.append({"memory/process_mb": 500 + memory.now / 2**20})
    return found


def test_tensors_that_are_kept_are_told(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Linear(1000, 1000).to("meta")
    wave = torch.empty(400, 1000, device="meta")
    sick = lines(lambda _: network(wave), 320)
    healthy = lines(lambda _: network(wave).shape, 320)
    for case, expected in ((healthy, 0), (sick, 1)):
        caplog.clear()
        watcher = ResourceWatcher(steps_per_epoch=1000)
        with caplog.at_level(logging.WARNING, "glottis"):
            for number, line in enumerate(case):
                watcher.after_step(10 * number, line)
        assert len(caplog.messages) == expected
    assert "[F5] memory grows by" in caplog.text
    assert "something keeps tensors" in caplog.text


def test_growth_from_evaluation_to_evaluation_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Rare evaluations: the slope between them is flat, the steps from one to the next are not."""
    for growth, expected in ((0.0, 0), (10.0, 0), (40.0, 1)):
        caplog.clear()
        watcher = ResourceWatcher(steps_per_epoch=10**6)
        with caplog.at_level(logging.WARNING, "glottis"):
            for step in range(0, 8001, 50):
                watcher.after_step(step, {"memory/process_mb": 900 + growth * (step // 1000)})
                if step % 1000 == 950:
                    watcher.after_eval(step, {})
        assert len(caplog.messages) == expected, growth
    assert "[F5] memory grows by 40 MiB with every evaluation" in caplog.text


def test_the_monitor_sees_what_is_kept() -> None:
    """Pages fresh from the system: a tensor may lie in memory freed before, and add nothing."""
    monitor = Monitor(torch.device("cpu"))
    before = monitor.read()["memory/process_mb"]
    with mmap.mmap(-1, 64 * 2**20) as kept:
        kept[:: mmap.PAGESIZE] = bytes(64 * 2**20 // mmap.PAGESIZE)
        assert monitor.read()["memory/process_mb"] - before > 0.9 * 64


# ------------------------------------------------------------------------------ 64 clips in 4 GB


def peak_of(pieces: int, clips: int, *, recompute: bool) -> int:
    """Bytes alive at the peak of some pieces of a step of the report's AASIST, counted."""
    model: Any = create_model("aasist", seed=1).train()
    device = torch.device("meta")
    prepare_network(model, RuntimeConfig(activation_checkpointing=recompute), device)
    with LivePeak() as memory:
        for _ in range(pieces):
            wave = torch.empty(clips, 64_600, device=device)
            labels = torch.zeros(clips, dtype=torch.long, device=device)
            functional.cross_entropy(model(wave).logits, labels).backward()
    return memory.peak


def test_64_clips_do_not_fit_into_4_gb_and_in_pieces_they_do() -> None:
    """The network, clip length, batch and budget of the report (moments of Adam: 2 MB more)."""
    whole = peak_of(1, 64, recompute=False)
    assert whole > 6 * 4 * GIB  # out of memory, which the report met with smaller batches
    one, two = (peak_of(n, 4, recompute=True) for n in (1, 2))
    assert two < 1.3 * GIB < 4 * GIB
    assert two - one < 16 * 2**20  # of the 16 pieces, each takes what the one before has freed


def test_counting_on_the_meta_device_is_counting() -> None:
    """The same number where the tensors are real."""
    peaks = []
    for device in ("meta", "cpu"):
        model: Any = create_model("nested_report004", seed=1).train().to(device)
        with LivePeak() as memory:
            model(torch.zeros(2, 16_000, device=device)).square().sum().backward()
        peaks.append(memory.peak)
    assert peaks[0] == peaks[1] > 10 * 2**20


def test_an_effective_batch_of_64_gives_the_result_of_the_whole(tmp_path: Path) -> None:
    """Of a network without batch norm, in train mode: 16 pieces of 4, blocks computed again."""
    root = write_corpus(tmp_path / "tones", train=16, dev=2, seconds=0.45)
    changes: dict[str, Any] = {
        "model": {"name": "nested_report004", "num_levels": 3, "nested_dropout": 0.0},
        "optim": {"name": "sgd", "rate": 0.1, "momentum": 0.0},
        **{"batch__size": 64, "train__clip_norm": 1.0, "data__crop_seconds": 0.2},
    }
    small = {"train__accumulation": 16, "runtime__activation_checkpointing": True}
    results, peaks = [], []
    for name, extra in (("whole", {}), ("pieces", small)):
        made = trainer(root, tmp_path / name, speaker_tree, **changes, **extra)
        start = [p.detach().clone() for p in made.task.parameters()]
        with LivePeak() as memory:
            stats = one_step(made)
        peaks.append(memory.peak)
        moved = [p.detach() - q for p, q in zip(made.task.parameters(), start, strict=True)]
        results.append((stats, moved))
    (whole, a), (pieces, b) = results
    torch.testing.assert_close(whole["loss"], pieces["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(whole["grad_norm"], pieces["grad_norm"], rtol=1e-4, atol=0)
    for x, y in zip(a, b, strict=True):
        assert (x - y).norm() <= 2e-3 * x.norm() + 1e-7  # rounding of fp32
    assert peaks[1] < peaks[0] / 5
