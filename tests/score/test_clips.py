"""Where the clips of a list come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from glottis.data import Manifest
from glottis.score.clips import Clips

HEAD = "utterance,path,speaker,start_s,end_s"


@pytest.fixture
def pieces(tmp_path: Path) -> Clips:
    """Two pieces of one recording, and a file that is one row."""
    ramp = np.arange(16000) / 20000
    for name in ("long.wav", "whole.wav"):
        soundfile.write(tmp_path / name, ramp, 16000, subtype="PCM_16")
    rows = [HEAD, "a,long.wav,x,0.25,0.5", "b,long.wav,y,0.5,0.9", "c,whole.wav,z,,"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return Clips(tmp_path, Manifest.read(tmp_path / "manifest.csv"))


def test_a_row_that_is_a_piece_of_a_file_is_heard_as_that_piece(pieces: Clips) -> None:
    assert pieces.manifest is not None
    source = pieces.source(["a", "b", "c"], pieces.manifest, 16000)
    assert [source.num_samples(row) for row in range(3)] == [4000, 6400, 16000]
    whole = source.read(2, 0, 16000)
    assert np.array_equal(source.read(0, 0, 4000), whole[4000:8000])
    assert np.array_equal(source.read(1, 100, 50), whole[8100:8150])


def test_a_given_manifest_is_never_put_aside(pieces: Clips) -> None:
    assert pieces.for_list(["a", "stranger"], "list", "{utterance}").manifest is pieces.manifest


def test_a_manifest_of_the_run_needs_every_key_and_every_file(pieces: Clips) -> None:
    borrowed = Clips(pieces.root, pieces.manifest, borrowed=Path("m.csv"))
    kept = borrowed.for_list(["a", "c"], "list", "x")
    assert kept.manifest is not None
    assert kept.remark == "speakers and conditions are from m.csv"
    lost = borrowed.for_list(["a", "stranger"], "list", "x")
    assert lost.manifest is None
    assert "1 of the 2 utterances of list are not in it" in lost.remark
    (pieces.root / "whole.wav").unlink()
    lost = borrowed.for_list(["a", "c"], "list", "x")
    assert lost.manifest is None
    assert "1 of its 2 files are not below" in lost.remark
