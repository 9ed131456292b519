from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glottis.data import EvaluationProtocol, EvaluationTrials
from glottis.errors import ConfigError, DataError, ResultError
from glottis.score.from_files import metrics_from_files
from glottis.score.key_files import read_speakers
from glottis.score.layouts import read_scores
from glottis.score.parts import Resampled
from glottis.score.score_files import write_cm_scores, write_trial_scores
from helpers.golden_scores import read_json

FAST = Resampled(draws=20)
RNG = np.random.default_rng(0)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def small_trials(count: int = 40) -> EvaluationTrials:
    enrol = [f"id{i % 8}/a.wav" for i in range(count)]
    test = [f"id{(i * 3) % 7}/t{i}.wav" for i in range(count)]
    return EvaluationTrials.from_pairs(enrol, test, [i % 2 == 0 for i in range(count)])


def small_protocol(count: int = 40) -> EvaluationProtocol:
    attack = np.array(["" if i % 2 else f"A{i % 4}" for i in range(count)], dtype=object)
    return EvaluationProtocol(
        np.array([f"LA_E_{i}" for i in range(count)], dtype=object),
        np.array([f"LA_{i % 11}" for i in range(count)], dtype=object),
        attack,
        attack == "",
        {},
        "made here",
        "0" * 64,
    )


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        ("a b 0.5", "trials"),
        ("a target 0.5", "asv"),
        ("u A07 spoof -1", "asvspoof2019"),
        ("u - bonafide 1e-3", "asvspoof2019"),
        ("u 0.25", "asvspoof2021"),
        ("s u 0.25 nontarget", "labelled_trials"),
        ("a b 0.25 1", "labelled_trials"),
        ("0.25 0 a b", "score_first"),
    ],
)
def test_a_layout_is_recognised_by_its_columns(tmp_path: Path, line: str, layout: str) -> None:
    assert read_scores(write(tmp_path / "s.txt", [line, line])).layout == layout


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["a b c"], "no layout fits"),
        (["a target 0.5", "b c 0.5"], "some lines look like layout 'asv'"),
        (["a 1", "b 0", "c 1"], "holds only 0 and 1"),
        (["a b 0", "a c 1"], "holds only 0 and 1"),
        (["0.5 1 0.5 1"], "more than one layout fits"),
        (["a b c d e"], "no layout fits"),
        (["a b 0.5", "a b"], "do not have 2 or 3 or 4 or 5 cells|lines of the score file"),
    ],
)
def test_ambiguous_or_unknown_files_are_refused(
    tmp_path: Path, lines: list[str], text: str
) -> None:
    with pytest.raises(DataError, match=text):
        read_scores(write(tmp_path / "s.txt", lines))


