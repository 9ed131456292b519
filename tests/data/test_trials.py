"""Trial lists: layouts, types, subsets, files, and the checks P6 to P10."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.data import (
    DevelopmentTrials,
    EvaluationTrials,
    Manifest,
    Trials,
    check_different,
    check_resolution,
    check_trials,
    composition,
    require_development,
    require_trials,
    trial_resolution,
)
from glottis.errors import DataError

VOX = "1 a.wav b.wav\n0 a.wav c.wav\n0 b.wav c.wav\n"


def saved(folder, text, name="trials.txt"):
    """A list on disk."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def speakers() -> Manifest:
    """a and b are one speaker, c another one."""
    return Manifest.from_columns(
        {
            "utterance": ["ua", "ub", "uc"],
            "path": ["a.wav", "b.wav", "c.wav"],
            "speaker": ["ann", "ann", "bob"],
            "session": ["s1", "s1", "s2"],
            "gender": ["f", "f", "m"],
        }
    )


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    "text",
    [
        VOX,
        "a.wav b.wav target\na.wav c.wav nontarget\nb.wav c.wav nontarget\n",
        "a.wav b.wav 1\na.wav c.wav 0\nb.wav c.wav 0\n",
        "\ufeff" + VOX.replace("\n", "\r\n"),
        "\n\n" + VOX.replace(" ", "\t").replace("\n", "  \n\n"),
        VOX.replace(" ", "   ").rstrip("\n"),
    ],
    ids=["voxceleb", "kaldi", "number-last", "bom-crlf", "tabs-blanks", "spaces-no-newline"],
)
def test_every_layout_gives_the_same_trials(tmp_path, text):
    path = saved(tmp_path, text)
    trials = DevelopmentTrials.read(path)
    assert trials.keys.tolist() == ["a.wav", "b.wav", "c.wav"]
    assert trials.enrol_keys.tolist() == ["a.wav", "a.wav", "b.wav"]
    assert trials.test_keys.tolist() == ["b.wav", "c.wav", "c.wav"]
    assert trials.target.tolist() == [True, False, False]
    assert trials.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_third_kind_marks_spoofs(tmp_path):
    trials = EvaluationTrials.read(saved(tmp_path, "a b target\na c nontarget\na x spoof\n"))
    assert trials.spoof.tolist() == [False, False, True]
    assert trials.target.tolist() == [True, False, False]
    assert trials.summary()["spoof"] == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("1 a b\n2 a c\n? b c\n", r"line 2: '2 a c'; line 3: '\? b c'"),
        ("1 a b\n\n0 a c d\n", "line 3 has 4"),
        ("a b\n", "line 1 has 2"),
        ("x a b\ny a c\n", "no layout fits"),
        ("1 a 0\n0 b 1\n", "more than one layout fits"),
        ("a b target\na c impostor\n", "line 2: 'a c impostor'"),
    ],
)
def test_a_list_with_wrong_lines_is_refused_with_their_numbers(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        EvaluationTrials.read(saved(tmp_path, text))


def test_an_ambiguous_list_is_read_when_the_form_is_stated(tmp_path):
    path = saved(tmp_path, "1 a 0\n0 b 1\n")
    assert EvaluationTrials.read(path, form="number_last").target.tolist() == [False, True]
    assert EvaluationTrials.read(path, form="voxceleb").target.tolist() == [True, False]


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        EvaluationTrials.read(tmp_path / "none.txt")
    with pytest.raises(DataError):
        EvaluationTrials.read(saved(tmp_path, b"1 a \xff\xfe\n0 b \x00\xe9\n"))


def test_names_that_are_not_ascii_are_kept(tmp_path):
    trials = EvaluationTrials.read(saved(tmp_path, "1 Zoë/1.wav 陳/一.wav\n"))
    assert trials.keys.tolist() == ["Zoë/1.wav", "陳/一.wav"]


# ---------------------------------------------------------------- types


def test_a_list_is_for_development_or_for_evaluation(tmp_path):
    path = saved(tmp_path, VOX)
    with pytest.raises(DataError, match="either"):
        Trials.read(path)
    assert require_development(DevelopmentTrials.read(path)).role == "development"
    with pytest.raises(DataError, match="not EvaluationTrials") as caught:
        require_development(EvaluationTrials.read(path))
    assert caught.value.rule == "P6"


def test_evaluation_trials_select_only_when_the_rule_is_named(tmp_path, caplog):
    trials = EvaluationTrials.read(saved(tmp_path, VOX))
    with pytest.raises(DataError, match="evaluation data"):
        trials.as_development(allow="please")
    allowed = trials.as_development(allow="P6")
    assert isinstance(allowed, DevelopmentTrials)
    assert allowed.edits
    assert "P6" in caplog.text
    assert allowed.identity != trials.identity


def test_the_same_list_cannot_select_and_report(tmp_path):
    path = saved(tmp_path, VOX)
    development, evaluation = DevelopmentTrials.read(path), EvaluationTrials.read(path)
    assert "same file" in check_different(development, evaluation)[0].seen
    swapped = EvaluationTrials.read(saved(tmp_path, "1 b.wav a.wav\n0 x.wav y.wav\n", "e.txt"))
    assert "share 1 trials" in check_different(development, swapped)[0].seen
    other = EvaluationTrials.read(saved(tmp_path, "1 x.wav y.wav\n", "o.txt"))
    assert check_different(development, other) == []


# ---------------------------------------------------------------- resolving and checking


def test_keys_are_utterances_or_paths(tmp_path):
    mixed = DevelopmentTrials.read(saved(tmp_path, "1 ua b.wav\n0 ./a.wav uc\n"))
    rows = dict(zip(mixed.keys, mixed.rows(speakers()), strict=True))
    assert rows == {"ua": 0, "b.wav": 1, "./a.wav": 0, "uc": 2}
    unknown = DevelopmentTrials.read(saved(tmp_path, "1 ua ub\n0 ua nobody\n"))
    with pytest.raises(DataError, match="1 of 3 utterances are not in the manifest: nobody"):
        unknown.rows(speakers())


def stops(text, tmp_path, manifest=None, kind=DevelopmentTrials):
    """What must stop a run, as one text."""
    findings = check_trials(kind.read(saved(tmp_path, text)), manifest)
    assert all(f.rule in ("P7", "P8") for f in findings)
    return " / ".join(f.seen for f in findings if f.severity == "stop")


def test_p7_finds_each_fault(tmp_path):
    assert stops(VOX, tmp_path, speakers()) == ""
    assert "1 target and 0 other" in stops("1 ua ub\n", tmp_path)
    assert "with itself: ua - ua" in stops("1 ua ua\n0 ua uc\n", tmp_path)
    assert "1 trials are duplicates" in stops("1 ua ub\n0 ua uc\n0 ua uc\n", tmp_path)
    assert "1 trials are duplicates" in stops("1 ua ub\n0 ua uc\n0 uc ua\n", tmp_path)
    assert "different labels: ua - ub" in stops("1 ua ub\n0 ua uc\n0 ua ub\n", tmp_path)
    assert "not in the manifest: ux" in stops("1 ua ub\n0 ua ux\n", tmp_path, speakers())
    assert "1 clips have two names" in stops("1 ua a.wav\n0 ua uc\n", tmp_path, speakers())
    contradiction = stops("1 ua uc\n0 ua ub\n", tmp_path, speakers())
    assert "2 labels contradict" in contradiction


def test_duplicates_of_a_published_list_are_told_but_do_not_stop(tmp_path):
    text = "1 ua ub\n0 ua uc\n0 ua uc\n"
    assert stops(text, tmp_path, kind=EvaluationTrials) == ""
    trials = EvaluationTrials.read(saved(tmp_path, text))
    assert any("duplicates" in f.seen and f.severity == "warn" for f in check_trials(trials))


def test_p7_compares_spoof_trials_with_the_labels(tmp_path):
    manifest = speakers().with_columns(label=["bonafide", "bonafide", "spoof"])
    good = "ua ub target\nua uc spoof\n"
    assert stops(good, tmp_path, manifest) == ""
    assert "1 labels contradict" in stops(
        "ua ub spoof\nua uc spoof\nub uc spoof\n", tmp_path, manifest
    )
    assert "contradict" in stops("ua ub target\nua uc nontarget\n", tmp_path, manifest)


def test_speakers_that_may_be_one_person_are_told(tmp_path):
    manifest = speakers().with_columns(person_group=["g", "g", "g"])
    findings = check_trials(DevelopmentTrials.read(saved(tmp_path, VOX)), manifest)
    assert [f.severity for f in findings if "may be one person" in f.seen] == ["warn"]


def test_require_trials_stops_unless_the_rule_is_allowed(tmp_path):
    trials = DevelopmentTrials.read(saved(tmp_path, "1 ua ua\n0 ua ub\n0 ub ua\n"))
    with pytest.raises(DataError, match="2 problems") as caught:
        require_trials(trials)
    assert caught.value.rule == "P7"
    require_trials(trials, allow=("P7",))


def test_p8_resolution_is_the_closed_form():
    r = trial_resolution(465, 465, 0.103)
    assert r.step == pytest.approx(1 / 465)
    assert 100 * r.half_width == pytest.approx(1.96, abs=0.01)
    assert 100 * trial_resolution(250, 250, 0.056).half_width == pytest.approx(2.02, abs=0.01)
    assert check_resolution(18_000, 18_000) == []
    assert "steps of 0.215 points" in check_resolution(465, 465)[0].seen
    with pytest.raises(DataError):
        trial_resolution(0, 5)
    with pytest.raises(DataError, match="fraction"):
        trial_resolution(5, 5, 10.3)


def test_p10_composition_counts_only_what_is_known(tmp_path):
    c = composition(DevelopmentTrials.read(saved(tmp_path, VOX)), speakers())
    assert (c.same_session, c.cross_gender, c.same_source) == (1.0, 1.0, None)


# ---------------------------------------------------------------- changing and writing


def pairs(num_target, num_other):
    """A list with given numbers of both kinds."""
    total = num_target + num_other
    return DevelopmentTrials.from_pairs(
        [f"e{i}" for i in range(total)],
        [f"t{i}" for i in range(total)],
        [i < num_target for i in range(total)],
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**31), st.data())
def test_a_subset_keeps_the_shares_and_the_order(num_target, num_other, seed, data):
    trials = pairs(num_target, num_other)
    num = data.draw(st.integers(2, len(trials)))
    part = trials.subset(num, seed)
    assert len(part) == num
    expected = num * num_target / len(trials)
    assert abs(int(part.target.sum()) - expected) <= 1.5
    assert part.target.any()
    assert not part.target.all()
    positions = [int(key[1:]) for key in part.enrol_keys]
    assert positions == sorted(positions)
    assert part.enrol_keys.tolist() == trials.subset(num, seed).enrol_keys.tolist()


