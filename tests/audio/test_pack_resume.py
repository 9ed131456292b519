"""A packing run that is killed goes on, and the store equals that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from glottis.audio import PackedStore, PackItem, pack, packing, packworkers
from glottis.errors import DataError
from helpers.packing import content, make_items

ITEMS = """
import json, os, signal, sys, time
from pathlib import Path
from glottis.audio import PackItem, journal, packing, packworkers

def items():
    lines = Path(sys.argv[1]).read_text().splitlines()
    return [PackItem(name, Path(path)) for name, path in map(json.loads, lines)]
"""

SLOW_PACK = (
    ITEMS
    + """
def slowly(self, *arguments, original=journal.Journal.add_clip):
    time.sleep(0.01)
    original(self, *arguments)

if __name__ == "__main__":
    packing.CHECKPOINT_SECONDS = 0.0
    journal.Journal.add_clip = slowly
    packing.pack(items(), sys.argv[2], workers=2, shard_mb=1, codec=sys.argv[3])
"""
)


def write_script(folder: Path, code: str, items: list[PackItem]) -> list[str]:
    """The command that runs the code with a list of these items as its first argument."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    lines = "".join(json.dumps([item.utterance, str(item.path)]) + "\n" for item in items)
    (folder / "items.txt").write_text(lines, encoding="utf-8")
    return [sys.executable, str(folder / "script.py"), str(folder / "items.txt")]


def packed_lines(folder: Path) -> int:
    journal = folder / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


@pytest.mark.parametrize("codec", ["pcm16", "flac"])
def test_a_run_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path, codec: str) -> None:
    items = make_items(tmp_path / "in", 60, broken=(5, 50))
    command = write_script(tmp_path, SLOW_PACK, items)
    out = tmp_path / "killed"
    for limit in (8, 30) if codec == "pcm16" else (20,):
        process = subprocess.Popen([*command, str(out), codec])
        wait_for(lambda limit=limit, p=process: packed_lines(out) >= limit or p.poll() is not None)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        wait_for(lambda workers=workers: not any(w.is_running() for w in workers))
        assert packed_lines(out) < 60
        with pytest.raises(DataError, match="packing was not finished"):
            PackedStore(out)
    # What a kill inside a write leaves: samples without a record, and half a record.
    (shard,) = out.glob("shard-00000.*")
    with open(shard, "ab") as handle:
        handle.write(b"\x01\x02\x03")
    with open(out / "journal.jsonl", "ab") as handle:
        handle.write(b'{"item": 59, "sha')
    (out / shard.name.replace("00000", "00001")).write_bytes(b"never recorded")
    report = pack(items, out, workers=0, shard_mb=1, codec=codec)  # type: ignore[arg-type]
    assert report.num_resumed >= 18
    assert report.num_utterances == 58
    pack(items, tmp_path / "straight", workers=0, shard_mb=1, codec=codec)  # type: ignore[arg-type]
    assert content(out) == content(tmp_path / "straight")
    assert PackedStore(out).verify() == 58


def test_a_record_without_its_samples_is_dropped(tmp_path: Path) -> None:
    """After a power cut the journal may be on the disk and the shard not."""
    items = make_items(tmp_path / "in", 10)
    pack(items, tmp_path / "straight", workers=0)

    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(items, tmp_path / "cut", workers=0, progress=cut)
    assert packed_lines(tmp_path / "cut") == 10
    shard = tmp_path / "cut" / "shard-00000.i16"
    os.truncate(shard, shard.stat().st_size // 2)
    report = pack(items, tmp_path / "cut", workers=0)
    assert 0 < report.num_resumed < 10
    assert content(tmp_path / "cut") == content(tmp_path / "straight")


def test_a_kill_just_before_the_end_only_repeats_the_end(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 4)

    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(items, tmp_path / "out", workers=0, progress=cut)
    for item in items:
        item.path.unlink()  # nothing is decoded a second time
    report = pack(items, tmp_path / "out", workers=0)
    assert (report.num_resumed, report.num_utterances) == (4, 4)


def test_what_a_kill_left_of_a_list_is_removed(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    for name in ("pack.json", "index.arrow", "warnings.jsonl"):
        (tmp_path / "out" / f".{name}.12345.tmp").write_bytes(b"{")
    pack(items, tmp_path / "out", workers=0)
    pack(items, tmp_path / "straight", workers=0)
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_store_that_another_process_just_finished_is_not_packed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = make_items(tmp_path / "in", 3)
    checked = packing.existing_meta

    def meanwhile(folder: Path, identity: dict[str, object]) -> object:
        found = checked(folder, identity)
        monkeypatch.undo()
        pack(items, tmp_path / "out", workers=0)  # by another process, before we have the lock
        return found

    monkeypatch.setattr(packing, "existing_meta", meanwhile)
    assert pack(items, tmp_path / "out", workers=0).already_finished
    assert PackedStore(tmp_path / "out").verify() == 3


def test_an_interrupted_store_refuses_other_items(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 4)

    def cut(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(items, tmp_path / "out", workers=0, progress=cut)
    with pytest.raises(DataError, match="an interrupted store that differs in"):
        pack(items[:3], tmp_path / "out", workers=0)
    (tmp_path / "out" / "journal.jsonl").write_text("[]\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: not a record of a packing run"):
        pack(items, tmp_path / "out", workers=0)


# ------------------------------------------------------------------ workers that die

CRASH = (
    ITEMS
    + """
def encode(position, item, settings, original=packworkers.encode_file):
    path = str(item.path)
    if "clip007" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "clip009" in path and not os.path.exists(sys.argv[2] + ".tried"):
        Path(sys.argv[2] + ".tried").touch()
        os._exit(3)
    return original(position, item, settings)

packworkers.encode_file = encode  # spawned workers import this file, and so this line
if __name__ == "__main__":
    packing.pack(items(), sys.argv[2], workers=1)
"""
)


def test_a_file_that_crashes_the_decoder_is_quarantined(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 20)
    command = write_script(tmp_path, CRASH, items)
    subprocess.run([*command, str(tmp_path / "out")], check=True, timeout=120)
    assert len(PackedStore(tmp_path / "out")) == 19  # clip 9 killed one worker; the next read it
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert "the decoder crashed on it (signal 11), twice" in line
    items[7].path.write_bytes(b"")
    pack(items, tmp_path / "plain", workers=0)
    shard = "shard-00000.i16"
    assert (tmp_path / "out" / shard).read_bytes() == (tmp_path / "plain" / shard).read_bytes()


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    code = ITEMS + "packing.pack(items(), sys.argv[2], workers=1)"
    command = write_script(tmp_path, code, make_items(tmp_path / "in", 3))
    result = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode != 0
    assert "a packing worker could not start" in result.stderr
    assert "put the call under  if __name__ == '__main__':" in result.stderr


def test_a_bug_in_a_worker_comes_through_with_its_traceback(tmp_path: Path) -> None:
    items = make_items(tmp_path / "in", 2)
    settings = packworkers.Settings("fast", "pcm16", "mix")  # type: ignore[arg-type]
    outcomes = packworkers.encode_files([0, 1], items, settings, 1)
    with pytest.raises(RuntimeError, match="packing worker failed"):
        list(outcomes)
