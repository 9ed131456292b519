"""Clips from files, from the cache and from a packed store are the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glottis.audio import PackedStore, PackItem, pack
from glottis.data import Manifest
from glottis.data.source import FileSource, StoreSource, pack_items
from glottis.errors import AudioError, DataError
from helpers.audio_files import voice, write_media, write_sound

SECONDS = 1.2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for suffix in ("wav", "flac", "ogg", "mp3"):
        write_sound(folder / f"x.{suffix}", voice(SECONDS))
    write_sound(folder / "float.wav", 3 * voice(SECONDS), subtype="FLOAT")  # beyond full scale
    write_sound(folder / "pcm24.wav", voice(SECONDS), subtype="PCM_24")
    write_sound(folder / "stereo.flac", np.stack([voice(SECONDS), voice(SECONDS, seed=1)], axis=1))
    write_sound(folder / "mulaw.wav", voice(SECONDS, 8000), 8000, subtype="ULAW")
    write_sound(folder / "cd.flac", voice(SECONDS, 44100), 44100)
    write_media(folder / "x.m4a", voice(SECONDS), 16000, "aac", "fltp")
    return folder


def clips(root: Path, *, pieces: bool) -> Manifest:
    """Every file, whole or as two pieces."""
    paths = sorted(path.name for path in root.iterdir())
    columns: dict[str, list[object]] = {"utterance": list(paths), "path": list(paths)}
    if pieces:
        columns = {
            "utterance": [f"{path}/{part}" for path in paths for part in "ab"],
            "path": [path for path in paths for _ in "ab"],
            "start_s": [0.0, 0.45] * len(paths),
            "end_s": [0.4, 1.1] * len(paths),
        }
    return Manifest.from_columns(columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("pieces", [False, True], ids=["whole files", "pieces"])
def test_files_cache_and_store_hold_the_same_clips(
    root: Path, tmp_path: Path, pieces: bool
) -> None:
    manifest = clips(root, pieces=pieces)
    pack(pack_items(manifest, root), tmp_path / "store", workers=0)
    names, paths = manifest.column("utterance").tolist(), manifest.column("path").tolist()
    store = StoreSource(PackedStore(tmp_path / "store"), names)
    sources = [
        FileSource(root, paths, 16000, cache_mb, manifest.segments()) for cache_mb in (0, 10)
    ]
    for row, name in enumerate(names):
        total = store.num_samples(row)
        assert total == pytest.approx(
            16000 * (SECONDS if not pieces else (0.4, 0.65)[row % 2]), 0.1
        )
        for source in sources:
            assert source.num_samples(row) == total, name
            for start, count in ((0, total), (1000, 4000), (total - 500, 500), (0, 1)):
                expected = store.read(row, start, count)
                assert np.array_equal(source.read(row, start, count), expected), name


def test_a_crop_does_not_decode_the_file_where_it_can_seek(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FileSource(root, ["x.flac", "x.wav", "cd.flac"], 16000, cache_mb=0)
    whole: list[int] = []
    decode = FileSource._decode
    monkeypatch.setattr(
        FileSource, "_decode", lambda self, row: (whole.append(row), decode(self, row))[1]
    )
    for row in range(3):
        source.num_samples(row)
    assert whole == []
    for row in range(3):
        source.read(row, 100, 200)
    assert whole == [2]  # another rate: the crop of a resampled clip needs the clip


def test_a_crop_of_floating_point_samples_is_still_checked(tmp_path: Path) -> None:
    sound = voice(1.0)
    sound[3000] = np.nan
    write_sound(tmp_path / "nan.wav", sound, subtype="FLOAT")
    source = FileSource(tmp_path, ["nan.wav"], 16000, cache_mb=0)
    with pytest.raises(AudioError, match="NaN"):
        source.read(0, 8000, 100)
    with pytest.raises(AudioError, match="no such file"):
        FileSource(tmp_path, ["gone.wav"], 16000, cache_mb=0).num_samples(0)


def test_a_clip_that_was_not_packed_is_named(root: Path, tmp_path: Path) -> None:
    manifest = clips(root, pieces=False)
    pack(pack_items(manifest, root), tmp_path / "store", workers=0)
    with pytest.raises(DataError, match="1 utterances are not in this store: nobody"):
        StoreSource(PackedStore(tmp_path / "store"), ["x.wav", "nobody"])


def test_items_of_a_manifest_without_pieces_are_whole_files(root: Path) -> None:
    items = pack_items(clips(root, pieces=False), root)
    assert items[0] == PackItem("cd.flac", root / "cd.flac")
