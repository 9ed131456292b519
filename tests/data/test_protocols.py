"""Spoofing protocols: layouts, types, conditions, checks."""

from __future__ import annotations

import pytest

from glottis.data import (
    DevelopmentProtocol,
    EvaluationProtocol,
    EvaluationTrials,
    Manifest,
    Protocol,
    check_different,
    check_protocol,
    require_development,
    require_protocol,
)
from glottis.errors import DataError

LA2019 = "LA_0079 LA_T_1138215 - - bonafide\nLA_0098 LA_T_9982036 - A06 spoof\n"
LAYOUTS = {
    "asvspoof2019 LA": (LA2019, ["", "A06"], {}),
    "asvspoof2019 PA": (
        "PA_0079 PA_T_1 aaa - bonafide\nPA_0079 PA_T_2 abc AB spoof\n",
        ["", "AB"],
        {"environment": ["aaa", "abc"]},
    ),
    "asvspoof2021 LA": (
        "LA_0009 LA_E_1 none - - bonafide notrim eval\n"
        "LA_0009 LA_E_2 alaw ita_tx A07 spoof notrim hidden\n",
        ["", "A07"],
        {
            "codec": ["none", "alaw"],
            "transmission": ["", "ita_tx"],
            "trim": ["notrim", "notrim"],
            "subset": ["eval", "hidden"],
        },
    ),
    "asvspoof2021 DF": (
        "LA_0023 DF_E_1 nocodec asvspoof - bonafide notrim eval - - - - -\n"
        "LA_0023 DF_E_2 low_mp3 asvspoof A14 spoof notrim eval traditional_vocoder - - - -\n",
        ["", "A14"],
        {
            "codec": ["nocodec", "low_mp3"],
            "source": ["asvspoof", "asvspoof"],
            "trim": ["notrim", "notrim"],
            "subset": ["eval", "eval"],
            "vocoder": ["", "traditional_vocoder"],
        },
    ),
    "asvspoof2021 PA": (
        "PA_0010 PA_E_1 R3 M3 d4 - - - - bonafide notrim eval\n"
        "PA_0010 PA_E_2 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval\n",
        ["", "replay"],
        {
            "asv_room": ["R3", "R3"],
            "asv_mic": ["M3", "M3"],
            "asv_distance": ["d4", "d4"],
            "attacker_room": ["", "r1"],
            "attacker_mic": ["", "m1"],
            "attacker_distance": ["", "s4"],
            "attacker_to_speaker": ["", "c4"],
            "trim": ["notrim", "notrim"],
            "subset": ["eval", "eval"],
        },
    ),
    "asvspoof5": (
        "T_4850 T_0000000001 M - - - - bonafide bonafide -\n"
        "T_4850 T_0000000000 F C05 3 7 AC3 A05 spoof -\n",
        ["", "A05"],
        {
            "gender": ["M", "F"],
            "codec": ["", "C05"],
            "codec_quality": ["", "3"],
            "codec_seed": ["", "7"],
            "attack_tag": ["", "AC3"],
        },
    ),
}


