"""In-the-Wild, Fake-or-Real, SceneFake, SpoofCeleb and MLAAD in their published layouts."""

from __future__ import annotations

import pytest

from glottis.data import EvaluationProtocol
from glottis.data.corpora import prepare
from glottis.errors import DataError

WILD = {
    "meta.csv": (
        "file,speaker,label\r\n0.wav,Alec Guinness,spoof\r\n1.wav,Barack Obama,bona-fide\r\n\r\n"
    ),
    "0.wav": None,
    "1.wav": None,
}


@pytest.mark.parametrize("inside", ["", "release_in_the_wild/"])
def test_inthewild_spells_bona_fide_with_a_hyphen(plant, inside):
    prepared = prepare("inthewild", plant({inside + path: c for path, c in WILD.items()}))
    manifest = prepared.manifest
    assert list(manifest.column("label")) == ["spoof", "bonafide"]
    assert list(manifest.column("speaker")) == ["Alec Guinness", "Barack Obama"]
    assert manifest.check(prepared.root).ok
    counts = {count.what: count.published for count in prepared.report.counts}
    assert counts["test bonafide"] == 19_963
    assert counts["clips"] == 31_779


def test_inthewild_names_clips_of_the_table_without_a_file(plant):
    tree = {**WILD, "meta.csv": f"{WILD['meta.csv']}2.wav,Donald Trump,spoof\r\n"}
    assert prepare("inthewild", plant(tree)).report.missing == ("2.wav",)


def test_inthewild_refuses_an_unknown_label_and_lists_the_known(plant):
    tree = {**WILD, "meta.csv": str(WILD["meta.csv"]).replace("bona-fide", "maybe")}
    with pytest.raises(DataError, match="'maybe'") as caught:
        prepare("inthewild", plant(tree))
    assert "bona-fide" in caught.value.fix


def fake_or_real(folder: str) -> dict[str, str | None]:
    """One clip for each set and label."""
    return {
        f"{folder}/{part}/{label}/file{i}.wav": None
        for i, (part, label) in enumerate(
            (p, k) for p in ("training", "validation", "testing") for k in ("real", "fake")
        )
    }


@pytest.mark.parametrize(
    ("version", "folder"),
    [
        ("norm", "for-norm"),
        ("2sec", "for-2sec/for-2seconds"),
        ("rerec", "for-rerec/for-rerecorded"),
        ("original", "for-original"),
    ],
)
def test_fakeorreal_labels_are_the_folder_above_the_file(plant, version, folder):
    prepared = prepare("fakeorreal", plant(fake_or_real(folder)), version=version)
    table = {
        (split, label)
        for split, label in zip(
            prepared.manifest.column("split"), prepared.manifest.column("label"), strict=True
        )
    }
    assert table == {(s, k) for s in ("train", "dev", "test") for k in ("bonafide", "spoof")}
    assert "speakers are not published" in prepared.report.text()


def test_fakeorreal_labels_do_not_see_folders_above_the_root(plant):
    tree = fake_or_real("for-norm")
    plain = prepare("fakeorreal", plant(tree)).manifest
    for parent in ("real", "fake", "x/real/fake"):
        assert prepare("fakeorreal", plant(tree, parent)).manifest.sha256 == plain.sha256


def test_fakeorreal_refuses_an_unexpected_folder(plant):
    tree = {**fake_or_real("for-norm"), "for-norm/training/genuine/x.wav": None}
    with pytest.raises(DataError, match="label is 'genuine'") as caught:
        prepare("fakeorreal", plant(tree))
    assert "fake, real" in caught.value.fix


