"""A plain folder, a table and a Kaldi data folder."""

from __future__ import annotations

import pytest

from glottis.data import DevelopmentTrials
from glottis.data.corpora import prepare
from glottis.errors import ConfigError, DataError

PEOPLE = {
    "alice/monday/1.wav": None,
    "alice/tuesday/1.flac": None,
    "bob/monday/1.wav": None,
    "bob/monday/notes.txt": "no audio",
}


def test_folder_takes_the_speaker_from_the_first_level(plant):
    manifest = prepare("folder", plant(PEOPLE), licence="mine", language="en").manifest
    assert list(manifest.column("speaker")) == ["alice", "alice", "bob"]
    assert list(manifest.column("utterance")) == [
        "alice/monday/1",
        "alice/tuesday/1",
        "bob/monday/1",
    ]
    assert set(manifest.column("licence")) == {"mine"}
    assert "session" not in manifest.columns
    assert "label" not in manifest.columns


def test_folder_sessions_of_two_speakers_are_two_sessions(plant):
    manifest = prepare("folder", plant(PEOPLE), speaker_component=0, session_component=1).manifest
    assert list(manifest.column("session")) == ["alice/monday", "alice/tuesday", "bob/monday"]


def test_folder_takes_labels_from_one_level_only(plant):
    tree = {"fake/real/1.wav": None, "genuine/fake/2.wav": None}
    manifest = prepare("folder", plant(tree, "real"), label_component=0).manifest
    assert list(manifest.column("label")) == ["spoof", "bonafide"]
    assert "speaker" not in manifest.columns


def test_folder_refuses_a_label_folder_that_is_no_label(plant):
    with pytest.raises(DataError, match="'noise'"):
        prepare("folder", plant({"noise/1.wav": None, "real/1.wav": None}), label_component=0)


def test_folder_labels_that_are_numbers_need_the_polarity(plant):
    root = plant({"0/a.wav": None, "1/b.wav": None})
    with pytest.raises(DataError, match="numbers 0, 1"):
        prepare("folder", root, label_component=0)
    stated = prepare("folder", root, label_component=0, polarity="one_is_spoof").manifest
    assert list(stated.column("label")) == ["bonafide", "spoof"]


def test_folder_refuses_files_above_the_named_level(plant):
    with pytest.raises(DataError, match=r"loose\.wav"):
        prepare("folder", plant({**PEOPLE, "loose.wav": None}))


def test_folder_refuses_two_meanings_for_one_level(plant):
    with pytest.raises(DataError, match="two meanings"):
        prepare("folder", plant(PEOPLE), speaker_component=0, label_component=0)


def test_folder_keeps_names_that_are_not_ascii(plant):
    manifest = prepare("folder", plant({"Zoë/größe 1.wav": None, "陳/一.wav": None})).manifest
    assert list(manifest.column("speaker")) == ["Zoë", "陳"]


def test_folder_follows_links_but_not_loops(plant):
    root = plant(PEOPLE)
    (root / "carol").symlink_to(root / "bob", target_is_directory=True)
    (root / "bob" / "loop").symlink_to(root, target_is_directory=True)
    paths = list(prepare("folder", root).manifest.column("path"))
    own = [path for path in PEOPLE if not path.endswith(".txt")]
    assert paths == [*own, "carol/monday/1.wav"]


TABLE = {
    "clips.csv": "\ufeffwav;who;kind;mood\na.wav;ann;real;calm\nsub\\b.wav;bob;fake;angry\n",
    "audio/a.wav": None,
    "audio/sub/b.wav": None,
}
MAPPING = {"path": "wav", "speaker": "who", "label": "kind"}


def test_table_maps_columns_normalises_separators_and_keeps_the_rest(plant):
    prepared = prepare(
        "table",
        plant(TABLE),
        file="clips.csv",
        delimiter=";",
        folder="audio",
        columns=MAPPING,
        constants={"licence": "CC0"},
    )
    manifest = prepared.manifest
    assert list(manifest.column("path")) == ["audio/a.wav", "audio/sub/b.wav"]
    assert list(manifest.column("utterance")) == ["audio/a", "audio/sub/b"]
    assert list(manifest.column("label")) == ["bonafide", "spoof"]
    assert list(manifest.column("mood")) == ["calm", "angry"]
    assert set(manifest.column("licence")) == {"CC0"}
    assert manifest.check(prepared.root).ok


def test_table_can_drop_the_columns_that_are_not_named(plant):
    manifest = prepare(
        "table",
        plant(TABLE),
        file="clips.csv",
        delimiter=";",
        folder="audio",
        columns=MAPPING,
        keep_extra=False,
    ).manifest
    assert "mood" not in manifest.columns