def saved(folder, text, name="protocol.txt"):
    """A protocol on disk."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_published_layout_is_recognised(tmp_path, name, ending):
    text, attacks, conditions = LAYOUTS[name]
    protocol = EvaluationProtocol.read(saved(tmp_path, text.replace("\n", ending)))
    assert protocol.bonafide.tolist() == [True, False]
    assert protocol.label.tolist() == ["bonafide", "spoof"]
    assert protocol.attack.tolist() == attacks
    assert {k: v.tolist() for k, v in protocol.conditions.items()} == conditions
    assert protocol.utterance.tolist() == [line.split()[1] for line in text.splitlines()]
    assert check_protocol(protocol) == []


def test_a_list_of_names_without_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match="do not have 5 or 8 or 10 or 12 or 13 cells"):
        EvaluationProtocol.read(saved(tmp_path, "LA_E_1\nLA_E_2\n"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_protocol_and_a_trial_list_are_not_confused(tmp_path, name):
    path = tmp_path / "list.txt"
    path.write_text(LAYOUTS[name][0], encoding="utf-8")
    with pytest.raises(DataError, match="do not have 3 cells") as caught:
        EvaluationTrials.read(path)
    assert "--protocol" in caught.value.fix
    assert name.split()[0] in caught.value.fix
    path.write_text("1 a.wav b.wav\n0 a.wav c.wav\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 lines of the protocol") as caught:
        EvaluationProtocol.read(path)
    assert "--trials" in caught.value.fix


def test_a_protocol_with_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"column 5 .*'fakey'"):
        EvaluationProtocol.read(saved(tmp_path, LA2019.replace("spoof", "fakey")))


def test_numeric_keys_are_refused(tmp_path):
    text = LA2019.replace("bonafide", "1").replace("spoof", "0")
    with pytest.raises(DataError, match="polarity"):
        EvaluationProtocol.read(saved(tmp_path, text))


def test_a_protocol_is_for_development_or_for_evaluation(tmp_path, caplog):
    path = saved(tmp_path, LA2019)
    with pytest.raises(DataError, match="either"):
        Protocol.read(path)
    development, evaluation = DevelopmentProtocol.read(path), EvaluationProtocol.read(path)
    assert require_development(development) is development
    with pytest.raises(DataError, match="EvaluationProtocol"):
        require_development(evaluation)
    assert "same file" in check_different(development, evaluation)[0].seen
    assert require_development(evaluation.as_development(allow="P6")).edits
    assert "P6" in caplog.text
    changed = EvaluationProtocol.read(saved(tmp_path, LA2019 + "S LA_T_3 - A01 spoof\n", "e.txt"))
    assert "share 2 utterances" in check_different(development, changed)[0].seen


def test_conditions_select_and_leave_a_mark(tmp_path):
    protocol = EvaluationProtocol.read(saved(tmp_path, LAYOUTS["asvspoof2021 LA"][0]))
    part = protocol.select("subset", "eval")
    assert part.utterance.tolist() == ["LA_E_1"]
    assert part.identity != protocol.identity
    assert part.sha256 == protocol.sha256
    with pytest.raises(DataError, match="no condition 'room'"):
        protocol.select("room", "x")
    with pytest.raises(DataError, match="no subset is progress"):
        protocol.select("subset", "progress")


def test_a_subset_keeps_the_shares_of_attacks(tmp_path):
    lines = [f"S B{i} - - bonafide" for i in range(40)]
    lines += [f"S X{i} - A0{1 + i % 4} spoof" for i in range(160)]
    protocol = EvaluationProtocol.read(saved(tmp_path, "\n".join(lines)))
    part = protocol.subset(50, seed=3)
    assert part.summary()["attacks"] == dict.fromkeys(["A01", "A02", "A03", "A04"], 10)
    assert int(part.bonafide.sum()) == 10
    assert part.utterance.tolist() == protocol.subset(50, seed=3).utterance.tolist()
    assert part.utterance.tolist() != protocol.subset(50, seed=4).utterance.tolist()


def audio(**changes):
    """The manifest of LA2019."""
    columns = {
        "utterance": ["LA_T_9982036", "LA_T_1138215"],
        "path": ["b.flac", "a.flac"],
        "speaker": ["LA_0098", "LA_0079"],
        "label": ["spoof", "bonafide"],
    }
    return Manifest.from_columns({**columns, **changes})


def test_rows_resolve_against_the_manifest(tmp_path):
    protocol = EvaluationProtocol.read(saved(tmp_path, LA2019))
    assert protocol.rows(audio()).tolist() == [1, 0]
    assert check_protocol(protocol, audio()) == []
    with pytest.raises(DataError, match="1 of 2 utterances are not in the manifest: LA_T_1138215"):
        protocol.rows(audio().take([0]))


@pytest.mark.parametrize(
    ("text", "manifest", "reason"),
    [
        (LA2019.splitlines()[0], None, "1 bona fide and 0 spoofed"),
        (LA2019 + LA2019.splitlines()[1], None, "1 utterances stand twice: LA_T_9982036"),
        (LA2019.replace("- - bona", "- A01 bona"), None, "1 bona fide utterances have an attack"),
        (LA2019, audio(label=["bonafide", "bonafide"]), "another label"),
        (LA2019, audio(speaker=["x", "LA_0079"]), "another speaker"),
        (LA2019, audio().take([1]), "not in the manifest: LA_T_9982036"),
    ],
)
def test_p7_finds_each_fault(tmp_path, text, manifest, reason):
    protocol = EvaluationProtocol.read(saved(tmp_path, text))
    with pytest.raises(DataError, match=reason) as caught:
        require_protocol(protocol, manifest)
    assert caught.value.rule == "P7"


def test_a_corpus_without_a_protocol_gives_one_from_its_manifest():
    protocol = DevelopmentProtocol.from_manifest(audio())
    assert protocol.bonafide.tolist() == [False, True]
    assert protocol.sha256 == audio().sha256
    with pytest.raises(DataError, match="1 of 2 rows have no label"):
        DevelopmentProtocol.from_manifest(audio(label=["", "spoof"]))


def test_the_protocols_of_the_speech_pack_are_sound(shared):
    speech = shared / "speech"
    manifest = Manifest.read(speech / "manifest.csv")
    sizes = {"cm.train.trn": 1303, "cm.dev.trl": 308, "cm.eval.trl": 724, "cm.eval_known.trl": 582}
    for name, size in sizes.items():
        protocol = EvaluationProtocol.read(speech / "protocols" / f"{name}.txt")
        require_protocol(protocol, manifest)
        assert len(protocol) == size