def test_scenefake_labels_are_the_folder_below_the_set(plant):
    tree = {
        "train/real/A_1.wav": None,
        "train/fake/A_2.wav": None,
        "dev/real/B_0092_10_B.wav": None,
        "eval/fake/seen/real/C_1.wav": None,  # deeper folders say nothing
        "eval/real/C_1.wav": None,
    }
    manifest = prepare("scenefake", plant(tree, "real")).manifest
    labels = dict(zip(manifest.column("path"), manifest.column("label"), strict=True))
    assert labels == {
        path: "bonafide" if path.split("/")[1] == "real" else "spoof" for path in tree
    }
    assert set(manifest.column("split")) == {"train", "dev", "test"}
    with pytest.raises(DataError, match="has 1 parts"):
        prepare("scenefake", plant({"train/loose.wav": None}, "other"))


def spoofceleb() -> dict[str, str | None]:
    """One bona fide and one spoofed clip for each set."""
    tree: dict[str, str | None] = {}
    for name, attack in (("train", "a03"), ("development", "a11"), ("evaluation", "a20")):
        rows = [
            f"a00/id10001/v-{name}.flac,id10001,a00",
            f"{attack}/id10001/w.flac,id10001,{attack}",
        ]
        tree[f"metadata/{name}.csv"] = "file,speaker,attack\n" + "\n".join(rows) + "\n"
        for row in rows:
            tree[f"flac/{name}/{row.split(',')[0]}"] = None
    return tree


def test_spoofceleb_attack_a00_is_bona_fide(plant):
    prepared = prepare("spoofceleb", plant(spoofceleb()))
    manifest = prepared.manifest
    assert list(manifest.column("label")) == ["bonafide", "spoof"] * 3
    assert list(manifest.column("attack")) == ["", "a03", "", "a11", "", "a20"]
    assert manifest.check(prepared.root).ok
    assert EvaluationProtocol.from_manifest(manifest.select(split="test")).attacks() == ("a20",)


def test_spoofceleb_refuses_attacks_that_do_not_exist_and_notes_unusual_ones(plant):
    tree = spoofceleb()
    tree["metadata/train.csv"] = str(tree["metadata/train.csv"]).replace(
        "id10001,a03", "id10001,b1"
    )
    with pytest.raises(DataError, match="unknown attacks b1"):
        prepare("spoofceleb", plant(tree))
    tree["metadata/train.csv"] = str(tree["metadata/train.csv"]).replace(
        "id10001,b1", "id10001,a20"
    )
    assert "attacks of other sets: a20" in prepare("spoofceleb", plant(tree)).report.text()


HEADER = "path|original_file|language|duration|model_name|architecture|transcript\n"


def test_mlaad_quotes_are_ordinary_characters(plant):
    rows = "".join(
        f"./ja/kokoro/{i}.wav|o{i}.wav|ja|1.0|kokoro|StyleTTS|{text}\n"
        for i, text in enumerate(['"open quote', "plain", 'close" quote', 'in "the" middle'])
    )
    tree = {"fake/ja/kokoro/meta.csv": HEADER + rows}
    tree |= {f"fake/ja/kokoro/{i}.wav": None for i in range(5)}
    prepared = prepare("mlaad", plant(tree))
    assert len(prepared.manifest) == 4
    assert set(prepared.manifest.column("label")) == {"spoof"}
    assert set(prepared.manifest.column("language")) == {"ja"}
    assert set(prepared.manifest.column("attack")) == {"kokoro"}
    assert prepared.manifest.check(prepared.root).ok
    assert "1 files of fake/ja/kokoro are not in its meta.csv" in prepared.report.text()
    assert "spoofs only" in prepared.report.text()


def test_mlaad_finds_the_file_beside_the_table_whatever_the_path_column_says(plant):
    tree = {
        "fake/de/My System (v2)/meta.csv": HEADER + "C:\\x\\fake\\de\\a.wav|o|de|1|m|a|t\n",
        "fake/de/My System (v2)/a.wav": None,
    }
    manifest = prepare("mlaad", plant(tree)).manifest
    assert list(manifest.column("path")) == ["fake/de/My System (v2)/a.wav"]
