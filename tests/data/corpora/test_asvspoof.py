"""ASVspoof 2019, 2021 and 5 in their published layouts."""

from __future__ import annotations

import pytest

from glottis.data import DevelopmentProtocol, EvaluationProtocol, check_protocol
from glottis.data.corpora import prepare
from glottis.errors import DataError


def la2019(access: str = "LA") -> dict[str, str | None]:
    """Three sets of two or three clips."""
    lists = f"{access}/ASVspoof2019_{access}_cm_protocols/ASVspoof2019.{access}.cm"
    audio = f"{access}/ASVspoof2019_{access}"
    third = "-" if access == "LA" else "aaa"
    attacks = ("A01", "A06", "A17") if access == "LA" else ("AA", "BB", "CC")
    tree: dict[str, str | None] = {}
    for letter, name, kind, attack in zip(
        "TDE", ("train", "dev", "eval"), ("trn", "trl", "trl"), attacks, strict=True
    ):
        bona, spoof = f"{access}_{letter}_1000001", f"{access}_{letter}_1000002"
        tree[f"{lists}.{name}.{kind}.txt"] = (
            f"{access}_00{letter}1 {bona} {third} - bonafide\n"
            f"{access}_00{letter}2 {spoof} {third} {attack} spoof\n"
        )
        tree[f"{audio}_{name}/flac/{bona}.flac"] = None
        tree[f"{audio}_{name}/flac/{spoof}.flac"] = None
    tree[f"{audio}_dev/flac/{access}_D_9999999.flac"] = None  # enrolment, in no protocol
    return tree


@pytest.mark.parametrize("access", ["LA", "PA"])
def test_asvspoof2019_labels_and_attacks_come_from_the_protocol(plant, access):
    prepared = prepare("asvspoof2019", plant(la2019(access)), access=access)
    manifest = prepared.manifest
    assert list(manifest.column("split")) == ["train"] * 2 + ["dev"] * 2 + ["test"] * 2
    assert list(manifest.column("label")) == ["bonafide", "spoof"] * 3
    assert [a for a in manifest.column("attack") if a] == (
        ["A01", "A06", "A17"] if access == "LA" else ["AA", "BB", "CC"]
    )
    assert ("environment" in manifest.columns) == (access == "PA")
    assert manifest.check(prepared.root).ok
    for split in ("train", "dev", "test"):
        protocol = EvaluationProtocol.read(prepared.trials[split])
        assert check_protocol(protocol, manifest) == []


def test_asvspoof2019_counts_beside_the_published_ones(plant):
    report = prepare("asvspoof2019", plant(la2019())).report
    counts = {count.what: (count.found, count.published) for count in report.counts}
    assert counts["train bonafide"] == (1, 2_580)
    assert counts["dev spoof"] == (1, 22_296)
    assert counts["test bonafide"] == (1, 7_355)


def test_asvspoof2019_leaves_enrolment_files_out_and_says_so(plant):
    prepared = prepare("asvspoof2019", plant(la2019()))
    assert "LA_D_9999999" not in set(prepared.manifest.column("utterance"))
    assert "1 files" in prepared.report.text()
    assert "published 142" in prepared.report.text()


def test_asvspoof2019_names_missing_audio(plant):
    tree = la2019()
    del tree["LA/ASVspoof2019_LA_dev/flac/LA_D_1000002.flac"]
    root = plant(tree)
    report = prepare("asvspoof2019", root).report
    assert report.missing == ("ASVspoof2019_LA_dev/flac/LA_D_1000002.flac",)
    with pytest.raises(DataError, match="LA_D_1000002"):
        prepare("asvspoof2019", root, strict=True)


def test_asvspoof2019_can_read_one_part_only(plant):
    tree = {path: c for path, c in la2019().items() if "train" in path}
    root = plant(tree)
    with pytest.raises(DataError, match="the dev protocol is missing"):
        prepare("asvspoof2019", root)
    assert len(prepare("asvspoof2019", root, splits=["train"]).manifest) == 2


def test_asvspoof2019_refuses_another_label_word(plant):
    tree = la2019()
    name = "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.train.trn.txt"
    tree[name] = str(tree[name]).replace("spoof\n", "spoofed\n")
    with pytest.raises(DataError, match="unknown labels 'spoofed'"):
        prepare("asvspoof2019", plant(tree))


def test_a_parent_folder_called_real_or_bonafide_changes_no_label(plant):
    here = prepare("asvspoof2019", plant(la2019()))
    there = prepare("asvspoof2019", plant(la2019(), "real/bonafide/train"))
    assert here.manifest.sha256 == there.manifest.sha256


KEYS = {
    "LA": "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0009 LA_E_9332882 none - - bonafide notrim eval\n"
    "LA_0010 LA_E_9332883 gsm ita_tx - bonafide notrim progress\n",
    "DF": "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder"
    " - - - -\n"
    "TEF2 DF_E_2000012 low_mp3 vcc2020 - bonafide notrim eval - - - - -\n"
    "TEF2 DF_E_2000013 high_ogg vcc2020 Task1-team20 spoof trim hidden neural_vocoder - - - -\n",
    "PA": "PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval\n"
    "PA_0011 PA_E_1000002 R3 M2 d4 - - - - bonafide notrim eval\n",
}


