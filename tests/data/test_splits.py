"""Speaker-disjoint splits, held-out utterances, and what splits may not share."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.data import (
    DEV_SEEN,
    Manifest,
    check_disjoint,
    content_hashes,
    hold_out_seen,
    require_disjoint,
    split_speakers,
)
from glottis.errors import DataError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def people(count, clips=3, **columns):
    """``count`` speakers with a few clips each; genders and sources alternate."""
    rows = [(s, c) for s in range(count) for c in range(clips)]
    base = {
        "utterance": [f"s{s:03d}-{c}" for s, c in rows],
        "path": [f"s{s:03d}/{c}.wav" for s, c in rows],
        "speaker": [f"s{s:03d}" for s, _ in rows],
        "session": [f"s{s:03d}-{c % 2}" for s, c in rows],
        "gender": ["fm"[s % 2] for s, _ in rows],
        "source": ["radio" if s % 5 else "phone" for s, _ in rows],
        "split": ["train"] * len(rows),
    }
    return Manifest.from_columns({**base, **columns})


def sides(manifest):
    """Split -> its rows."""
    return {name: manifest.select(split=name) for name in manifest.factor("split").names}


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(0, 2**31), st.sampled_from([2, 3]))
def test_no_speaker_is_in_two_splits_and_the_shares_are_right(count, seed, ways):
    shares = SHARES if ways == 3 else {"train": 0.75, "dev": 0.25}
    result = split_speakers(people(count), shares, seed)
    parts = sides(result)
    assert check_disjoint(parts) == []
    assert set(parts) == set(shares)
    sizes = {name: len(part.speakers()) for name, part in parts.items()}
    assert sum(sizes.values()) == count
    for name, share in shares.items():
        assert abs(sizes[name] - share * count) <= 1.5


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    manifest = people(40)
    shuffled = manifest.take(np.random.default_rng(0).permutation(len(manifest)))
    one = split_speakers(manifest, SHARES, 7)
    two = split_speakers(shuffled, SHARES, 7)
    table = dict(zip(one.column("speaker"), one.column("split"), strict=True))
    assert table == dict(zip(two.column("speaker"), two.column("split"), strict=True))
    other = split_speakers(manifest, SHARES, 8)
    assert list(other.column("split")) != list(one.column("split"))


def test_genders_and_sources_are_spread_over_the_splits():
    result = split_speakers(people(100), SHARES, 1)
    for name, part in sides(result).items():
        share = np.mean(part.column("gender") == "f")
        assert abs(share - 0.5) < 0.11, name
        assert abs(np.mean(part.column("source") == "phone") - 0.2) < 0.11, name


def test_speakers_that_may_be_one_person_stay_together():
    groups = [f"g{s % 10}" if s < 20 else "" for s in range(40) for _ in range(3)]
    result = split_speakers(people(40, person_group=groups), SHARES, 3)
    where = dict(zip(result.column("speaker"), result.column("split"), strict=True))
    assert all(where[f"s{s:03d}"] == where[f"s{s + 10:03d}"] for s in range(10))
    assert len(set(where.values())) == 3


def test_clips_of_nobody_cannot_be_split():
    manifest = people(4, speaker=["a", "a", "b", "b", "", "", "c", "c", "d", "d", "e", "e"])
    with pytest.raises(DataError, match="2 of 12 clips have no speaker") as caught:
        split_speakers(manifest, SHARES, 0)
    assert caught.value.rule == "P1"


def test_impossible_shares_are_refused():
    with pytest.raises(DataError, match="add up to 1"):
        split_speakers(people(5), {"train": 0.9, "dev": 0.2}, 0)
    with pytest.raises(DataError, match="2 persons cannot be in 3 splits"):
        split_speakers(people(2), SHARES, 0)


def test_held_out_clips_are_of_training_speakers_who_keep_enough():
    manifest = people(6, clips=4)
    result = hold_out_seen(manifest, seed=0)
    parts = sides(result.manifest)
    assert result.held_out == len(parts[DEV_SEEN]) == 6
    assert parts[DEV_SEEN].speakers() == parts["train"].speakers()
    assert result.skipped == ()
    assert check_disjoint(parts) == []  # dev_seen shares speakers on purpose
    again = hold_out_seen(manifest.take(np.arange(len(manifest))[::-1]), seed=0)
    chosen = set(again.manifest.select(split=DEV_SEEN).column("utterance"))
    assert chosen == set(parts[DEV_SEEN].column("utterance"))


def test_speakers_with_too_few_clips_give_none_away():
    result = hold_out_seen(people(3, clips=2), seed=0)
    assert (result.held_out, result.skipped) == (0, ("s000", "s001", "s002"))


def test_whole_sessions_can_be_held_out():
    result = hold_out_seen(people(5, clips=4), seed=0, unit="session", keep=1)
    parts = sides(result.manifest)
    assert len(parts[DEV_SEEN]) == 10
    assert not set(parts[DEV_SEEN].column("session")) & set(parts["train"].column("session"))
    with pytest.raises(DataError, match="no clip is in split 'dev'"):
        hold_out_seen(people(3), seed=0, split="dev")
    with pytest.raises(DataError, match="a speaker and a session"):
        hold_out_seen(people(2, session=[""] * 6), seed=0, unit="session")


def test_p1_and_p2_find_what_two_splits_share():
    train, dev = people(4).take(range(9)), people(4).take(range(6, 12))
    seen = {f.rule: f.seen for f in check_disjoint({"train": train, "dev": dev})}
    assert seen["P1"] == "train and dev share 1 speakers: s002"
    assert "P2" in seen
    with pytest.raises(DataError, match="share 1 speakers"):
        require_disjoint({"train": train, "dev": dev})
    require_disjoint({"train": train, "dev": dev}, allow=("P1", "P2"))
    grouped = check_disjoint(
        {
            "train": people(2, person_group=["g"] * 6),
            "dev": Manifest.from_columns(
                {"utterance": ["x"], "path": ["x"], "speaker": ["new"], "person_group": ["g"]}
            ),
        }
    )
    assert [f.seen for f in grouped] == ["train and dev share 1 person groups: g"]


def test_p2_finds_a_copy_under_another_name(tmp_path):
    pytest.importorskip("glottis.audio")
    noise = np.random.default_rng(0).standard_normal((3, 48000)) * 0.1
    noise[2] = 0  # silence is no copy of silence
    for name, samples in {
        "a": noise[0],
        "b": noise[1],
        "c": noise[0],
        "z": noise[2],
        "y": noise[2],
    }.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16000, format="FLAC", subtype="PCM_16")
        (tmp_path / f"{name}.flac").write_bytes(buffer.getvalue())

    def part(*names):
        paths = [f"{n}.flac" for n in names]
        return Manifest.from_columns(
            {"utterance": list(names), "path": paths, "speaker": list(names)}
        )

    splits = {"train": part("a", "b", "z"), "dev": part("c", "y")}
    content = {name: content_hashes(m, tmp_path) for name, m in splits.items()}
    findings = check_disjoint(splits, content=content)
    assert [(f.rule, f.seen) for f in findings] == [
        ("P2", "train and dev share 1 copied sounds: c")
    ]


def test_the_splits_of_the_speech_pack_are_disjoint(shared):
    pack = Manifest.read(shared / "speech" / "manifest.csv")
    require_disjoint(sides(pack))
