"""Every awkward file of the reference material has its documented outcome (docs/audio.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from glottis.audio import decode, load, probe, warning_code
from glottis.errors import AudioError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "audio.md"


@dataclass(frozen=True)
class Decoded:
    """Samples at the file's own rate, and the codes of the warnings."""

    sample_rate: int
    num_samples: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"warning: {', '.join(self.warnings)}" if self.warnings else "decoded"


@dataclass(frozen=True)
class Refused:
    """An AudioError whose text contains this."""

    says: str

    def __str__(self) -> str:
        return f"error: {self.says}"


SPEECH = Decoded(16000, 40000)
OUTCOMES: dict[str, Decoded | Refused] = {
    "README.md": Refused("a text file, not audio"),
    "all_zero.wav": Decoded(16000, 32000, ("silent",)),
    "clip_50ms.wav": Decoded(16000, 800, ("short",)),
    "clipped.wav": Decoded(16000, 40000, ("clipped",)),
    "corrupt_middle.flac": Decoded(16000, 16384, ("damaged",)),
    "dc_offset_speech.wav": Decoded(16000, 40000, ("dc_offset",)),
    "dc_only.wav": Decoded(16000, 16000, ("silent", "dc_offset")),
    "empty.wav": Refused("the file is empty (0 bytes)"),
    "flac_named.wav": SPEECH,
    "float32.wav": SPEECH,
    "float32_over_full_scale.wav": Decoded(16000, 40000, ("over_full_scale",)),
    "header_only.wav": Refused("a wav header, but no samples"),
    "inf.wav": Refused("2 of 40000 samples are NaN or infinite"),
    "nan.wav": Refused("100 of 40000 samples are NaN or infinite"),
    "odd name \u0433\u0440\u00fc\u00dfe \u8bed\u97f3.flac": SPEECH,
    "one_sample.wav": Decoded(16000, 1, ("short",)),
    "pcm_s24.wav": SPEECH,
    "pcm_s32_96k.wav": Decoded(96000, 96000),
    "pcm_u8.wav": SPEECH,
    "six_channels.flac": Decoded(16000, 16000, ("dead_channel",)),
    "speech.opus": SPEECH,
    "speech_32k.mp3": SPEECH,
    "speech_aac.m4a": SPEECH,
    "speech_vorbis.ogg": SPEECH,
    "stereo_44k1_two_speakers.wav": Decoded(44100, 88200, ("channels_differ",)),
    "stereo_dead_right.wav": Decoded(16000, 40000, ("dead_channel",)),
    "streaming_header.wav": SPEECH,
    "tel_8k_alaw.wav": Decoded(8000, 20000),
    "tel_8k_gsm.gsm": Decoded(8000, 20000),
    "tel_8k_mulaw.wav": Decoded(8000, 20000),
    "text.wav": Refused("a text file, not audio"),
    "truncated.flac": Decoded(16000, 20480, ("damaged",)),
    "very_quiet.wav": Decoded(16000, 40000, ("quiet",)),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_each_file_has_its_outcome(shared: Path, name: str) -> None:
    path, expected = shared / "speech" / "nasty" / name, OUTCOMES[name]
    if isinstance(expected, Refused):
        for read in (decode, load):
            with pytest.raises(AudioError, match=re.escape(expected.says)) as caught:
                read(path)
            assert str(path) in caught.value.seen
        return
    audio = decode(path)
    assert (audio.sample_rate, len(audio.samples)) == (expected.sample_rate, expected.num_samples)
    assert tuple(warning_code(w) for w in audio.warnings) == expected.warnings
    assert np.abs(audio.samples).max() <= 1.0
    assert probe(path).sample_rate == expected.sample_rate
    assert load(path).sample_rate == 16000
    assert load(path).warnings == audio.warnings


def test_decoders_keep_quiet(shared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in OUTCOMES:
        try:
            for part in ({}, {"start_s": 0.02, "duration_s": 0.5}):
                decode(shared / "speech" / "nasty" / name, **part)
        except AudioError:
            continue
    assert capfd.readouterr() == ("", "")


def test_no_file_is_without_an_outcome(shared: Path) -> None:
    assert {p.name for p in (shared / "speech" / "nasty").iterdir()} == set(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_outcome_is_documented(name: str) -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if f"`{name}`" in line]
    assert len(rows) == 1, f"docs/audio.md needs one row for {name}"
    assert rows[0].split("|")[2].strip() == str(OUTCOMES[name])


SAME_WORDS = {  # file -> least correlation with the FLAC of the same utterance
    "float32.wav": 1.0,
    "pcm_s24.wav": 1.0,
    "streaming_header.wav": 1.0,
    "pcm_u8.wav": 0.95,
    "tel_8k_alaw.wav": 0.8,
    "tel_8k_mulaw.wav": 0.8,
    "tel_8k_gsm.gsm": 0.7,
    "speech_32k.mp3": 0.9,
    "speech_aac.m4a": 0.9,
    "speech.opus": 0.9,
    "speech_vorbis.ogg": 0.9,
    "corrupt_middle.flac": 1.0,
    "truncated.flac": 1.0,
    "float32_over_full_scale.wav": 0.9999,
}


@pytest.mark.parametrize("name", SAME_WORDS)
def test_the_same_utterance_comes_out_aligned_from_every_format(shared: Path, name: str) -> None:
    folder = shared / "speech" / "nasty"
    clean = load(folder / "flac_named.wav").samples
    other = load(folder / name).samples
    assert len(other) in (40000, 20480, 16384)
    clean = clean[: len(other)]
    assert np.corrcoef(clean, other)[0, 1] >= SAME_WORDS[name] - 1e-6
