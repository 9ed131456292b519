"""Packing: the same bytes whatever the workers, broken files listed, wrong requests refused."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from glottis.audio import PackedStore, PackItem, PackProgress, estimate, load, pack, to_int16
from glottis.audio.packlock import only_packer
from glottis.errors import ConfigError, DataError, TrainingStopped
from helpers.audio_files import voice, write_sound
from helpers.packing import content, make_items


@pytest.mark.parametrize("codec", ["pcm16", "flac"])
def test_the_store_holds_what_load_gives_whatever_the_number_of_workers(
    tmp_path: Path, codec: str
) -> None:
    items = make_items(tmp_path / "in", 12, broken=(3, 7))
    reports = [
        pack(items, tmp_path / f"{workers}", codec=codec, workers=workers)  # type: ignore[arg-type]
        for workers in (0, 2)
    ]
    assert content(tmp_path / "0") == content(tmp_path / "2")
    store = PackedStore(tmp_path / "2")
    good = [item for index, item in enumerate(items) if index not in (3, 7)]
    assert store.utterances == [item.utterance for item in good]
    for index, item in enumerate(good):
        expected = to_int16(load(item.path, 16000).samples)
        assert np.array_equal(store.read(index), expected)
        assert store.num_samples(index) == len(expected)
    assert store.verify() == len(store) == 10
    assert {b.utterance for b in reports[1].quarantined} == {"speaker0/clip3", "speaker1/clip7"}
    assert reports[1].num_utterances == 10
    assert reports[1].duration_s == pytest.approx(store.duration_s)


def test_the_index_and_the_lists_are_what_the_format_says(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 6, broken=(2,))
    write_sound(items[0].path, np.zeros(4000, np.float32))
    report = pack(items, tmp_path / "out", workers=0)
    assert set(content(tmp_path / "out")) == {
        "index.arrow",
        "pack.json",
        "quarantine.jsonl",
        "warnings.jsonl",
        "shard-00000.i16",
    }
    meta = json.loads((tmp_path / "out" / "pack.json").read_bytes())
    assert meta["finished"] is True
    assert (meta["version"], meta["sample_rate"], meta["codec"]) == (1, 16000, "pcm16")
    assert (meta["num_utterances"], meta["num_quarantined"]) == (5, 1)
    assert meta["warnings"] == report.warnings == {"silent": 1}
    (row,) = map(json.loads, (tmp_path / "out" / "warnings.jsonl").read_text().splitlines())
    assert row["utterance"] == items[0].utterance
    (row,) = map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    assert row["reason"].endswith("the file is empty (0 bytes)")


def test_shards_are_closed_at_their_size_and_a_clip_is_never_divided(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    items = [
        PackItem(f"u{k}", write_sound(folder / f"{k}.wav", voice(seconds, seed=k)))
        for k, seconds in enumerate([12.0, 12.0, 12.0, 40.0, 1.0])  # 384 kB, ..., 1.28 MB, 32 kB
    ]
    pack(items, tmp_path / "out", workers=0, shard_mb=1)
    store = PackedStore(tmp_path / "out")
    assert store.meta["shards"] == [2 * 384000, 384000, 1280000, 32000]
    for index, item in enumerate(items):
        assert np.array_equal(store.read(index), to_int16(load(item.path).samples))


def test_a_second_call_does_nothing_and_says_so(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 5, broken=(1,))
    first = pack(items, tmp_path / "out", workers=0)
    before = content(tmp_path / "out")
    again = pack(items, tmp_path / "out", workers=0, shard_mb=7)
    assert again.already_finished
    assert not first.already_finished
    assert again.quarantined == first.quarantined
    assert again.num_utterances == 4
    assert content(tmp_path / "out") == before


def test_other_items_or_settings_on_the_same_folder_are_refused(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 4)
    pack(items, tmp_path / "out", workers=0)
    moved = [PackItem(item.utterance, Path("elsewhere") / item.path.name) for item in items]
    for other in (items[:3], items[::-1], moved):
        with pytest.raises(DataError, match=r"finished store that differs in: the list of utter"):
            pack(other, tmp_path / "out", workers=0)
    with pytest.raises(DataError, match=r"sample_rate \(16000 there, 8000 now\), codec \(pcm16"):
        pack(items, tmp_path / "out", workers=0, sample_rate=8000, codec="flac")
    with pytest.raises(DataError, match=r"channel \(mix there, 0 now\)"):
        pack(items, tmp_path / "out", workers=0, channel=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_pieces_of_a_recording_are_clips_of_their_own(tmp_path: Path, workers: int) -> None:
    recording = write_sound(tmp_path / "r.flac", voice(3.0))
    other = write_sound(tmp_path / "s.wav", voice(2.0, 8000), 8000)
    pieces = [(recording, 0.5, 1.25), (other, 0.1, 0.9), (recording, 0.0, 0.5), (other, 1.0, None)]
    items = [PackItem(f"u{k}", *piece) for k, piece in enumerate(pieces)]
    assert estimate(items).seconds == pytest.approx(0.75 + 0.8 + 0.5 + 1.0)
    late, long = PackItem("late", recording, 3.5, 4.0), PackItem("long", recording, 2.5, 4.0)
    report = pack([*items, late, long], tmp_path / "out", workers=workers)
    store = PackedStore(tmp_path / "out")
    assert store.utterances == ["u0", "u1", "u2", "u3", "long"]
    for index, (path, start, end) in enumerate(pieces):
        duration = None if end is None else end - start
        expected = load(path, 16000, start_s=start, duration_s=duration).samples
        assert np.array_equal(store.read(index), to_int16(expected))
    assert [b.utterance for b in report.quarantined] == ["late"]
    assert "nothing to read from 3.500 s on" in report.quarantined[0].reason
    assert report.warnings == {"truncated": 1}
    assert "should last 1.50 s" in (tmp_path / "out" / "warnings.jsonl").read_text()
    with pytest.raises(DataError, match="the list of utterances and paths"):
        pack([PackItem(i.utterance, i.path) for i in items], tmp_path / "out", workers=0)
    with pytest.raises(DataError, match="not a piece"):
        PackItem("u", recording, 2.0, 1.0)


# ------------------------------------------------------------------ broken files


def test_too_many_broken_files_stop_the_run_and_the_next_call_goes_on(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 12, broken=(2, 5, 8))
    with pytest.raises(TrainingStopped, match="3 files are broken, the budget is 2") as caught:
        pack(items, tmp_path / "out", workers=0, budget=2)
    assert "quarantine.jsonl" in caught.value.seen
    assert len((tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()) == 3
    with pytest.raises(DataError, match="packing was not finished"):
        PackedStore(tmp_path / "out")
    report = pack(items, tmp_path / "out", workers=0, budget=3)
    assert (report.num_resumed, report.num_utterances) == (6, 9)
    pack(items, tmp_path / "straight", workers=0, budget=3)
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_file_repaired_between_two_runs_is_packed(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 6, broken=(1, 3))
    with pytest.raises(TrainingStopped):
        pack(items, tmp_path / "out", workers=0, budget=1)
    write_sound(items[1].path, voice(0.3, seed=9))
    report = pack(items, tmp_path / "out", workers=0, budget=1)
    store = PackedStore(tmp_path / "out")
    assert [b.utterance for b in report.quarantined] == [items[3].utterance]
    assert store.utterances == [item.utterance for k, item in enumerate(items) if k != 3]
    for index, name in enumerate(store.utterances):
        item = next(item for item in items if item.utterance == name)
        assert np.array_equal(store.read(index), to_int16(load(item.path).samples))


def test_a_wrong_root_is_noticed_before_anything_is_packed(tmp_path: Path) -> None:
    items = [PackItem(f"u{k}", tmp_path / "nowhere" / f"{k}.wav") for k in range(2000)]
    with pytest.raises(DataError, match=r"none of 400 sampled files can be read.*nowhere"):
        pack(items, tmp_path / "out")
    right = make_items(tmp_path / "in", 3)  # the refused run does not block the folder
    assert pack(right, tmp_path / "out", workers=0, sample_rate=8000).num_utterances == 3


# ------------------------------------------------------------------ progress and estimate


def test_progress_counts_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glottis.audio.packing._PROGRESS_SECONDS", 0.0)
    seen: list[PackProgress] = []
    pack(make_items(tmp_path / "in", 7, (4,)), tmp_path / "out", workers=0, progress=seen.append)
    assert [p.done for p in seen] == list(range(1, 8))
    assert {p.total for p in seen} == {7}
    assert seen[-1].num_broken == 1
    assert seen[-1].eta_s == 0
    assert all(p.clips_per_second > 0 for p in seen)


def test_the_estimate_is_close_and_honest_about_broken_files(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 30, broken=(0,))
    guess = estimate(items, dst=tmp_path / "not" / "yet" / "there")
    report = pack(items, tmp_path / "out", workers=0)
    assert guess.seconds == pytest.approx(report.duration_s, rel=0.01)
    assert guess.bytes == pytest.approx(report.num_bytes, rel=0.01)
    assert guess.num_sampled == 30
    assert [b.utterance for b in guess.unreadable] == [items[0].utterance]
    assert guess.fits
    flac = estimate(items, "flac", dst=tmp_path)
    assert 0.5 * guess.bytes < flac.bytes < 0.8 * guess.bytes
    assert estimate(items, sample_rate=8000).bytes == pytest.approx(guess.bytes / 2, abs=1)


def test_a_large_list_is_sampled(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 5)
    many = [PackItem(f"u{k}", items[k % 5].path) for k in range(10000)]
    guess = estimate(many)
    assert guess.num_sampled == 400
    assert guess.seconds == pytest.approx(10000 * 0.3, rel=0.02)


def test_a_disk_that_is_too_small_is_refused_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path / "in", 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20000))
    assert not estimate(items).fits
    with pytest.raises(DataError, match=r"needs about 0.00 GB, 0.00 GB are free"):
        pack(items, tmp_path / "out", workers=0)
    assert not list((tmp_path / "out").glob("shard-00000.i16")) or not (
        (tmp_path / "out" / "shard-00000.i16").stat().st_size
    )


def test_a_disk_that_fills_up_keeps_what_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glottis.audio import journal

    items = make_items(tmp_path / "in", 6)
    write, calls = journal._write_all, [0]

    def full(handle: object, data: bytes) -> None:
        calls[0] += 1
        if calls[0] == 4:
            write(handle, data[:100])  # type: ignore[arg-type]
            raise OSError(errno.ENOSPC, "No space left on device")
        write(handle, data)  # type: ignore[arg-type]

    monkeypatch.setattr(journal, "_write_all", full)
    with pytest.raises(TrainingStopped, match="the disk is full"):
        pack(items, tmp_path / "out", workers=0)
    monkeypatch.undo()
    report = pack(items, tmp_path / "out", workers=0)
    assert report.num_resumed == 3
    pack(items, tmp_path / "straight", workers=0)
    assert content(tmp_path / "out") == content(tmp_path / "straight")


# ------------------------------------------------------------------ wrong requests


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 2)
    for arguments, reason in (
        ({"codec": "mp3"}, "no codec 'mp3'"),
        ({"workers": -1}, "workers must be a whole number from 0"),
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"shard_mb": 0.5}, "shard_mb must be"),
        ({"budget": -1}, "budget must be"),
        ({"channel": "left"}, "channel must be"),
    ):
        with pytest.raises(ConfigError, match=reason):
            pack(items, tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_zero_items_and_duplicates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="zero items"):
        pack([], tmp_path / "out")
    with pytest.raises(DataError, match="zero items"):
        estimate([])
    items = make_items(tmp_path / "in", 3)
    with pytest.raises(DataError, match=r"1 utterance ids occur more than once: speaker1/clip1"):
        pack([*items, items[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 2)
    with pytest.raises(DataError, match=r"is not empty \(it has clip000.wav\)"):
        pack(items, tmp_path / "in", workers=0)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"file: cannot be written \(File exists"):
        pack(items, tmp_path / "file", workers=0)
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory"):
        pack(items, tmp_path / "file" / "out", workers=0)


def test_a_read_only_destination_is_an_error_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path / "in", 2)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "out"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"out: cannot be written \(Read-only file system"):
        pack(items, tmp_path / "out", workers=0)


def test_a_finished_store_on_a_read_only_disk_is_still_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path / "in", 2)
    pack(items, tmp_path / "out", workers=0)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("glottis.audio.packing.only_packer", refuse)
    assert pack(items, tmp_path / "out", workers=0).already_finished


def test_clips_whose_names_are_not_unicode_are_packed(tmp_path: Path) -> None:
    (item,) = make_items(tmp_path / "in", 1)
    path = item.path.rename(tmp_path / "in" / b"caf\xe9.wav".decode(errors="surrogateescape"))
    broken = tmp_path / "in" / b"\xe9.wav".decode(errors="surrogateescape")
    broken.touch()
    items = [PackItem("café", path), PackItem("b", broken)]
    report = pack(items, tmp_path / "out", workers=1)
    assert PackedStore(tmp_path / "out").utterances == ["café"]
    assert report.quarantined[0].path == str(broken)


def test_two_runs_on_one_folder_do_not_mix(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    with (
        only_packer(tmp_path / "out"),
        pytest.raises(DataError, match="another process is packing"),
    ):
        pack(items, tmp_path / "out", workers=0)
    assert pack(items, tmp_path / "out", workers=0).num_utterances == 2


def test_if_nothing_can_be_decoded_there_is_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path / "in", 3, broken=(0, 1, 2))
    monkeypatch.setattr("glottis.audio.packing.check_space", lambda *_: None)
    with pytest.raises(DataError, match=r"none of the 3 files could be decoded; .*empty"):
        pack(items, tmp_path / "out", workers=0)
