"""How utterances become batches: lengths, order, modes, and no influence of neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glottis.errors import DataError
from glottis.models import Window, create_model, infer
from glottis.models.inference import evaluating, fit


class Counter(nn.Module):
    """Stands for a model: reports what it was given."""

    sample_rate, min_samples = 100, 20

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(2)
        self.calls: list[tuple[tuple[int, ...], bool, bool]] = []

    def forward(self, wave: Tensor) -> Tensor:
        self.calls.append((tuple(wave.shape), self.training, torch.is_grad_enabled()))
        return wave.sum(1)


def clips(lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(1))
    return [rng.standard_normal(length).astype(np.float32) for length in lengths]


def test_a_whole_utterance_is_cut_to_the_grid() -> None:
    window = Window(step_seconds=0.1, max_seconds=5.0)
    model = Counter()
    assert window.samples(137, model) == 130
    assert window.samples(139, model) == window.samples(130, model)
    assert window.samples(25, model) == 20
    assert window.samples(3, model) == 20  # repeated up to the minimum
    assert window.samples(10_000, model) == 500


def test_a_fixed_window_does_not_depend_on_the_utterance() -> None:
    window = Window(seconds=1.5)
    assert window.samples(7, Counter()) == window.samples(10_000, Counter()) == 150
    assert Window(seconds=0.01).samples(7, Counter()) == 20


def test_short_clips_are_repeated_from_the_start() -> None:
    assert fit(np.arange(3), 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert fit(np.arange(5), 3).tolist() == [0, 1, 2]


def test_every_item_once_and_equal_lengths_together() -> None:
    lengths = [137, 55, 132, 50, 131, 900, 58]
    data, model = clips(lengths), Counter()
    seen: dict[int, float] = {}
    for items, output in infer(model, lengths, data.__getitem__, window=Window(), batch_seconds=3):
        assert len(items) == len(output)
        seen |= dict(zip(items, output.tolist(), strict=True))
    assert sorted(seen) == list(range(7))
    shapes = [shape for shape, _, _ in model.calls]
    assert shapes == [(3, 50), (2, 130), (1, 130), (1, 900)]  # at most 3 s of audio each
    for item, clip in enumerate(data):
        assert seen[item] == pytest.approx(float(clip[: lengths[item] // 10 * 10].sum()), abs=1e-4)


def test_the_model_evaluates_and_gets_every_mode_back() -> None:
    model = Counter().train()
    model.inner.eval()  # a frozen part stays frozen
    results = infer(model, [50], clips([50]).__getitem__, window=Window())
    next(results)
    assert model.calls == [((1, 50), False, False)]
    assert model.training
    assert not model.inner.training
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error() -> None:
    model = Counter().train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / 0
    assert model.training


def test_wrong_lengths_are_refused() -> None:
    data = clips([50])
    with pytest.raises(DataError, match="item 0 was read as"):
        list(infer(Counter(), [60], data.__getitem__, window=Window()))
    with pytest.raises(DataError, match="item 0 has 0 samples"):
        list(infer(Counter(), [0], data.__getitem__, window=Window()))


def test_the_result_does_not_depend_on_the_company() -> None:
    model = create_model("resnetse34l", embedding_size=8, seed=0).eval()
    lengths = [16_000, 24_000, 16_100, 16_700]
    data = clips(lengths)
    together = {
        item: row
        for items, rows in infer(model, lengths, data.__getitem__, window=model.window)
        for item, row in zip(items, rows, strict=True)
    }
    for item, clip in enumerate(data):
        ((_, alone),) = infer(model, [len(clip)], lambda _i, c=clip: c, window=model.window)
        torch.testing.assert_close(together[item], alone[0], rtol=1e-5, atol=1e-6)
