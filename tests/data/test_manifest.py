"""The manifest: reading, refusing, selecting, writing, identity."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glottis.data import Manifest
from glottis.errors import DataError, ToolkitError

ROWS = {
    "utterance": ["u1", "u2", "u3", "u4"],
    "path": ["b/1.wav", "a/2.wav", "a/3.wav", "c/4.wav"],
    "speaker": ["bob", "ann", "ann", ""],
    "label": ["bonafide", "spoof", "bonafide", ""],
    "attack": ["-", "A01", "", ""],
    "duration_s": [3600.0, 1800.0, None, 1800.0],
    "sample_rate": [16000, 8000, None, 16000],
    "gender": ["m", "f", "f", ""],
    "licence": ["CC0", "CC0", "mine", "mine"],
}


def manifest() -> Manifest:
    """Four rows with known and unknown cells."""
    return Manifest.from_columns(ROWS)


def saved(folder: Path, text: str, name: str = "m.csv") -> Path:
    """A text file."""
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    manifest().write(path)
    again = Manifest.read(path)
    assert again.sha256 == manifest().sha256
    assert again.columns == manifest().columns
    for name in again.columns:
        np.testing.assert_array_equal(again.column(name), manifest().column(name))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells=st.lists(st.tuples(TEXT, TEXT, st.floats(0.01, 1e6)), min_size=1, max_size=6),
    suffix=st.sampled_from(["csv", "tsv", "parquet"]),
)
def test_any_text_survives_csv_and_parquet(tmp_path, cells, suffix):
    original = Manifest.from_columns(
        {
            "utterance": [f"u{i}" for i in range(len(cells))],
            "path": [f"{i}.wav" for i in range(len(cells))],
            "speaker": [cell[0] for cell in cells],
            "transcript": [cell[1] for cell in cells],
            "duration_s": [cell[2] for cell in cells],
        }
    )
    original.write(tmp_path / f"m.{suffix}")
    again = Manifest.read(tmp_path / f"m.{suffix}")
    assert again.sha256 == original.sha256
    assert list(again.column("transcript")) == [cell[1] for cell in cells]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m.csv"
    manifest().write(path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ToolkitError, match=r"cannot write .*no space"):
        manifest().select(speaker="ann").write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]
    assert len(Manifest.read(path)) == 4


def test_a_csv_from_a_spreadsheet_is_read(tmp_path):
    text = '\ufeffutterance,path,speaker\r\n\r\nu1,"a,b.wav",Zoë\r\n\r\nu2,sub\\c.wav,007\r\n'
    read = Manifest.read(saved(tmp_path, text))
    assert list(read.column("path")) == ["a,b.wav", "sub/c.wav"]
    assert list(read.column("speaker")) == ["Zoë", "007"]  # not the number 7


def test_extra_columns_are_kept_with_their_types(tmp_path):
    table = Manifest.from_columns({**ROWS, "mos": [1.5, 2.0, 3.0, 4.0], "clean": [True] * 4})
    table.write(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    assert again.column("mos").dtype == np.float64
    assert again.column("clean").tolist() == [True] * 4


def test_standard_columns_that_are_absent_are_empty():
    small = Manifest.from_columns({"utterance": ["a"], "path": ["a.wav"]})
    assert small.column("gender").tolist() == [""]
    assert np.isnan(small.column("duration_s")).all()
    assert small.column("sample_rate").tolist() == [0]
    with pytest.raises(DataError, match="no column 'mood'"):
        small.column("mood")


def test_columns_are_read_only():
    with pytest.raises(ValueError):
        manifest().column("duration_s")[0] = 1.0


def test_a_parquet_of_a_newer_glottis_is_refused(tmp_path):
    table = manifest().table.replace_schema_metadata({b"glottis.manifest": b"99"})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(DataError, match="newer Glottis"):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("utterance,path\n", "no rows"),
        ("utterance,speaker\nu,s\n", "missing columns path; found: utterance, speaker"),
        ("utterance,path,path\nu,p,q\n", "columns that stand twice: path"),
        ("utterance;path\nu;p\n", "missing columns utterance, path"),
        ("utterance,path\nu1,p1\nu2\nu3,p3,x\n", "row 2 has 1 .*row 3 has 3"),
        ("utterance,path,\nu1,p1,x\n", "column without a name"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason):
        Manifest.read(saved(tmp_path, text))


def test_a_name_without_a_known_suffix_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.csv, \.tsv, \.parquet"):
        Manifest.read(saved(tmp_path, "x", "m.txt"))
    with pytest.raises(DataError, match="no manifest"):
        Manifest.read(tmp_path / "none.csv")
    saved(tmp_path, "not parquet", "m.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        Manifest.read(tmp_path / "m.parquet")
    (tmp_path / "latin.csv").write_bytes("utterance,path\nZo\xeb,a.wav\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF"):
        Manifest.read(tmp_path / "latin.csv")


# ---------------------------------------------------------------- refusing


def test_all_problems_are_reported_at_once_with_row_numbers(tmp_path):
    text = (
        "utterance,path,label,duration_s,sample_rate,attack\n"
        "u1,/abs/1.wav,bonafide,1.0,16000,\n"
        "u2,../2.wav,bona-fide,one,16000,\n"
        "u1,3.wav,spoof,-2,16000.5,A01\n"
        ",C:/4.wav,bonafide,1,16000,A02\n"
        "u5,x/../../y.wav,spoof,1,0,A01\n"
    )
    with pytest.raises(DataError) as caught:
        Manifest.read(saved(tmp_path, text))
    seen = caught.value.seen
    assert "empty utterance: row 4" in seen
    assert "utterance stands twice: row 3 ('u1')" in seen
    assert "path leaves data.root: rows 1 ('/abs/1.wav'), 2 ('../2.wav'), 4 ('C:/4.wav'), 5" in seen
    assert "unknown label: row 2 ('bona-fide')" in seen
    assert "duration_s is not a number: row 2 ('one')" in seen
    assert "sample_rate is not a whole number: row 3 ('16000.5')" in seen
    assert "bona fide with an attack: row 4 ('A02')" in seen


def test_the_report_of_problems_is_bounded():
    many = {"utterance": ["same"] * 5000, "path": [f"/{i}.wav" for i in range(5000)]}
    with pytest.raises(DataError) as caught:
        Manifest.from_columns(many)
    assert len(str(caught.value)) < 2000
    assert "and 4994 more" in caught.value.seen


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"duration_s": [0.0, 1.0, 1.0, 1.0]}, "not a positive number: row 1"),
        ({"duration_s": [float("nan"), float("inf"), 1.0, 1.0]}, "rows 1 .*2"),
        ({"sample_rate": [16000.0] * 4}, "must be a whole number"),
        ({"speaker": [1.5] * 4}, "speaker is double, it must be text"),
        ({"path": ["a.wav", "./a.wav", "a//b.wav", "c.wav"]}, "path stands twice: row 2"),
        ({"utterance": ["a\nb", "c", "d", "e"]}, "line break"),
        ({"words": [["a"], ["b"], ["c"], ["d"]]}, "extra column words"),
        ({"start_s": [0.0] * 4}, "needs column end_s"),
        ({"start_s": [0.0, 1.0, 2.0, 1.0], "end_s": [1.0, 1.0, None, 2.0]}, "only one of"),
        (
            {"start_s": [0.0, 1.0, 2.0, 1.0], "end_s": [1.0, 1.0, 3.0, 2.0]},
            "piece of a file: row 2",
        ),
    ],
)
def test_a_wrong_column_is_refused(change, reason):
    with pytest.raises(DataError, match=reason):
        Manifest.from_columns({**ROWS, **change})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", ".", "..", "", "b.wav", "c d"]), min_size=1, max_size=6))
def test_no_written_path_escapes_the_root(parts):
    path = "/".join(parts)
    try:
        kept = Manifest.from_columns({"utterance": ["u"], "path": [path]}).column("path")[0]
    except DataError:
        return
    assert not kept.startswith("/")
    assert ".." not in kept.split("/")
    assert "." not in kept.split("/")[:-1]
    assert "//" not in kept


def test_pieces_of_one_file_are_rows_of_their_own():
    pieces = {
        "utterance": ["a", "b"],
        "path": ["x.wav", "x.wav"],
        "start_s": [0.0, 1.0],
        "end_s": [1.0, 2.0],
    }
    cut = Manifest.from_columns(pieces)
    assert cut.find(["a", "b"]).tolist() == [0, 1]
    with pytest.raises(DataError, match="more than one row"):
        cut.find(["x.wav"])
    with pytest.raises(DataError, match="same piece"):
        Manifest.from_columns({**pieces, "start_s": [0.0, 0.0], "end_s": [1.0, 1.0]})


# ---------------------------------------------------------------- using


def test_select_take_and_where_keep_rows_whole():
    chosen = manifest().select(speaker="ann", label=("bonafide", "spoof"))
    assert chosen.column("utterance").tolist() == ["u2", "u3"]
    assert manifest().take([3, 0]).column("path").tolist() == ["c/4.wav", "b/1.wav"]
    assert len(manifest().select(speaker="nobody")) == 0
    assert len(manifest().select(sample_rate=16000)) == 2
    with pytest.raises(DataError, match="no column 'spekaer'"):
        manifest().select(spekaer="ann")
    with pytest.raises(DataError, match="holds int32"):
        manifest().select(sample_rate="fast")
    with pytest.raises(DataError, match="row numbers"):
        manifest().take([4])
    with pytest.raises(DataError, match="twice"):
        manifest().take([1, 1])


def test_factor_codes_depend_on_names_and_not_on_row_order():
    factor = manifest().factor("speaker")
    assert factor.names == ("", "ann", "bob")
    assert factor.codes.tolist() == [2, 1, 1, 0]
    reversed_rows = manifest().take([3, 2, 1, 0]).factor("speaker")
    assert reversed_rows.names == factor.names
    assert reversed_rows.codes.tolist() == [0, 1, 1, 2]
    assert manifest().speakers() == ("ann", "bob")


def test_find_takes_utterances_and_paths():
    assert manifest().find(["u3", "b/1.wav", "./a\\2.wav", "none"]).tolist() == [2, 0, 1, -1]


def test_find_refuses_a_key_that_is_the_utterance_of_one_and_the_path_of_another():
    tangled = Manifest.from_columns({"utterance": ["b.wav", "u"], "path": ["a.wav", "b.wav"]})
    with pytest.raises(DataError, match="more than one row"):
        tangled.find(["b.wav"])


def test_with_columns_checks_what_it_adds():
    assert manifest().with_columns(split=["train"] * 4).column("split").tolist() == ["train"] * 4
    with pytest.raises(DataError, match="unknown label"):
        manifest().with_columns(label=["real"] * 4)


def test_concat_fills_columns_that_one_lacks_and_refuses_shared_names():
    other = Manifest.from_columns({"utterance": ["v"], "path": ["v.wav"], "mood": ["sad"]})
    joined = Manifest.concat([manifest(), other])
    assert joined.column("mood").tolist() == ["", "", "", "", "sad"]
    assert joined.column("speaker")[-1] == ""
    with pytest.raises(DataError, match="utterance stands twice"):
        Manifest.concat([manifest(), manifest()])


def test_a_manifest_goes_to_another_process():
    copy = pickle.loads(pickle.dumps(manifest()))
    assert copy.sha256 == manifest().sha256
    assert copy.column("speaker").tolist() == ROWS["speaker"]


def test_segments_are_the_rows_that_cut_a_file():
    assert manifest().segments() is None
    cut = manifest().with_columns(
        start_s=pa.array([0.0, None, 1.5, None]), end_s=pa.array([1.0, None, 2.0, None])
    )
    assert cut.segments() == [(0.0, 1.0), None, (1.5, 2.0), None]


def test_sha256_is_of_the_content():
    base = manifest()
    assert base.sha256 == Manifest.from_columns({**ROWS, "channel": [""] * 4}).sha256
    assert base.sha256 == base.take([0, 1, 2, 3]).sha256
    others = [
        base.take([1, 0, 2, 3]),
        base.with_columns(gender=["m", "f", "f", "m"]),
        base.with_columns(mood=["", "", "", "sad"]),
        base.select(label="spoof"),
        Manifest.from_columns({**ROWS, "speaker": ["bo", "bann", "ann", ""]}),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 6


def test_check_names_missing_and_empty_files(tmp_path, caplog):
    for name, content in (("b/1.wav", b"x"), ("a/2.wav", b""), ("a/3.wav", b"x")):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    check = manifest().check(tmp_path, published_rows=5)
    assert (check.missing, check.empty) == (("c/4.wav",), ("a/2.wav",))
    assert check.text() == (
        "4 clips (5 published); 1 files are missing: c/4.wav; 1 files are empty: a/2.wav"
    )
    with pytest.raises(DataError, match=r"c/4\.wav"):
        check.raise_if_bad(tmp_path)
    assert not caplog.text
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "4.wav").write_bytes(b"x")
    manifest().check(tmp_path).raise_if_bad(tmp_path)  # broken audio is for the quarantine
    assert "1 files are empty: a/2.wav" in caplog.text
    many = Manifest.from_columns(
        {"utterance": [f"u{i}" for i in range(30)], "path": [f"{i}.wav" for i in range(30)]}
    )
    assert many.check(tmp_path).text().endswith("9.wav and 20 more")


def test_the_summary_carries_what_the_run_card_shows():
    summary = manifest().summary()
    assert summary["clips"] == 4
    assert summary["hours"] == 2.0
    assert summary["clips_without_duration"] == 1
    assert summary["speakers"] == 2
    assert summary["labels"] == {"bonafide": 2, "spoof": 1}
    assert summary["by"]["licence"]["CC0"]["hours"] == 1.5
    assert summary["by"]["gender"]["(unknown)"]["clips"] == 1
    assert "channel" not in summary["by"]


def test_the_speech_pack_manifest_is_valid_and_complete(shared):
    pack = Manifest.read(shared / "speech" / "manifest.csv")
    assert len(pack) == 2423
    assert pack.check(shared / "speech").ok
    assert pack.summary()["labels"] == {"bonafide": 1565, "spoof": 858}


def test_a_large_table_is_read_without_a_python_loop(tmp_path):
    count = 200_000
    table = pa.table(
        {
            "utterance": [f"s{i // 100}/{i}" for i in range(count)],
            "path": [f"wav/s{i // 100}/{i}.wav" for i in range(count)],
            "speaker": [f"s{i // 100}" for i in range(count)],
        }
    )
    path = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(table, path)
    large = Manifest.read(path)
    assert len(large.speakers()) == 2000
    assert large.find(["s1999/199999"]).tolist() == [199_999]
