"""Trials built from a manifest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.data import (
    DevelopmentTrials,
    EvaluationTrials,
    Manifest,
    TrialBuildConfig,
    build_trials,
    check_trials,
    composition,
    require_trials,
)
from glottis.errors import DataError


def people(count=12, sessions=3, clips=3, **columns):
    """Speakers of two genders and two sources with several sessions."""
    rows = [(s, e, c) for s in range(count) for e in range(sessions) for c in range(clips)]
    base = {
        "utterance": [f"s{s:02d}/e{e}/{c}" for s, e, c in rows],
        "path": [f"s{s:02d}/e{e}/{c}.wav" for s, e, c in rows],
        "speaker": [f"s{s:02d}" for s, _, _ in rows],
        "session": [f"s{s:02d}-e{e}" for s, e, _ in rows],
        "gender": ["fm"[s % 2] for s, _, _ in rows],
        "source": ["radio" if s % 3 else "phone" for s, _, _ in rows],
    }
    return Manifest.from_columns({**base, **columns})


def build(manifest, seed=0, **options):
    """Development trials and the report."""
    return build_trials(manifest, TrialBuildConfig(**options), seed)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(4, 14), st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**31),
    st.integers(1, 30),
)  # fmt: skip
def test_built_trials_are_always_sound(count, sessions, clips, seed, wanted):
    manifest = people(count, sessions, clips)
    trials, report = build(manifest, seed, targets_per_speaker=wanted)
    assert [f for f in check_trials(trials, manifest) if f.severity == "stop"] == []
    c = composition(trials, manifest)
    assert c.same_session == 0.0
    assert c.cross_gender == 0.0
    assert report.targets == int(trials.target.sum()) == report.cross_session
    assert report.nontargets + report.short.get("a speaker has too few opponents", 0) == (
        report.targets
    )


def test_the_same_seed_gives_the_same_trials_in_any_row_order():
    manifest = people()
    shuffled = manifest.take(np.random.default_rng(1).permutation(len(manifest)))
    one, two, other = build(manifest, 5)[0], build(shuffled, 5)[0], build(manifest, 6)[0]
    assert one.sha256 == two.sha256
    assert one.sha256 != other.sha256


def test_every_speaker_gets_its_number_and_both_sides_vary():
    trials, report = build(people(), targets_per_speaker=9)
    enrolled = [key.split("/")[0] for key in trials.enrol_keys[trials.target]]
    assert {name: enrolled.count(name) for name in set(enrolled)} == {
        f"s{i:02d}": 9 for i in range(12)
    }
    assert len(set(trials.keys)) > 100
    assert report.short == {}
    starts = trials.enrol_keys[trials.target] < trials.test_keys[trials.target]
    assert 0.3 < np.mean(starts) < 0.7  # neither side is always the earlier clip


def test_most_non_targets_are_of_one_source_as_asked():
    trials, _ = build(people(30), same_source_share=0.8)
    assert composition(trials, people(30)).same_source == pytest.approx(0.8, abs=0.02)
    trials, _ = build(people(30), same_source_share=0.0)
    assert composition(trials, people(30)).same_source == 0.0


def test_genders_may_be_crossed_when_asked():
    trials, _ = build(people(30), same_gender=False)
    assert 0.2 < composition(trials, people(30)).cross_gender < 0.8


def test_an_unknown_gender_is_allowed_and_told():
    manifest = people(gender=[""] * 108)
    trials, report = build(manifest)
    assert report.unknown_gender == report.nontargets > 0
    assert "not known" in report.text()
    assert not trials.target.all()


def test_speakers_with_one_session_or_one_clip_are_told():
    manifest = people(4).take([*range(9), *range(9, 12), 18, *range(27, 36)])
    trials, report = build(manifest)
    assert report.skipped == {"s01": "one session", "s02": "one clip"}
    assert "1 speakers without targets: one session" in report.text()
    targets = trials.enrol_keys[trials.target]
    assert {key.split("/")[0] for key in targets} == {"s00", "s03"}
    assert any(key.startswith("s02") for key in trials.keys)  # still an opponent


def test_unknown_sessions_follow_the_policy():
    manifest = people(session=[""] * 108)
    _, report = build(manifest)
    assert (report.cross_session, report.targets > 0) == (0, True)
    with pytest.raises(DataError, match="no usable trials") as caught:
        build(manifest, same_session="never")
    assert "session" in caught.value.fix
    within, report = build(people(4, sessions=1), same_session="always")
    assert composition(within, people(4, sessions=1)).same_session == 1.0
    assert report.cross_session == 0


def test_speakers_that_may_be_one_person_are_never_opposed():
    groups = ["twin" if s < 4 else "" for s in range(6) for _ in range(9)]
    manifest = people(6, gender=["f"] * 54, person_group=groups)
    trials, _ = build(manifest)
    assert not [f for f in check_trials(trials, manifest) if "one person" in f.seen]
    pairs = zip(trials.enrol_keys[~trials.target], trials.test_keys[~trials.target], strict=True)
    assert all("s04" in a + b or "s05" in a + b for a, b in pairs)


def test_spoofed_clips_are_not_used():
    labels = ["spoof" if i % 3 == 0 else "bonafide" for i in range(108)]
    manifest = people(label=labels)
    trials, _ = build(manifest)
    require_trials(trials, manifest)
    assert not any(key.endswith("/0") for key in trials.keys)


def test_sources_can_be_balanced():
    manifest = people(30)
    _, plain = build(manifest, targets_per_speaker=6)
    _, even = build(manifest, targets_per_speaker=6, balance_sources=True)
    assert plain.per_source == {"phone": 60, "radio": 120}
    assert even.per_source == {"phone": 90, "radio": 90}


def test_what_does_not_exist_is_reported_as_short():
    _, report = build(people(4, sessions=2, clips=1), targets_per_speaker=50)
    assert report.targets == 4
    assert report.short["a speaker has fewer target pairs"] == 4 * 49


def test_trials_for_reporting_are_built_as_such(tmp_path):
    trials, _ = build_trials(people(), TrialBuildConfig(), 0, EvaluationTrials)
    assert isinstance(trials, EvaluationTrials)
    assert isinstance(build(people())[0], DevelopmentTrials)
    trials.write(tmp_path / "t.txt")
    assert EvaluationTrials.read(tmp_path / "t.txt").sha256 == trials.sha256


def test_one_speaker_or_two_genders_of_one_are_refused():
    with pytest.raises(DataError, match="two speakers"):
        build(people(1))
    genders = ["f", "m"] * 54
    with pytest.raises(DataError, match="two genders: s00"):
        build(people(gender=genders))


def test_trials_of_the_speech_pack_can_be_built(shared):
    pack = Manifest.read(shared / "speech" / "manifest.csv").select(split="test")
    trials, report = build(pack)
    require_trials(trials, pack)
    assert report.targets > 300
    assert "one session" in report.text()
