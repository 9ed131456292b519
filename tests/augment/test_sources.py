"""Where banks come from: folders, lists, budgets, and everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from glottis.augment import AugmentContext, load_bank
from glottis.augment._sources import SHORTEST_EXCERPT_S, fair_limit, matches
from glottis.errors import DataError
from glottis.rng import generator


def write(path: Path, seconds: float, rate: int = 16000, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = level * generator(1, path.name).standard_normal(int(seconds * rate))
    soundfile.write(path, samples, rate, subtype="PCM_16")


def context(root: Path, seed: int = 0) -> AugmentContext:
    return AugmentContext(16000, root, seed)


def test_kind_of_a_file_in_a_folder_is_its_first_sub_folder(tmp_path: Path) -> None:
    write(tmp_path / "musan" / "noise" / "free" / "a.wav", 0.5)
    write(tmp_path / "musan" / "music" / "b.flac", 0.5)
    bank = load_bank("musan", context(tmp_path), max_seconds=100)
    assert dict(zip(bank.names, bank.kinds, strict=True)) == {
        "music/b.flac": "music",
        "noise/free/a.wav": "noise",
    }
    assert load_bank("musan", context(tmp_path), kinds=["music"], max_seconds=100).kinds == (
        "music",
    )


def test_list_gives_kinds_and_filters_the_split(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.wav", 0.2)
    rows = "path,kind,split\na.wav,noise,train\nb.wav,noise,test\nc.wav,music,train\n"
    (tmp_path / "list.csv").write_text(rows)
    bank = load_bank("list.csv", context(tmp_path), split="train", max_seconds=10)
    assert bank.names == ("a.wav", "c.wav")
    assert bank.kinds == ("noise", "music")


def test_paths_of_a_list_outside_of_the_root_are_relative_to_the_list(tmp_path: Path) -> None:
    write(tmp_path / "noises" / "a.wav", 0.2)
    (tmp_path / "noises" / "list.csv").write_text("path\na.wav\n")
    (tmp_path / "data").mkdir()
    absolute = str(tmp_path / "noises" / "list.csv")
    assert load_bank(absolute, context(tmp_path / "data"), max_seconds=10).names == ("a.wav",)
    with pytest.raises(DataError, match=r"cannot be used.*a\.wav"):
        load_bank(absolute, context(tmp_path), max_seconds=10)


def test_a_manifest_is_a_list_wherever_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "voices" / "a.wav", 0.2)
    columns = {"path": ["a.wav", "b.wav"], "speaker": ["s1", "s2"], "split": ["train", "test"]}
    (tmp_path / "lists").mkdir()
    parquet.write_table(pyarrow.table(columns), tmp_path / "lists" / "manifest.parquet")
    source = str(tmp_path / "lists" / "manifest.parquet")
    bank = load_bank(source, context(tmp_path / "voices"), split="train", max_seconds=10)
    assert (bank.names, bank.groups) == (("a.wav",), ("s1",))


def test_a_list_from_a_spreadsheet_may_begin_with_a_mark(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 0.2)
    (tmp_path / "list.csv").write_text("path,kind\na.wav,noise\n", encoding="utf-8-sig")
    assert load_bank("list.csv", context(tmp_path), max_seconds=10).kinds == ("noise",)


def test_finer_kinds_belong_to_coarser_ones() -> None:
    assert matches("rir recorded", ["rir"])
    assert matches("rir", ["noise", "rir"])
    assert matches("anything", [])
    assert not matches("rircorded", ["rir"])
    assert not matches("rir", ["rir recorded"])


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    time = np.arange(48000) / 48000
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * time), 48000)
    bank = load_bank(".", context(tmp_path), max_seconds=10)
    assert bank.lengths == (16000,)
    spectrum = np.abs(np.fft.rfft(bank.samples.numpy()))
    assert int(spectrum.argmax()) == 1000


def test_of_a_large_source_every_file_gives_a_fair_excerpt(tmp_path: Path) -> None:
    for name, seconds in [("a", 20.0), ("b", 1.0), ("c", 12.0)]:
        write(tmp_path / f"{name}.wav", seconds)
    bank = load_bank(".", context(tmp_path), max_seconds=13.0)
    seconds = dict(zip(bank.names, (n / 16000 for n in bank.lengths), strict=True))
    assert seconds == pytest.approx({"a.wav": 6.0, "b.wav": 1.0, "c.wav": 6.0}, abs=0.01)
    again = load_bank(".", context(tmp_path), max_seconds=13.0)
    other = load_bank(".", context(tmp_path, seed=1), max_seconds=13.0)
    assert again.fingerprint == bank.fingerprint != other.fingerprint


def test_of_very_many_files_a_random_part_is_read(tmp_path: Path) -> None:
    for index in range(20):
        write(tmp_path / f"{index:02d}.wav", 5.0)
    bank = load_bank(".", context(tmp_path), max_seconds=20.0)
    assert set(bank.lengths) == {int(SHORTEST_EXCERPT_S * 16000)}
    assert len(bank) == 5
    assert bank.names != load_bank(".", context(tmp_path, seed=1), max_seconds=20.0).names


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=30), st.floats(10.0, 1000.0))
def test_fair_limit_uses_the_budget(seconds: list[float], total: float) -> None:
    limit = fair_limit(seconds, total)
    used = sum(min(s, limit) for s in seconds)
    if limit == float("inf"):
        assert used <= total * (1 + 1e-9)
    else:
        assert used == pytest.approx(total) or limit == SHORTEST_EXCERPT_S


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("missing", r"\[P21\] the noise source 'missing' does not exist"),
        ("empty", r"\[P21\] the noise source 'empty' has no files \(there are 0: no kinds\)"),
        ("silent", r"\[P21\] 'silent' holds no usable sound"),
        ("broken", r"\[P21\] a sound of the noise source cannot be used: .*bad\.wav"),
        ("nopath.csv", r"\[P21\] the list .* rows without a path; its columns are file, kind"),
        ("short.csv", r"\[P21\] the list .* rows without a path"),
        ("silent/zero.wav", r"\[P21\] the list .*zero.wav cannot be read"),
        ("bad.parquet", r"\[P21\] the list .* cannot be read"),
        ("gone.csv", r"\[P21\] a sound of the noise source cannot be used: .*gone\.wav"),
    ],
)
def test_unusable_sources_stop_the_run_with_a_reason(
    tmp_path: Path, source: str, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "silent" / "zero.wav", 1.0, level=0.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bad.wav").write_text("not audio")
    (tmp_path / "nopath.csv").write_text("file,kind\na.wav,noise\n")
    (tmp_path / "short.csv").write_text("kind,path\nnoise\n")
    (tmp_path / "bad.parquet").write_text("not a table")
    (tmp_path / "gone.csv").write_text("path,kind\ngone.wav,noise\n")
    with pytest.raises(DataError, match=text):
        load_bank(source, context(tmp_path), max_seconds=10)


def test_a_kind_that_does_not_occur_is_answered_with_those_that_do(tmp_path: Path) -> None:
    write(tmp_path / "noise" / "a.wav", 0.2)
    with pytest.raises(DataError, match=r"no files of kind music \(there are 1: noise\)"):
        load_bank(".", context(tmp_path), kinds=["music"], max_seconds=10)


def test_the_pack_of_noises_loads_whole(shared: Path) -> None:
    bank = load_bank("noise_rir.csv", context(shared / "speech"), max_seconds=1000)
    assert len(bank) == 92
    assert sum(kind.startswith("rir") for kind in bank.kinds) == 36
