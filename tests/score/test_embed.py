from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glottis.errors import ResultError
from glottis.models import SpoofOutput
from glottis.models.inference import Window
from glottis.score.cosine import score_pairs
from glottis.score.embed import Extraction, detect_clips, embed_clips

RATE = 1000


class FakeSpeaker(nn.Module):
    """Four moments of the waveform; remembers the shapes it saw."""

    sample_rate, min_samples, embedding_size, dims = RATE, 50, 4, (4,)
    window = Window()
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, wave: Tensor) -> Any:
        assert not self.training
        self.shapes.append(tuple(wave.shape))
        moments = [wave.mean(1), wave.std(1), wave.abs().max(1).values, wave[:, 0]]
        return torch.stack(moments, dim=1) + 0.1


class Scrambling(FakeSpeaker):
    """A batch in which every clip gets its neighbour's embedding."""

    def forward(self, wave: Tensor) -> Any:
        return super().forward(wave).roll(1, dims=0)


class FakeDetector(FakeSpeaker):
    def forward(self, wave: Tensor) -> Any:
        embedding = super().forward(wave)
        return SpoofOutput(embedding, torch.stack([-wave.std(1), wave.std(1)], dim=1))


class Poisoned(FakeDetector):
    def forward(self, wave: Tensor) -> Any:
        output = super().forward(wave)
        return SpoofOutput(output.embedding, output.logits / (wave[:, :1] > 0).float())


@dataclass
class FakeSource:
    clips: list[np.ndarray]
    sample_rate: int = RATE
    reads: list[int] = field(default_factory=list)

    def num_samples(self, row: int) -> int:
        return len(self.clips[row])

    def read(self, row: int, start: int, count: int) -> np.ndarray:
        self.reads.append(row)
        return self.clips[row][start : start + count]


def some_clips(lengths: list[int], seed: int = 0) -> FakeSource:
    rng = np.random.default_rng(seed)
    return FakeSource([rng.integers(-9000, 9000, n).astype(np.int16) for n in lengths])


LENGTHS = [300, 120, 300, 455, 300, 120, 60]
NAMES = [f"clip{i}" for i in range(len(LENGTHS))]


def test_each_clip_is_read_once_in_batches_of_equal_length() -> None:
    model, source = FakeSpeaker(), some_clips(LENGTHS)
    embeddings = embed_clips(model, NAMES, source, Extraction(spot_checks=0))
    assert sorted(source.reads) == list(range(len(LENGTHS)))
    assert sorted(model.shapes) == [(1, 50), (1, 400), (2, 100), (3, 300)]
    assert list(embeddings.utterances) == NAMES


def test_rows_belong_to_their_ids_whatever_the_order() -> None:
    source = some_clips(LENGTHS)
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = FakeSource([source.clips[i] for i in order])
    one = embed_clips(FakeSpeaker(), NAMES, source)
    two = embed_clips(FakeSpeaker(), [NAMES[i] for i in order], shuffled)
    assert np.allclose(one.matrix, two.take(NAMES).matrix, atol=1e-6)
    pairs = NAMES, NAMES[::-1]
    assert score_pairs(one, *pairs) == pytest.approx(score_pairs(two, *pairs), abs=1e-6)


def test_a_batch_equals_one_by_one() -> None:
    source = some_clips(LENGTHS)
    batched = embed_clips(FakeSpeaker(), NAMES, source).matrix
    single = embed_clips(FakeSpeaker(), NAMES, source, Extraction(batch_seconds=0.001)).matrix
    assert np.allclose(batched, single, atol=1e-6)


def test_scrambled_embeddings_are_found_by_the_spot_check() -> None:
    with pytest.raises(ResultError, match=r"\[E3\] \d of 7 clips give something else alone"):
        embed_clips(Scrambling(), NAMES, some_clips(LENGTHS))


def test_spot_checks_can_be_fewer_than_the_clips() -> None:
    model = FakeSpeaker()
    embed_clips(model, NAMES, some_clips(LENGTHS), Extraction(spot_checks=2))
    assert len(model.shapes) == 4 + 2


def test_the_window_and_the_mode_of_the_model_are_respected() -> None:
    model = FakeSpeaker().train()
    embed_clips(model, NAMES, some_clips(LENGTHS), Extraction(window=Window(seconds=0.2)))
    assert {shape[1] for shape in model.shapes} == {200}
    assert model.training


def test_reading_ahead_changes_nothing() -> None:
    source = some_clips(LENGTHS)
    ahead = embed_clips(FakeSpeaker(), NAMES, source, Extraction(readers=2, spot_checks=0))
    assert sorted(source.reads) == list(range(len(LENGTHS)))
    plain = embed_clips(FakeSpeaker(), NAMES, source)
    assert np.array_equal(ahead.matrix, plain.matrix)


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    how = Extraction(progress=lambda done, total: calls.append((done, total)))
    embed_clips(FakeSpeaker(), NAMES, some_clips(LENGTHS), how)
    assert calls[-1] == (7, 7)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_detection_scores_are_the_bonafide_logit_in_order() -> None:
    source = some_clips(LENGTHS)
    scores = detect_clips(FakeDetector(), NAMES, source, Extraction(window=Window(seconds=0.06)))
    by_hand = [np.std(clip[:60] / 32768, ddof=1) for clip in source.clips]
    assert scores == pytest.approx(by_hand, abs=1e-5)


def test_non_finite_scores_name_the_clips() -> None:
    source = some_clips(LENGTHS)
    for clip in source.clips:
        clip[0] = 5
    source.clips[3][0] = -5
    with pytest.raises(ResultError, match=r"1 of 7 outputs are not finite: clip3"):
        detect_clips(Poisoned(), NAMES, source)


def test_clips_at_another_rate_are_refused() -> None:
    source = some_clips(LENGTHS)
    source.sample_rate = 8000
    with pytest.raises(ResultError, match="8000 Hz, the model expects 1000"):
        embed_clips(FakeSpeaker(), NAMES, source)


def test_no_clips_give_no_embeddings() -> None:
    assert embed_clips(FakeSpeaker(), [], some_clips([])).matrix.shape == (0, 4)
