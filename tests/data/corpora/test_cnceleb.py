"""CN-Celeb in its published layout: the shipped lists decide."""

from __future__ import annotations

import numpy as np
import pytest

from glottis.data import EvaluationTrials, check_trials
from glottis.data.corpora import prepare
from glottis.errors import DataError

TREE = {
    "data/id00000/singing-01-002.flac": None,
    "data/id00000/interview-02-001.flac": None,
    "data/id00001/live_broadcast-01-001.flac": None,
    "data/id00800/singing-01-001.flac": None,  # a test speaker: repeats eval/test
    "data/id00801/singing-01-001.flac": None,
    "dev/dev.lst": "id00000\nid00001\n",
    "eval/enroll/id00800-enroll.flac": None,
    "eval/enroll/id00801-enroll.flac": None,
    "eval/test/id00800-singing-01-001.flac": None,
    "eval/test/id00801-drama-03-004.flac": None,
    "eval/lists/enroll.lst": (
        "id00800-enroll enroll/id00800-enroll.wav\nid00801-enroll enroll/id00801-enroll.wav\n"
    ),
    "eval/lists/trials.lst": (
        "id00800-enroll test/id00800-singing-01-001.wav 1\n"
        "id00800-enroll test/id00801-drama-03-004.wav 0\n"
        "id00801-enroll test/id00801-drama-03-004.wav 1\n"
    ),
}


def test_cnceleb_test_speakers_are_those_of_the_lists(plant):
    prepared = prepare("cnceleb", plant(TREE))
    manifest = prepared.manifest
    assert manifest.select(split="train").speakers() == ("id00000", "id00001")
    assert manifest.select(split="test").speakers() == ("id00800", "id00801")
    assert "2 clips under data/" in prepared.report.text()
    row = int(np.flatnonzero(manifest.column("utterance") == "id00001/live_broadcast-01-001")[0])
    assert manifest.column("genre")[row] == "live_broadcast"
    assert manifest.column("session")[row] == "id00001/live_broadcast-01"


def test_cnceleb_test_speakers_are_left_out_of_training_without_the_training_list(plant):
    tree = {path: content for path, content in TREE.items() if path != "dev/dev.lst"}
    manifest = prepare("cnceleb", plant(tree)).manifest
    assert manifest.select(split="train").speakers() == ("id00000", "id00001")


def test_cnceleb_official_trials_resolve_although_the_lists_say_wav(plant):
    prepared = prepare("cnceleb", plant(TREE))
    trials = EvaluationTrials.read(prepared.trials["test"])
    rows = trials.rows(prepared.manifest)
    assert all(path.endswith(".flac") for path in prepared.manifest.column("path")[rows])
    assert [f for f in check_trials(trials, prepared.manifest) if f.severity == "stop"] == []
    assert prepared.report.missing == ()


def test_cnceleb_without_its_lists_is_refused(plant):
    tree = {path: content for path, content in TREE.items() if "lists" not in path}
    with pytest.raises(DataError, match=r"enroll\.lst"):
        prepare("cnceleb", plant(tree))


def test_cnceleb_names_missing_files_and_listed_speakers(plant):
    tree = {**TREE, "dev/dev.lst": "id00000\nid00001\nid00007\n"}
    del tree["eval/test/id00801-drama-03-004.flac"]
    missing = prepare("cnceleb", plant(tree)).report.missing
    assert missing == ("data/id00007", "eval/test/id00801-drama-03-004.wav")


def test_cnceleb_refuses_a_speaker_on_both_sides(plant):
    with pytest.raises(DataError, match="id00800"):
        prepare("cnceleb", plant({**TREE, "dev/dev.lst": "id00000\nid00800\n"}))


def test_cnceleb2_is_training_data_only(plant):
    tree = {"data/id10000/play-01-001.flac": None, "data/id10001/vlog-01-001.flac": None}
    prepared = prepare("cnceleb", plant(tree), version=2)
    assert set(prepared.manifest.column("split")) == {"train"}
    assert prepared.report.counts[0].published == 1_996
