"""Broken files are written down once, with the reason, and only so many of them."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path

import pytest

from glottis.audio import Broken, Quarantine, decode
from glottis.errors import AudioError, ConfigError, DataError, TrainingStopped


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_record_is_one_json_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "quarantine.jsonl"
    quarantine = Quarantine(path, budget=5)
    quarantine.add("a", Path("x/a.wav"), "empty")
    quarantine.add("grüße", "x/b.wav", "two\nlines")
    assert lines(path) == [
        {"utterance": "a", "path": "x/a.wav", "reason": "empty"},
        {"utterance": "grüße", "path": "x/b.wav", "reason": "two\nlines"},
    ]
    assert "a" in quarantine
    assert "b" not in quarantine
    assert [entry.utterance for entry in quarantine.entries] == ["a", "grüße"]


def test_an_utterance_counts_once_however_often_it_is_met(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", budget=1)
    for _ in range(5):
        quarantine.add("a", "a.wav", "empty")
    assert len(quarantine) == len(lines(tmp_path / "q.jsonl")) == 1


def test_one_more_than_the_budget_stops_the_run_and_is_written_too(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", budget=1)
    quarantine.add("a", "a.wav", "empty")
    with pytest.raises(TrainingStopped, match="2 files are broken, the budget is 1") as caught:
        quarantine.add_records([Broken("b", "b.wav", "NaN"), Broken("c", "c.wav", "a folder")][:1])
    assert "q.jsonl" in str(caught.value)
    assert "NaN" in str(caught.value)
    assert caught.value.exit_code == 1
    assert len(lines(tmp_path / "q.jsonl")) == 2


def test_a_budget_of_zero_allows_none() -> None:
    quarantine = Quarantine(None, budget=0)
    with pytest.raises(TrainingStopped, match="1 files are broken"):
        quarantine.add("a", "a.wav", "empty")
    with pytest.raises(ConfigError, match="0 or more"):
        Quarantine(None, budget=-1)


def test_a_resumed_run_remembers_and_survives_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    Quarantine(path, budget=2).add("a", "a.wav", "empty")
    with open(path, "a", encoding="utf-8") as handle:
        handle.write('{"utterance": "b", "pa')  # the process was killed here
    again = Quarantine(path, budget=2)
    assert [entry.utterance for entry in again.entries] == ["a"]
    again.add("c", "c.wav", "NaN")
    assert [row["utterance"] for row in lines(path)] == ["a", "c"]
    with pytest.raises(TrainingStopped):
        again.add("d", "d.wav", "NaN")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"loss": 3.0}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: not a quarantine record"):
        Quarantine(path, budget=2)


def test_names_that_are_not_unicode_survive(tmp_path: Path) -> None:
    name = b"caf\xe9.wav".decode(errors="surrogateescape")  # a Latin-1 name on a Linux disk
    Quarantine(tmp_path / "q.jsonl", budget=2).add("a", name, f"{name}: empty")
    (entry,) = Quarantine(tmp_path / "q.jsonl", budget=2).entries
    assert entry.path == name


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        Quarantine(tmp_path / "file" / "q.jsonl", budget=2).add("a", "a.wav", "empty")
    with pytest.raises(DataError, match="cannot be read"):
        Quarantine(tmp_path, budget=2)


def _meet_broken_file(path: str) -> Broken:
    """What a worker does: no quarantine there, only a record."""
    try:
        decode(path)
    except AudioError as error:
        return Broken.from_error("a", path, error)
    raise AssertionError(path)


def test_workers_return_records_and_the_owner_writes_them(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        records = pool.map(_meet_broken_file, [str(tmp_path / "a.wav")] * 3)
    quarantine = Quarantine(tmp_path / "q.jsonl", budget=1)
    quarantine.add_records(records)
    (row,) = lines(tmp_path / "q.jsonl")
    assert row["reason"].endswith("the file is empty (0 bytes)")
    assert pickle.loads(pickle.dumps(records[0])) == records[0]


def test_only_the_owner_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", budget=1)
    monkeypatch.setattr("os.getpid", lambda: -1)  # as after a fork
    with pytest.raises(AssertionError, match="only the process that made"):
        quarantine.add("a", "a.wav", "empty")
