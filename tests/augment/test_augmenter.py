"""A recipe's augmentations together."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from glottis.augment import AUGMENTATIONS, AugmentContext, Augmenter, build_augmenter
from glottis.errors import ConfigError
from glottis.rng import generator, torch_generator

WHITE = {"name": "noise", "kinds": ["noise white"]}
ROOM = {"name": "reverb", "simulated_rooms": 2}


def augmenter(*entries: dict[str, object]) -> Augmenter:
    configs = [AUGMENTATIONS.config(**entry) for entry in entries]
    return build_augmenter(configs, AugmentContext(seed=1))


@pytest.fixture(scope="module")
def full() -> Augmenter:
    return augmenter(
        ROOM,
        WHITE,
        {"name": "gain"},
        {"name": "speed", "as_new_speakers": True},
        {"name": "mixup"},
        {"name": "frequency_mask"},
        {"name": "time_mask"},
    )


def test_a_batch_goes_through_all_stages(full: Augmenter) -> None:
    params = [full.draw(generator(1, i), 4000) for i in range(6)]
    longest = max(full.source_samples(p, 4000) for p in params)
    assert longest == 4400
    wave = 0.1 * torch.randn(6, longest, generator=torch_generator(1))
    wave = full.apply_wave(wave, params)
    assert wave.shape == (6, 4000)
    mixed, weights = full.mix(wave, params)
    assert mixed.shape == (6, 4000)
    assert weights is not None
    assert weights[0].tolist() != list(range(6))
    features = torch.randn(6, 20, 25, generator=torch_generator(2))
    assert full.apply_features(features, params).shape == (6, 20, 25)
    assert full.label_copies == 3
    assert {full.label_offset(p) for p in params} == {0, 1, 2}


def test_logged_parameters_replay_to_the_same_bits(full: Augmenter) -> None:
    params = [full.draw(generator(2, i), 4000) for i in range(4)]
    logged = json.loads(json.dumps([full.records(p) for p in params]))
    replayed = [full.from_records(r) for r in logged]
    assert replayed == params
    wave = 0.1 * torch.randn(4, 4400, generator=torch_generator(3))
    assert torch.equal(full.apply_wave(wave, replayed), full.apply_wave(wave, params))


def test_workers_draw_what_the_main_process_would(full: Augmenter) -> None:
    worker = pickle.loads(pickle.dumps(full))
    for i in range(10):
        assert worker.draw(generator(3, i), 4000) == full.draw(generator(3, i), 4000)


def test_drawing_takes_one_number_whatever_the_recipe(full: Augmenter) -> None:
    one, two = generator(4), generator(4)
    full.draw(one, 4000)
    augmenter({"name": "gain"}).draw(two, 4000)
    assert one.random() == two.random()


def test_another_entry_changes_nobody_elses_parameters() -> None:
    small = augmenter(WHITE, {"name": "gain"})
    large = augmenter({"name": "time_mask"}, WHITE, {"name": "mixup"}, {"name": "gain"})
    for i in range(10):
        noise, gain = small.draw(generator(5, i), 4000)
        _, same_noise, _, same_gain = large.draw(generator(5, i), 4000)
        assert (noise, gain) == (same_noise, same_gain)


def test_two_entries_of_one_name_draw_independently() -> None:
    twice = augmenter({"name": "gain"}, {"name": "gain"})
    params = [twice.draw(generator(6, i), 100) for i in range(200)]
    first, second = np.array([[a.gain_db, b.gain_db] for a, b in params]).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(200)


def test_wave_stages_act_in_the_order_of_the_recipe() -> None:
    loud = {"name": "gain", "gain_db": [40.0, 40.0]}
    guard = {"name": "peak_guard", "ceiling": 0.5}
    wave = torch.full((1, 10), 0.1)
    for entries, peak in (((loud, guard), 0.5), ((guard, loud), 10.0)):
        chain = augmenter(*entries)
        result = chain.apply_wave(wave, [chain.draw(generator(0), 10)])
        assert float(result.max()) == pytest.approx(peak)


def test_one_of_applies_at_most_one_with_the_given_shares() -> None:
    """Five standard deviations of the binomial distribution around each share."""
    chain = augmenter(
        {**ROOM, "one_of": "room or noise", "probability": 0.3},
        {**WHITE, "one_of": "room or noise", "probability": 0.2},
        {"name": "gain", "one_of": "room or noise", "probability": 0.1},
        {"name": "time_mask", "probability": 0.5},
    )
    total = 2000
    counts: Counter[tuple[bool, ...]] = Counter()
    masks = 0
    for i in range(total):
        params = chain.draw(generator(7, i), 400)
        counts[tuple(p is not None for p in params[:3])] += 1
        masks += params[3] is not None
    expected = {(1, 0, 0): 0.3, (0, 1, 0): 0.2, (0, 0, 1): 0.1, (0, 0, 0): 0.4}
    assert set(counts) == {tuple(map(bool, key)) for key in expected}
    for key, share in expected.items():
        bound = 5 * np.sqrt(total * share * (1 - share))
        assert abs(counts[tuple(map(bool, key))] - total * share) < bound
    assert abs(masks - total / 2) < 5 * np.sqrt(total / 4)


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'one_of: a' add up to 1\.2"):
        augmenter(
            {"name": "gain", "one_of": "a", "probability": 0.6},
            {"name": "time_mask", "one_of": "a", "probability": 0.6},
        )


@pytest.mark.parametrize("name", ["speed", "mixup"])
def test_two_of_a_kind_that_can_only_be_once_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} and {name}"):
        augmenter({"name": name}, {"name": name})


@pytest.mark.parametrize(
    ("entry", "use", "text"),
    [
        ({"name": "time_mask"}, {"features": False}, "takes the waveform itself"),
        ({"name": "mixup"}, {"grouped": True}, "the loss compares groups"),
        ({"name": "speed", "as_new_speakers": True}, {"grouped": True}, "makes new classes"),
        ({"name": "speed", "as_new_speakers": True}, {"task": "spoof"}, "makes new classes"),
    ],
)
def test_what_a_training_could_not_use_is_refused(
    entry: dict[str, object], use: dict[str, Any], text: str
) -> None:
    fitting: dict[str, Any] = {"task": "speaker", "grouped": False, "features": True}
    chain = augmenter(entry)
    chain.require_fit(**fitting)
    with pytest.raises(ConfigError, match=text):
        chain.require_fit(**{**fitting, **use})


def test_clipping_is_measured() -> None:
    chain = augmenter({"name": "gain", "gain_db": [20.0, 20.0]})
    wave = torch.tensor([[0.05, 0.2, -0.3, 0.01]])
    chain.apply_wave(wave, [chain.draw(generator(0), 4)])
    assert chain.counts() == {"samples": 4, "clipped": 2}


def test_silent_clips_are_counted_under_the_entry() -> None:
    chain = augmenter({"name": "gain"}, WHITE)
    chain.apply_wave(torch.zeros(3, 400), [chain.draw(generator(i), 400) for i in range(3)])
    assert chain.counts()["noise.1.silent"] == 3


def test_cards_hold_names_and_hashes(full: Augmenter) -> None:
    cards = full.card()
    assert [card["name"] for card in cards] == list(full.names)
    assert len(cards[1]["sha256_16"]) == 16
    assert "sha256_16" not in cards[2]


def test_no_augmentation_is_a_valid_recipe() -> None:
    nothing = augmenter()
    assert nothing.draw(generator(0), 10) == ()
    assert nothing.source_samples((), 10) == 10
    wave = torch.ones(2, 10)
    assert torch.equal(nothing.apply_wave(wave, [(), ()]), wave)
    assert nothing.mix(wave, [(), ()]) == (wave, None)
