"""LibriSpeech in its published layout."""

from __future__ import annotations

import pytest

from glottis.data.corpora import prepare
from glottis.errors import DataError

TREE = {
    "SPEAKERS.TXT": (
        "; comment | SEX | SUBSET | MINUTES | NAME\n"
        "103  | F | train-clean-100  | 25.0 | Karen Savage\n"
        "174  | M | dev-clean        | 8.0  | Peter Eastman\n"
    ),
    "train-clean-100/103/1240/103-1240-0000.flac": None,
    "train-clean-100/103/1241/103-1241-0001.flac": None,
    "train-clean-100/103/1240/103-1240.trans.txt": "103-1240-0000 CHAPTER ONE\n",
    "dev-clean/174/50561/174-50561-0000.flac": None,
}


@pytest.mark.parametrize("inside", ["", "LibriSpeech/"])
def test_librispeech_subsets_become_splits_and_chapters_sessions(plant, inside):
    prepared = prepare("librispeech", plant({inside + path: c for path, c in TREE.items()}))
    manifest = prepared.manifest
    assert list(manifest.column("utterance")) == [
        "103-1240-0000",
        "103-1241-0001",
        "174-50561-0000",
    ]
    train = manifest.select(split="train")
    assert set(train.column("session")) == {"103-1240", "103-1241"}
    assert set(train.column("gender")) == {"f"}
    assert set(manifest.column("licence")) == {"CC-BY-4.0"}
    assert prepared.root.name == (inside.strip("/") or "corpus")
    assert manifest.check(prepared.root).ok
    counts = {count.what: count for count in prepared.report.counts}
    assert (counts["dev-clean clips"].found, counts["dev-clean clips"].published) == (1, 2_703)


def test_librispeech_refuses_a_file_in_the_folder_of_another_speaker(plant):
    tree = {**TREE, "train-clean-100/103/1240/104-1240-0000.flac": None}
    with pytest.raises(DataError, match="folder of another speaker"):
        prepare("librispeech", plant(tree))


def test_librispeech_probes_headers_only_when_asked(plant):
    root = plant(TREE)
    assert "duration_s" not in prepare("librispeech", root).manifest.columns
    pytest.importorskip("glottis.audio")
    probed = prepare("librispeech", root, probe_audio=True).manifest
    assert probed.column("duration_s") == pytest.approx([0.25] * 3)
    assert set(probed.column("sample_rate")) == {16000}


def test_librispeech_names_empty_files(plant):
    tree = {**TREE, "dev-clean/174/50561/174-50561-0001.flac": ""}
    prepared = prepare("librispeech", plant(tree))
    assert prepared.report.empty == ("dev-clean/174/50561/174-50561-0001.flac",)