def test_a_named_layout_settles_an_ambiguity(tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", ["a 1", "b 0"])
    assert read_scores(path, "asvspoof2021").scores.tolist() == [1.0, 0.0]
    with pytest.raises(ConfigError, match="no score layout 'kaldi'"):
        read_scores(path, "kaldi")


def test_trial_scores_survive_writing_and_reading(tmp_path: Path) -> None:
    trials, scores = small_trials(), RNG.normal(0, 1, 40).astype(np.float32)
    write_trial_scores(tmp_path / "s.txt", trials, scores)
    table = read_scores(tmp_path / "s.txt")
    assert table.layout == "trials"
    assert np.array_equal(table.scores.astype(np.float32), scores)
    assert table.names[0].to_pylist() == trials.enrol_keys.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["s.txt"]


@pytest.mark.parametrize("layout", ["asvspoof2019", "asvspoof2021", "asvspoof5"])
def test_countermeasure_scores_survive_writing_and_reading(tmp_path: Path, layout: str) -> None:
    protocol, scores = small_protocol(), RNG.normal(0, 1, 40)
    write_cm_scores(tmp_path / "s.txt", protocol, scores, layout)  # type: ignore[arg-type]
    table = read_scores(tmp_path / "s.txt")
    assert table.layout.startswith(layout)
    assert np.array_equal(table.scores, scores)
    assert table.names[0].to_pylist() == protocol.utterance.tolist()
    if layout == "asvspoof2019":
        assert table.key is not None
        assert table.attack is not None
        assert table.key.tolist() == protocol.label.tolist()
        assert table.attack.tolist() == protocol.attack.tolist()
    if layout == "asvspoof5":
        assert (tmp_path / "s.txt").read_text().startswith("filename\tcm-score\nLA_E_0\t")


def test_writing_needs_one_score_per_trial(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="3 scores for 40 trials"):
        write_trial_scores(tmp_path / "s.txt", small_trials(), np.zeros(3))
    with pytest.raises(ConfigError, match="no score layout 'x'"):
        write_cm_scores(tmp_path / "s", small_protocol(), np.zeros(40), "x")  # type: ignore[arg-type]


def test_golden_score_files_give_their_golden_numbers(shared: Path) -> None:
    """From the files alone: EER per attack and both t-DCF forms."""
    folder = shared / "golden" / "tdcf"
    report = metrics_from_files(folder / "cm_good.txt", asv=folder / "asv_a.txt", how=FAST)
    golden = read_json(shared, "tdcf/golden.json")["asv_a|cm_good"]
    textbook = read_json(shared, "metrics_textbook.json")
    assert (report.layout, report.key_layout) == ("asvspoof2019", "in the score file")
    points = report.result.points
    assert points["eer"] == pytest.approx(textbook["cm_files"]["cm_good"]["eer_crossing"])
    assert points["min_tdcf_2019"] == pytest.approx(golden["min_tdcf"], abs=1e-12)
    constrained = textbook["tdcf2021"]["asv_a|cm_good"]["min_tdcf"]
    assert points["min_tdcf_2021"] == pytest.approx(constrained, abs=1e-12)
    assert len([cell for cell in report.result.cells if cell.condition == "attack"]) == 13


def test_golden_sasv_file_is_recognised(shared: Path) -> None:
    report = metrics_from_files(shared / "golden" / "tdcf" / "sasv_a.txt", how=FAST)
    golden = read_json(shared, "tdcf/golden.json")["adcf|sasv_a|default"]
    assert report.result.task == "sasv"
    assert report.result.points["min_a_dcf_library"] == pytest.approx(golden["min_a_dcf"])
    assert any("occur more than once" in remark for remark in report.remarks)


def test_scores_are_matched_by_name_not_by_line(tmp_path: Path) -> None:
    trials, scores = small_trials(), RNG.normal(0, 1, 40) + np.arange(40) % 2
    trials.write(tmp_path / "key.txt")
    write_trial_scores(tmp_path / "s.txt", trials, scores)
    lines = (tmp_path / "s.txt").read_text().splitlines()
    straight = metrics_from_files(tmp_path / "s.txt", tmp_path / "key.txt", how=FAST)
    shuffled = write(tmp_path / "t.txt", [lines[i] for i in RNG.permutation(40)])
    again = metrics_from_files(shuffled, tmp_path / "key.txt", how=FAST)
    assert again.result.points == straight.result.points
    assert straight.remarks == (
        f"{tmp_path / 's.txt'}: 40 scores, layout trials",
        f"{tmp_path / 'key.txt'}: 40 trials",
    )
    assert "layout trials" in straight.to_markdown()
    assert straight.to_dict()["task"] == "speaker"


def test_missing_extra_and_repeated_scores_are_refused(tmp_path: Path) -> None:
    trials = small_trials()
    trials.write(tmp_path / "key.txt")
    write_trial_scores(tmp_path / "s.txt", trials, RNG.normal(0, 1, 40))
    lines = (tmp_path / "s.txt").read_text().splitlines()
    key = tmp_path / "key.txt"
    with pytest.raises(ResultError, match=r"2 of 40 trials of the key have no score: id0/a.wav"):
        metrics_from_files(write(tmp_path / "few.txt", lines[2:]), key)
    more = write(tmp_path / "more.txt", [*lines, "id0/a.wav other.wav 0.5"])
    with pytest.raises(ResultError, match="1 of 41 scores are of trials that the key does not"):
        metrics_from_files(more, key)
    report = metrics_from_files(more, key, allow_extra=True, how=FAST)
    assert any("1 scores of trials" in remark for remark in report.remarks)
    twice = write(tmp_path / "twice.txt", [*lines, lines[0].rsplit(" ", 1)[0] + " 9.5"])
    with pytest.raises(ResultError, match="1 trials have two different scores"):
        metrics_from_files(twice, key)
    same = write(tmp_path / "same.txt", [*lines, lines[0]])
    assert metrics_from_files(same, key, how=FAST).result.n["trials"] == 40


def test_scores_without_labels_need_a_key(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="scores without labels"):
        metrics_from_files(write(tmp_path / "s.txt", ["a b 0.5", "a c 0.6"]))


def test_asv_scores_alone_are_not_a_result(tmp_path: Path) -> None:
    path = write(tmp_path / "asv.txt", ["a target 0.5", "a nontarget 0.1"])
    with pytest.raises(ResultError, match="file of ASV scores"):
        metrics_from_files(path)


def test_tdcf_of_a_verification_system_is_refused(tmp_path: Path, shared: Path) -> None:
    trials = small_trials()
    trials.write(tmp_path / "key.txt")
    write_trial_scores(tmp_path / "s.txt", trials, RNG.normal(0, 1, 40))
    asv = shared / "golden" / "tdcf" / "asv_a.txt"
    with pytest.raises(ResultError, match="t-DCF measures a countermeasure"):
        metrics_from_files(tmp_path / "s.txt", tmp_path / "key.txt", asv=asv)


def test_a_key_of_the_other_task_is_refused(tmp_path: Path) -> None:
    small_trials().write(tmp_path / "key.txt")
    write_cm_scores(tmp_path / "s.txt", small_protocol(), RNG.normal(0, 1, 40), "asvspoof2021")
    with pytest.raises(ResultError, match="pairs of utterances"):
        metrics_from_files(tmp_path / "s.txt", tmp_path / "key.txt")


def test_labels_in_the_scores_must_agree_with_the_key(tmp_path: Path) -> None:
    protocol = small_protocol()
    write_cm_scores(tmp_path / "s.txt", protocol, RNG.normal(0, 1, 40))
    rows = [
        f"LA_1 {u} - - {'spoof' if i == 1 else word}"
        for i, (u, word) in enumerate(zip(protocol.utterance, protocol.label, strict=True))
    ]
    key = write(tmp_path / "key.txt", rows)
    with pytest.raises(ResultError, match=r"1 labels in .* contradict the key: LA_E_1"):
        metrics_from_files(tmp_path / "s.txt", key)


def test_asvspoof2021_uses_its_official_subset(tmp_path: Path) -> None:
    rows, scores = [], []
    for i in range(120):
        label, subset = ("bonafide", "spoof")[i % 2], ("eval", "progress", "hidden")[i % 3]
        attack = "A07" if label == "spoof" else "bonafide"
        rows.append(f"LA_{i % 20} LA_E_{i} alaw ita_tx {attack} {label} notrim {subset}")
        scores.append(f"LA_E_{i} {RNG.normal() + (label == 'bonafide'):.6f}")
    key, path = write(tmp_path / "key.txt", rows), write(tmp_path / "s.txt", scores)
    report = metrics_from_files(path, key, how=FAST)
    assert report.key_layout == "asvspoof2021_la"
    assert report.result.n["trials"] == 40
    assert "subset 'eval': 40 utterances" in report.remarks
    assert metrics_from_files(path, key, subset="progress", how=FAST).result.n["trials"] == 40


def test_asvspoof5_track1_key_has_a_header(tmp_path: Path) -> None:
    protocol = small_protocol()
    scores = RNG.normal(0, 1, 40) + protocol.bonafide
    write_cm_scores(tmp_path / "s.tsv", protocol, scores, "asvspoof5")
    rows = [f"{u}\t{word}" for u, word in zip(protocol.utterance, protocol.label, strict=True)]
    key = write(tmp_path / "key.tsv", ["filename\tcm-label", *rows])
    report = metrics_from_files(tmp_path / "s.tsv", key, how=FAST)
    assert (report.layout, report.key_layout) == ("asvspoof5_track1", "asvspoof5_track1")
    assert report.result.n["bona fide"] == 20


def test_asvspoof5_track2_pairs_speakers_and_files(tmp_path: Path) -> None:
    rows = ["spk\tfilename\tcm-score\tasv-score\tsasv-score"]
    keys = ["spk\tfilename\tcm-label\tasv-label"]
    for i in range(60):
        kind = ("target", "nontarget", "spoof")[i % 3]
        rows.append(f"E{i % 9}\tu{i}\t-\t-\t{RNG.normal() + 2 * (kind == 'target'):.5f}")
        keys.append(f"E{i % 9}\tu{i}\t{'spoof' if kind == 'spoof' else 'bonafide'}\t{kind}")
    report = metrics_from_files(
        write(tmp_path / "s.tsv", rows), write(tmp_path / "k.tsv", keys), how=FAST
    )
    assert report.result.task == "sasv"
    assert report.result.n == {"trials": 60, "targets": 20, "nontargets": 20, "spoofs": 20}


def test_two_column_keys_and_manifests_are_keys_too(tmp_path: Path) -> None:
    protocol = small_protocol()
    write_cm_scores(tmp_path / "s.txt", protocol, RNG.normal(0, 1, 40), "asvspoof2021")
    words = zip(protocol.utterance, protocol.label, strict=True)
    plain = write(
        tmp_path / "k.txt", [f"{u} {'genuine' if w == 'bonafide' else 'fake'}" for u, w in words]
    )
    assert metrics_from_files(tmp_path / "s.txt", plain, how=FAST).result.n["spoof"] == 20
    rows = [
        f"{u},{u}.wav,v{i % 6},{w}"
        for i, (u, w) in enumerate(zip(protocol.utterance, protocol.label, strict=True))
    ]
    manifest = write(tmp_path / "m.csv", ["utterance,path,speaker,label", *rows])
    assert metrics_from_files(tmp_path / "s.txt", manifest, how=FAST).key_layout == "manifest"
    four = write(tmp_path / "four.txt", ["a b c d"])
    with pytest.raises(DataError, match="four columns"):
        metrics_from_files(tmp_path / "s.txt", four)


def test_speakers_of_the_trials_can_be_given(tmp_path: Path) -> None:
    trials = small_trials(400)
    trials.write(tmp_path / "key.txt")
    write_trial_scores(tmp_path / "s.txt", trials, RNG.normal(0, 1, 400))
    speakers = {str(key): str(key).split("/")[0] for key in trials.keys}
    files = tmp_path / "s.txt", tmp_path / "key.txt"
    report = metrics_from_files(*files, speakers=speakers, how=FAST)
    assert report.result.metrics["eer"].method == "only n: 4 target speakers, fewer than 5"
    with pytest.raises(ResultError, match="utterances have no speaker"):
        metrics_from_files(*files, speakers={}, how=FAST)


def test_speakers_can_be_given_for_a_protocol_too(tmp_path: Path) -> None:
    protocol = small_protocol()
    write_cm_scores(tmp_path / "s.txt", protocol, RNG.normal(0, 1, 40), "asvspoof2021")
    words = zip(protocol.utterance, protocol.label, strict=True)
    key = write(tmp_path / "k.txt", [f"{u} {word}" for u, word in words])
    unknown = metrics_from_files(tmp_path / "s.txt", key, how=FAST)
    assert unknown.result.metrics["eer"].method.startswith("trial bootstrap (speakers unknown")
    table = [f"{u} v{i // 2 % 10}" for i, u in enumerate(protocol.utterance)]
    speakers = read_speakers(write(tmp_path / "utt2spk", table))
    report = metrics_from_files(tmp_path / "s.txt", key, speakers=speakers, how=FAST)
    assert report.result.metrics["eer"].method.startswith("speaker bootstrap over 10 bona fide")


def test_speakers_of_a_manifest_are_known_by_utterance_and_by_path(tmp_path: Path) -> None:
    rows = ["utterance,path,speaker", "a,x/a.wav,v1", "b,x/b.wav,v2", "c,x/c.wav,"]
    path = write(tmp_path / "m.csv", rows)
    assert read_speakers(path) == {"a": "v1", "x/a.wav": "v1", "b": "v2", "x/b.wav": "v2"}
    silent = write(tmp_path / "n.csv", ["utterance,path", "a,x/a.wav"])
    with pytest.raises(DataError, match="the column 'speaker' is empty"):
        read_speakers(silent)


def test_enrolment_of_asvspoof5_track2_is_a_speaker(tmp_path: Path) -> None:
    kinds = ("target", "nontarget", "spoof")
    rows = [f"E{i % 11} u{i} {RNG.normal() + (i % 3 == 0):.5f} {kinds[i % 3]}" for i in range(330)]
    keys = ["spk filename cm-label asv-label"] + [
        f"E{i % 11} u{i} {'spoof' if i % 3 == 2 else 'bonafide'} {kinds[i % 3]}" for i in range(330)
    ]
    scores, key = write(tmp_path / "s.txt", rows), write(tmp_path / "k.txt", keys)
    method = metrics_from_files(scores, key, how=FAST).result.metrics["sv_eer"].method
    assert method.startswith("speaker bootstrap over 11 target speakers")


def test_a_key_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    scores = write(tmp_path / "s.txt", [f"a{i} b 0.{i + 1}" for i in range(9)])
    lines = [f"{i % 2} a{i} b" for i in range(9)]
    twice = write(tmp_path / "twice.txt", [*lines, "0 a1 b"])
    with pytest.raises(DataError, match=r"\[P7\] .* 1 pairs stand twice with different labels"):
        metrics_from_files(scores, twice)
    one_class = write(tmp_path / "one.txt", [f"0 a{i} b" for i in range(9)])
    with pytest.raises(DataError, match=r"\[P7\] .* 0 target and 9 other trials"):
        metrics_from_files(scores, one_class)


def test_a_score_that_is_no_number_is_called_that(tmp_path: Path) -> None:
    key = write(tmp_path / "key.txt", ["1 a b", "0 c d"])
    scores = write(tmp_path / "s.txt", ["c d 0.5", "a b nan"])
    with pytest.raises(ResultError, match="1 of 2 trial scores are not finite"):
        metrics_from_files(scores, key)