def of2021(track: str) -> dict[str, str | None]:
    """The audio in numbered parts, the keys in their own package."""
    tree: dict[str, str | None] = {
        f"{track}-keys-full/keys/{track}/CM/trial_metadata.txt": KEYS[track],
        f"ASVspoof2021_{track}_eval_part00/ASVspoof2021_{track}_eval/"
        f"ASVspoof2021.{track}.cm.eval.trl.txt": "only names\n",
    }
    for index, line in enumerate(KEYS[track].splitlines()):
        part = f"ASVspoof2021_{track}_eval_part{index % 2:02d}/ASVspoof2021_{track}_eval/flac"
        tree[f"{part}/{line.split()[1]}.flac"] = None
    return tree


@pytest.mark.parametrize("track", ["LA", "DF", "PA"])
def test_asvspoof2021_reads_the_key_file_and_audio_in_parts(plant, track):
    prepared = prepare("asvspoof2021", plant(of2021(track)), track=track)
    manifest = prepared.manifest
    assert manifest.check(prepared.root).ok
    assert len(manifest) == len(KEYS[track].splitlines())
    assert (
        prepared.report.counts[-1].published == {"LA": 181_566, "DF": 611_829, "PA": 943_110}[track]
    )
    protocol = EvaluationProtocol.read(prepared.trials["test"])
    assert [f for f in check_protocol(protocol, manifest) if f.severity == "stop"] == []


def test_asvspoof2021_subsets_codecs_and_sources_are_kept(plant):
    manifest = prepare("asvspoof2021", plant(of2021("DF")), track="DF").manifest
    assert list(manifest.column("split")) == ["progress", "test", "hidden"]
    assert list(manifest.column("channel")) == ["nocodec", "low_mp3", "high_ogg"]
    assert list(manifest.column("source"))[1] == "ASVspoof2021 DF vcc2020"
    assert list(manifest.column("vocoder")) == ["traditional_vocoder", "", "neural_vocoder"]
    physical = prepare("asvspoof2021", plant(of2021("PA"), "pa"), track="PA").manifest
    assert list(physical.column("attack")) == ["replay", ""]
    assert list(physical.column("attacker_mic")) == ["m1", ""]


def test_asvspoof2021_without_keys_says_that_the_package_has_no_labels(plant):
    tree = {path: c for path, c in of2021("LA").items() if "keys" not in path}
    with pytest.raises(DataError, match="keys of ASVspoof2021 LA are missing") as caught:
        prepare("asvspoof2021", plant(tree))
    assert "no labels" in caught.value.why


def test_asvspoof2021_refuses_the_keys_of_another_track(plant):
    tree = of2021("LA")
    tree["LA-keys-full/keys/LA/CM/trial_metadata.txt"] = KEYS["DF"]
    with pytest.raises(DataError, match="asvspoof2021_df"):
        prepare("asvspoof2021", plant(tree))


def of5() -> dict[str, str | None]:
    """Ten columns separated by spaces in files called .tsv."""
    tree: dict[str, str | None] = {}
    for letter, folder, name in (
        ("T", "flac_T", "train"),
        ("D", "flac_D", "dev.track_1"),
        ("E", "flac_E_eval", "eval.track_1"),
    ):
        tree[f"ASVspoof5_protocols/ASVspoof5.{name}.tsv"] = (
            f"{letter}_4850 {letter}_0000000000 F - - - AC3 A05 spoof -\n"
            f"{letter}_4851 {letter}_0000000001 M C05 3 7 - bonafide bonafide -\n"
        )
        tree[f"{folder}/{letter}_0000000000.flac"] = None
        tree[f"{folder}/{letter}_0000000001.flac"] = None
    tree["ASVspoof5_protocols/ASVspoof5.dev.track_2.enroll.tsv"] = "D_1 D_A0000000562\n"
    tree["ASVspoof5_protocols/ASVspoof5.dev.track_2.trial.tsv"] = (
        "D_1 D_0000000001 F bonafide target\n"
    )
    tree["flac_D/D_A0000000562.flac"] = None
    return tree


def test_asvspoof5_is_separated_by_spaces_despite_its_name(plant):
    prepared = prepare("asvspoof5", plant(of5()))
    manifest = prepared.manifest
    assert list(manifest.column("label")) == ["spoof", "bonafide"] * 3
    assert list(manifest.column("attack"))[:2] == ["A05", ""]
    assert list(manifest.column("gender"))[:2] == ["f", "m"]
    assert list(manifest.column("channel"))[:2] == ["", "C05"]
    assert list(manifest.column("attack_tag"))[:2] == ["AC3", ""]
    counts = {count.what: (count.found, count.published) for count in prepared.report.counts}
    assert counts["train clips"] == (2, 182_357)
    assert counts["test clips"] == (2, 680_774)
    assert len(DevelopmentProtocol.read(prepared.trials["dev"])) == 2
    assert {"dev_track_2_enroll", "dev_track_2_trial"} <= set(prepared.trials)
    assert "enrolment of track 2" in prepared.report.text()


def test_asvspoof5_refuses_the_six_columns_of_the_pre_release(plant):
    tree = of5()
    tree["ASVspoof5_protocols/ASVspoof5.train.tsv"] = "T_1 T_0000000000 - - A05 spoof\n"
    with pytest.raises(DataError, match="do not have"):
        prepare("asvspoof5", plant(tree))
