"""VoxCeleb1 and VoxCeleb2 in their published layouts."""

from __future__ import annotations

import pytest

from glottis.data import EvaluationTrials
from glottis.data.corpora import prepare
from glottis.errors import DataError

VOX1 = {
    "wav/id10001/1zcIwhmdeo4/00001.wav": None,
    "wav/id10001/1zcIwhmdeo4/00002.wav": None,
    "wav/id10001/7gWzIy6yIIk/00001.wav": None,
    "wav/id10270/x6uYqmx31kE/00001.wav": None,
    "wav/id10270/8jEAjG6SegY/00008.wav": None,
    "wav/id10309/0b1inHMAr6o/00001.wav": None,
    "wav/id10309/._00001.wav": "resource fork of a Mac",
    "vox1_meta.csv": (
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
        "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
        "id10270\tEartha_Kitt\tf\tUSA\ttest\n"
        "id10309\tEzra_Miller\tm\tUSA\ttest\n"
    ),
    "veri_test2.txt": (
        "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav\n"
        "0 id10270/x6uYqmx31kE/00001.wav id10309/0b1inHMAr6o/00001.wav\n"
    ),
}


def test_voxceleb1_columns_come_from_the_path_and_the_publishers_table(plant):
    prepared = prepare("voxceleb1", plant(VOX1))
    manifest = prepared.manifest
    assert len(manifest) == 6  # not the hidden file
    row = int(manifest.find(["id10001/7gWzIy6yIIk/00001.wav"])[0])
    assert manifest.column("path")[row] == "wav/id10001/7gWzIy6yIIk/00001.wav"
    assert manifest.column("speaker")[row] == "id10001"
    assert manifest.column("session")[row] == "7gWzIy6yIIk"
    assert manifest.column("split")[row] == "train"
    assert manifest.column("gender")[row] == "m"
    assert set(manifest.select(split="test").speakers()) == {"id10270", "id10309"}


def test_voxceleb1_official_trials_resolve_and_are_counted(plant):
    prepared = prepare("voxceleb1", plant(VOX1))
    trials = EvaluationTrials.read(prepared.trials["o"])
    assert (trials.rows(prepared.manifest) >= 0).all()
    counts = {count.what: count for count in prepared.report.counts}
    assert counts["trials in veri_test2.txt"].found == 2
    assert counts["trials in veri_test2.txt"].published == 37_611
    assert counts["train clips"].published == 148_642
    assert "differs" in prepared.report.text()


def test_voxceleb1_names_trial_utterances_without_a_file(plant):
    tree = dict(VOX1)
    del tree["wav/id10309/0b1inHMAr6o/00001.wav"]
    tree["wav/id10309/another/00001.wav"] = None
    prepared = prepare("voxceleb1", plant(tree))
    assert "id10309/0b1inHMAr6o/00001.wav" in prepared.report.text()


def test_voxceleb1_counts_that_differ_are_fatal_only_if_strict(plant):
    with pytest.raises(DataError, match="published 148642"):
        prepare("voxceleb1", plant(VOX1), strict=True)


def test_voxceleb1_two_archives_in_two_folders_are_one_corpus(plant):
    tree = {
        "dev/wav/id10001/v/00001.wav": None,
        "test/wav/id10270/v/00001.wav": None,
    }
    manifest = prepare("voxceleb1", plant(tree)).manifest
    assert list(manifest.column("utterance")) == ["id10001/v/00001.wav", "id10270/v/00001.wav"]
    assert list(manifest.column("path")) == [
        "dev/wav/id10001/v/00001.wav",
        "test/wav/id10270/v/00001.wav",
    ]


def test_voxceleb1_refuses_files_that_do_not_lie_where_they_should(plant):
    tree = {**VOX1, "wav/speaker7/v/00001.wav": None, "wav/id10001/00009.wav": None}
    with pytest.raises(DataError, match="2 files do not lie where they should") as caught:
        prepare("voxceleb1", plant(tree))
    assert "speaker is 'speaker7'" in caught.value.seen
    assert "id10001/00009.wav (has 2 parts" in caught.value.seen


def test_voxceleb1_refuses_a_table_with_other_test_speakers(plant):
    tree = {**VOX1, "vox1_meta.csv": str(VOX1["vox1_meta.csv"]).replace("USA\ttest", "USA\tdev")}
    with pytest.raises(DataError, match="another set than published"):
        prepare("voxceleb1", plant(tree))


VOX2 = {
    "aac/id00012/21Uxsk56VDQ/00001.m4a": None,
    "aac/id00012/2DLq_Kkc1r8/00012.m4a": None,
    "aac/id00017/01dfn2spqyE/00001.m4a": None,
    "vox2_meta.csv": (
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \r\n"
        "id00012 ,n000012 ,m ,dev\r\n"
        "id00017 ,n000017 ,f ,test\r\n"
    ),
}


def test_voxceleb2_reads_m4a_and_the_padded_table(plant):
    prepared = prepare("voxceleb2", plant(VOX2))
    manifest = prepared.manifest
    assert list(manifest.column("path")) == [p for p in VOX2 if p.endswith(".m4a")]
    assert list(manifest.column("split")) == ["train", "train", "test"]
    assert list(manifest.column("gender")) == ["m", "m", "f"]
    counts = {count.what: count for count in prepared.report.counts}
    assert (counts["train speakers"].found, counts["train speakers"].published) == (1, 5_994)


def test_voxceleb2_does_not_guess_which_speakers_are_test_speakers(plant):
    tree = {path: None for path in VOX2 if path.endswith(".m4a")}
    root = plant(tree)
    with pytest.raises(DataError, match="the test part or both"):
        prepare("voxceleb2", root)
    assert set(prepare("voxceleb2", root, part="dev").manifest.column("split")) == {"train"}


def test_voxceleb2_takes_the_split_from_the_folders_of_the_archives(plant):
    tree = {"dev/aac/id00012/v/00001.m4a": None, "test/aac/id00017/v/00001.m4a": None}
    assert list(prepare("voxceleb2", plant(tree)).manifest.column("split")) == ["train", "test"]


def test_voxceleb2_names_speakers_that_are_not_in_the_table(plant):
    with pytest.raises(DataError, match="id09999"):
        prepare("voxceleb2", plant({**VOX2, "aac/id09999/v/00001.m4a": None}))