def test_a_subset_is_marked_and_another_seed_is_another_subset():
    trials = pairs(200, 200)
    one, two = trials.subset(40, 1), trials.subset(40, 2)
    assert one.sha256 == trials.sha256
    assert len({trials.identity, one.identity, two.identity}) == 3
    assert one.enrol_keys.tolist() != two.enrol_keys.tolist()
    assert "seed 1" in one.edits[0]
    with pytest.raises(DataError, match="cannot draw 500"):
        trials.subset(500, 0)


def test_a_subset_can_keep_further_shares():
    trials = pairs(300, 300)
    source = np.tile([0, 1, 1], 200)
    part = trials.subset(60, 0, strata=source)
    rows = np.array([int(key[1:]) for key in part.enrol_keys])
    assert (source[rows] == 0).sum() == 20


def test_built_trials_have_the_sha256_of_their_file(tmp_path):
    trials = pairs(3, 4)
    trials.write(tmp_path / "t.txt")
    again = DevelopmentTrials.read(tmp_path / "t.txt")
    assert again.sha256 == trials.sha256
    assert again.target.tolist() == trials.target.tolist()
    with_spoof = EvaluationTrials.from_pairs(["a", "a"], ["b", "c"], [1, 2])
    with_spoof.write(tmp_path / "s.txt")
    assert (tmp_path / "s.txt").read_text() == "a b target\na c spoof\n"


def test_names_with_spaces_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="white space: one file"):
        DevelopmentTrials.from_pairs(["one file"], ["b"], [1])


def test_the_lists_of_the_speech_pack_are_sound(shared):
    speech = shared / "speech"
    manifest = Manifest.read(speech / "manifest.csv")
    development = DevelopmentTrials.read(speech / "lists" / "trials_dev.txt")
    for name in ("trials_test.txt", "trials_sasv_test.txt"):
        evaluation = EvaluationTrials.read(speech / "lists" / name)
        require_trials(evaluation, manifest)
        assert check_different(development, evaluation) == []
    require_trials(development, manifest)
    assert (len(development), int(development.target.sum())) == (1550, 750)