def test_table_refuses_a_mapping_to_columns_that_do_not_exist(plant):
    root = plant(TABLE)
    with pytest.raises(DataError, match="has no column person"):
        prepare(
            "table", root, file="clips.csv", delimiter=";", columns={**MAPPING, "speaker": "person"}
        )
    with pytest.raises(DataError, match="no manifest column spekaer"):
        prepare("table", root, file="clips.csv", columns={**MAPPING, "spekaer": "who"})
    with pytest.raises(DataError, match="which column is the path"):
        prepare("table", root, file="clips.csv", columns={"speaker": "who"})
    with pytest.raises(ConfigError, match="file"):
        prepare("table", root)


def test_table_paths_may_not_leave_the_corpus(plant):
    tree = {**TABLE, "clips.csv": "wav\n../../etc/passwd\n/abs.wav\n"}
    with pytest.raises(DataError, match=r"leaves data\.root: rows 1 .* 2"):
        prepare("table", plant(tree), file="clips.csv", columns={"path": "wav"})


KALDI = {
    "wav.scp": "utt1 audio/one file.wav\nutt2 audio/two.wav\n",
    "utt2spk": "utt1 ann\nutt2 bob\n",
    "spk2gender": "ann f\nbob m\n",
    "trials": "utt1 utt2 nontarget\nutt1 utt1 target\n",
    "audio/one file.wav": None,
    "audio/two.wav": None,
}


def test_kaldi_joins_its_lists(plant):
    prepared = prepare("kaldi", plant(KALDI), split="train")
    manifest = prepared.manifest
    assert list(manifest.column("path")) == ["audio/one file.wav", "audio/two.wav"]
    assert list(manifest.column("speaker")) == ["ann", "bob"]
    assert list(manifest.column("gender")) == ["f", "m"]
    assert set(manifest.column("split")) == {"train"}
    assert len(DevelopmentTrials.read(prepared.trials["trials"])) == 2
    assert manifest.check(prepared.root).ok


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("utt1 sox a.wav -t wav - |", "commands, which are never run"),
        ("utt1 -", "commands, which are never run"),
        ("utt1 feats.ark:1234", "pieces of archives"),
        ("utt1", "have no path"),
        ("utt2 audio/two.wav", "names stand twice"),
        ("utt1 /elsewhere/a.wav", "not under"),
    ],
)
def test_kaldi_refuses_what_is_no_file(plant, line, reason):
    with pytest.raises(DataError, match=reason):
        prepare("kaldi", plant({**KALDI, "wav.scp": f"{line}\nutt2 audio/two.wav\n"}))


def test_kaldi_absolute_paths_become_relative_to_the_audio_root(plant):
    audio = plant({"x/one.wav": None, "two.wav": None}, "audio")
    lists = plant(
        {
            "wav.scp": f"utt1 {audio}/x/one.wav\nutt2 {audio}/two.wav\n",
            "utt2spk": KALDI["utt2spk"],
        },
        "lists",
    )
    prepared = prepare("kaldi", lists, audio_root=str(audio))
    assert list(prepared.manifest.column("path")) == ["x/one.wav", "two.wav"]
    assert prepared.root == audio


def test_kaldi_wants_every_utterance_in_both_lists(plant):
    with pytest.raises(DataError, match=r"utterances of wav\.scp are not in utt2spk: utt2"):
        prepare("kaldi", plant({**KALDI, "utt2spk": "utt1 ann\n"}))
    with pytest.raises(DataError, match=r"utterances of utt2spk are not in wav\.scp: utt3"):
        prepare("kaldi", plant({**KALDI, "utt2spk": f"{KALDI['utt2spk']}utt3 bob\n"}))


def test_kaldi_segments_cut_recordings(plant):
    tree = {
        **KALDI,
        "wav.scp": "rec1 audio/one file.wav\n",
        "segments": "utt1 rec1 0.00 0.10\nutt2 rec1 0.10 0.25\n",
        "trials": "utt1 utt2 nontarget\n",
    }
    manifest = prepare("kaldi", plant(tree)).manifest
    assert list(manifest.column("start_s")) == [0.0, 0.1]
    assert list(manifest.column("end_s")) == [0.1, 0.25]
    assert manifest.column("duration_s") == pytest.approx([0.1, 0.15])
    assert set(manifest.column("path")) == {"audio/one file.wav"}
    with pytest.raises(DataError, match="rec9"):
        prepare("kaldi", plant({**tree, "segments": "utt1 rec9 0 1\nutt2 rec1 0 1\n"}))
    with pytest.raises(DataError, match="not a piece of a file"):
        prepare("kaldi", plant({**tree, "segments": "utt1 rec1 2 1\nutt2 rec1 0 1\n"}))
