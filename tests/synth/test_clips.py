"""The plan of a corpus: disjoint talkers, balanced sessions, attacks where they belong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from glottis.config import build
from glottis.errors import ConfigError
from glottis.synth import ATTACKS, SynthConfig, tiny_config
from glottis.synth.clips import Clip, make_clip, plan, session_of, talker_of

DEFAULT = [clip for clips in plan(SynthConfig()) for clip in clips]


def test_the_default_corpus_is_as_large_as_the_demo_needs() -> None:
    bonafide = [c for c in DEFAULT if not c.attack]
    assert len({c.talker for c in DEFAULT}) == 64
    assert len(bonafide) == 64 * 14
    assert sum(c.num_samples for c in DEFAULT) / 16000 < 5000


def test_talkers_are_in_one_split_and_genders_in_every_split() -> None:
    splits = {(c.talker, c.split) for c in DEFAULT}
    assert len(splits) == len({c.talker for c in DEFAULT})
    for split in ("train", "dev", "eval"):
        genders = Counter(g for _, g in {(c.talker, c.gender) for c in DEFAULT if c.split == split})
        assert genders["f"] == genders["m"] >= 2


def test_the_held_out_attack_is_in_the_evaluation_only() -> None:
    held_out = SynthConfig().held_out
    seen = {split: {c.attack for c in DEFAULT if c.split == split} for split in ("train", "dev")}
    assert seen["train"] == seen["dev"] == {"", *ATTACKS} - {held_out}
    assert {c.attack for c in DEFAULT if c.split == "eval"} == {"", *ATTACKS}


def test_bona_fide_and_spoofed_clips_share_their_sessions() -> None:
    for clips in plan(SynthConfig()):
        counts = [
            Counter(c.session for c in clips if bool(c.attack) is spoofed)
            for spoofed in (False, True)
        ]
        assert set(counts[0]) == set(counts[1]) == set(range(4))
        for count in counts:
            assert max(count.values()) - min(count.values()) <= 1


def test_names_say_nothing_about_labels() -> None:
    numbers = {
        label: [int(c.utterance.split("-")[1]) for c in DEFAULT if c.label == label]
        for label in ("bonafide", "spoof")
    }
    assert abs(np.mean(numbers["bonafide"]) - np.mean(numbers["spoof"])) < 2.0
    assert len({c.utterance for c in DEFAULT}) == len({c.path for c in DEFAULT}) == len(DEFAULT)


def test_plans_follow_the_seed() -> None:
    assert plan(SynthConfig()) == plan(SynthConfig())
    assert plan(SynthConfig(seed=1)) != plan(SynthConfig())


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    clip = plan(tiny_config())[0][0]
    talker = talker_of(0, clip.talker, clip.gender)
    first = make_clip(0, clip, talker, session_of(0, clip.session_name))
    other = Clip("T000-099", clip.talker, clip.gender, clip.split, 1, "", 20000)
    make_clip(0, other, talker, session_of(0, other.session_name))
    assert np.array_equal(make_clip(0, clip, talker, session_of(0, clip.session_name)), first)
    assert len(first) == clip.num_samples


def test_another_seed_makes_another_sound() -> None:
    clip = plan(tiny_config())[0][0]
    sounds = [
        make_clip(
            seed,
            clip,
            talker_of(seed, clip.talker, clip.gender),
            session_of(seed, clip.session_name),
        ).astype(float)
        for seed in (0, 1)
    ]
    assert abs(np.corrcoef(*sounds)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"held_out": "S09"}, "held_out"),
        ({"min_seconds": 3.0, "max_seconds": 2.0}, "max_seconds"),
        ({"clips_per_talker": 3, "sessions_per_talker": 4}, "sessions_per_talker"),
        ({"dev_talkers": 2}, "dev_talkers"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build(SynthConfig, options)
