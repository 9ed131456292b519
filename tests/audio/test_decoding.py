"""Decoding: the content decides, crops are exact, the error names the reason."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glottis.audio import Audio, decode, load, probe
from glottis.errors import AudioError, ConfigError
from helpers.audio_files import voice, write_media, write_sound

FORMATS = ("wav", "flac", "ogg", "opus", "mp3", "m4a", "webm", "float.wav", "ulaw.wav", "gsm.wav")
SECONDS = 1.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each of FORMATS, with the same speech-like sound."""
    folder = tmp_path_factory.mktemp("formats")
    sound = voice(SECONDS)
    for suffix in ("wav", "flac", "ogg", "opus", "mp3"):
        write_sound(folder / f"x.{suffix}", sound)
    write_sound(folder / "x.float.wav", 3 * sound, subtype="FLOAT")  # beyond full scale
    write_sound(folder / "x.ulaw.wav", voice(SECONDS, 8000), 8000, subtype="ULAW")
    write_sound(folder / "x.gsm.wav", voice(SECONDS, 8000), 8000, subtype="GSM610")  # cannot seek
    write_media(folder / "x.m4a", sound, 16000, "aac", "fltp")
    write_media(folder / "x.webm", voice(SECONDS, 48000), 48000, "libopus", "flt")
    return folder


@cache
def whole(path: Path) -> Audio:
    return decode(path)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=12, deadline=None)
@given(start_s=st.floats(0, SECONDS - 0.01), duration_s=st.floats(1e-4, SECONDS))
def test_a_crop_equals_the_slice_of_the_whole(
    folder: Path, suffix: str, start_s: float, duration_s: float
) -> None:
    path = folder / f"x.{suffix}"
    expected = whole(path)
    crop = decode(path, start_s=start_s, duration_s=duration_s)
    start = round(start_s * expected.sample_rate)
    stop = start + max(1, round(duration_s * expected.sample_rate))
    assert crop.sample_rate == expected.sample_rate
    assert np.array_equal(crop.samples, expected.samples[start:stop])


@pytest.mark.parametrize("suffix", ["wav", "ogg", "ulaw.wav", "webm", "m4a"])
@settings(max_examples=12, deadline=None)
@given(
    start_s=st.floats(0, SECONDS - 0.01),
    duration_s=st.floats(1e-3, SECONDS),
    rate=st.sampled_from([8000, 11025, 16000, 22050]),
)
def test_a_resampled_crop_has_no_edges(
    folder: Path, suffix: str, start_s: float, duration_s: float, rate: int
) -> None:
    path = folder / f"x.{suffix}"
    expected = load(path, rate).samples
    crop = load(path, rate, start_s=start_s, duration_s=duration_s)
    start = round(start_s * rate)
    expected = expected[start : start + max(1, round(duration_s * rate))]
    assert crop.sample_rate == rate
    assert len(crop.samples) == len(expected)
    np.testing.assert_allclose(crop.samples, expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3", "m4a", "webm"])
def test_lossy_formats_keep_time_and_level(folder: Path, suffix: str) -> None:
    decoded = load(folder / f"x.{suffix}", 16000).samples
    original = voice(SECONDS)[: len(decoded)]
    decoded = decoded[: len(original)]
    if suffix == "webm":  # made from a voice of another rate: only its length is comparable
        assert abs(len(decoded) - SECONDS * 16000) < 160
        return
    assert np.corrcoef(decoded, original)[0, 1] > 0.95  # a shift of a few samples gives far less
    assert np.std(decoded) == pytest.approx(np.std(original), rel=0.1)


@pytest.mark.parametrize(
    ("suffix", "container", "encoding", "length"),
    [
        ("wav", "wav", "pcm_16", 27200),
        ("flac", "flac", "pcm_16", 27200),
        ("ogg", "ogg", "vorbis", 27200),
        ("opus", "ogg", "opus", 27200),
        ("mp3", "mp3", "mpeg_layer_iii", 27200),
        ("m4a", "mp4", "aac", 27200),
        ("webm", "matroska", "opus", None),
    ],
)
def test_probe_reads_the_header(
    folder: Path, suffix: str, container: str, encoding: str, length: int | None
) -> None:
    info = probe(folder / f"x.{suffix}")
    assert (info.container, info.encoding, info.num_samples) == (container, encoding, length)
    assert info.channels == 1
    assert info.duration_s == pytest.approx(SECONDS, abs=0.02)
    if length is not None:
        assert len(whole(folder / f"x.{suffix}").samples) == length


def test_the_content_decides_not_the_suffix(folder: Path, tmp_path: Path) -> None:
    for content, name in (("flac", "a.wav"), ("m4a", "b.mp3"), ("wav", "c.gsm"), ("mp3", "d")):
        copy = tmp_path / name
        copy.write_bytes((folder / f"x.{content}").read_bytes())
        expected = whole(folder / f"x.{content}").samples
        assert np.array_equal(decode(copy).samples, expected)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [
        ("a.mov", "pcm_s16le", "s16"),
        ("a.mka", "flac", "s16"),
        ("a.mka", "pcm_f32le", "flt"),
        ("a.aac", "aac", "fltp"),
        ("a.mp4", "aac", "fltp"),
    ],
)
def test_other_containers_decode_in_process(
    tmp_path: Path, name: str, codec: str, sample_format: str
) -> None:
    path = write_media(tmp_path / name, voice(1.0), 16000, codec, sample_format)
    audio = decode(path)
    assert audio.sample_rate == 16000
    assert audio.warnings == ()
    if codec != "aac":  # lossless
        expected = np.rint(voice(1.0) * 32768) / 32768 if sample_format == "s16" else voice(1.0)
        assert np.array_equal(audio.samples, expected.astype(np.float32))
    else:
        assert len(audio.samples) == pytest.approx(16000, abs=2200)  # raw aac keeps its delay


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [("a.mka", "flac", "s16"), ("a.mov", "pcm_s16le", "s16"), ("a.m4a", "aac", "fltp")],
)
def test_channels_are_told_apart_in_every_layout(
    tmp_path: Path, name: str, codec: str, sample_format: str
) -> None:
    left, right = voice(1.0, seed=1), np.float32(0.2) * voice(1.0, seed=2)
    path = write_media(
        tmp_path / name, np.stack([left, right], axis=1), 16000, codec, sample_format
    )
    assert probe(path).channels == 2
    for channel, expected in ((0, left), (1, right)):
        samples = decode(path, channel=channel).samples
        assert len(samples) == 16000
        error = float(np.std(samples - expected) / np.std(expected))
        assert error < (0.3 if codec == "aac" else 1e-3)
    both = (decode(path, channel=0).samples + decode(path, channel=1).samples) / 2
    np.testing.assert_allclose(decode(path).samples, both, atol=1e-7)


def test_the_first_of_several_streams_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        for stream, value in zip(streams, (1000, 2000), strict=True):
            block = np.full((1, 8000), value, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    audio = decode(path, start_s=0.1, duration_s=0.2)
    assert np.array_equal(audio.samples, np.full(3200, 1000 / 32768, np.float32))
    assert audio.warnings[0].startswith("streams: the file has 2 audio streams")


def test_a_gsm_file_needs_no_header_and_no_suffix(tmp_path: Path) -> None:
    frame = bytes([0xD8, 0x20, 0xA2, 0xE1, 0x5A]) + bytes(28)
    path = tmp_path / "x.bin"
    path.write_bytes(frame * 50)
    audio = decode(path)
    assert (audio.sample_rate, len(audio.samples)) == (8000, 50 * 160)
    path.write_bytes(frame * 50 + frame[:10])
    assert decode(path).warnings[0].startswith("damaged: only the first 8000 samples decode")


# ------------------------------------------------------------------ parts and channels


def test_a_part_beyond_the_end_comes_back_shorter_and_never_padded(folder: Path) -> None:
    crop = decode(folder / "x.wav", start_s=SECONDS - 0.1, duration_s=5.0)
    assert len(crop.samples) == 1600


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "float.wav"])
def test_a_part_that_begins_after_the_end_is_an_error(folder: Path, suffix: str) -> None:
    for read in (decode, load):
        with pytest.raises(AudioError, match=r"nothing to read from 9.000 s on.*lasts 1.7"):
            read(folder / f"x.{suffix}", start_s=9.0, duration_s=1.0)
    with pytest.raises(AudioError, match="nothing to read"):
        load(folder / f"x.{suffix}", 8000, start_s=9.0, duration_s=1.0)


@pytest.mark.parametrize(
    "request_",
    [
        {"start_s": -0.1},
        {"start_s": float("nan")},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
        {"channel": -1},
        {"channel": "left"},
        {"channel": True},
    ],
)
def test_impossible_requests_are_refused(folder: Path, request_: dict[str, object]) -> None:
    for read in (decode, load):
        with pytest.raises(ConfigError):
            read(folder / "x.wav", **request_)  # type: ignore[arg-type]


def test_mix_is_the_mean_and_a_number_is_that_channel(tmp_path: Path) -> None:
    left, right = voice(0.5, seed=1), voice(0.5, seed=2)
    path = write_sound(tmp_path / "s.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    assert np.array_equal(decode(path, channel=0).samples, left)
    assert np.array_equal(decode(path, channel=1).samples, right)
    assert np.array_equal(decode(path).samples, (left + right) * np.float32(0.5))
    assert decode(path, channel=1, start_s=0.1, duration_s=0.1).samples.flags.c_contiguous
    with pytest.raises(AudioError, match=r"no channel 2; the file has 2"):
        decode(path, channel=2)


# ------------------------------------------------------------------ damage


def test_damage_ends_the_samples_and_a_crop_behind_it_still_decodes(tmp_path: Path) -> None:
    sound = voice(3.0)
    path = write_sound(tmp_path / "x.flac", sound)
    good = decode(path).samples
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(range(256)) + bytes(44)
    path.write_bytes(content)
    audio = decode(path)
    assert 4096 <= len(audio.samples) < len(good)
    assert np.array_equal(audio.samples, good[: len(audio.samples)])
    assert audio.warnings[0].startswith("damaged: ")
    behind = decode(path, start_s=2.7, duration_s=0.2)
    assert np.array_equal(behind.samples, good[43200:46400])
    # No crop anywhere invents a sample: it is right as far as it goes, or an error.
    for start in range(0, 45000, 1500):
        try:
            crop = decode(path, start_s=start / 16000, duration_s=0.1).samples
        except AudioError as error:
            assert "damaged" in str(error) or "nothing to read" in str(error)  # noqa: PT017
            continue
        assert np.array_equal(crop, good[start : start + len(crop)])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "m4a", "webm"])
def test_a_truncated_file_gives_what_really_decodes_and_a_warning(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    source = folder / f"x.{suffix}"
    if suffix == "m4a":  # its index is at the end: without it nothing decodes
        path = tmp_path / "cut.m4a"
        path.write_bytes(source.read_bytes()[:-2000])
        with pytest.raises(AudioError, match="without its index"):
            decode(path)
        return
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * 0.7)])
    audio = decode(path)
    expected = whole(source).samples
    count = len(audio.samples)
    assert 0.2 * len(expected) < count < 0.9 * len(expected)
    np.testing.assert_allclose(audio.samples[:-2400], expected[: count - 2400], atol=1e-3)
    assert any(w.startswith(("truncated: ", "damaged: ")) for w in audio.warnings)


def test_headers_that_were_never_updated_do_not_hide_the_samples(tmp_path: Path) -> None:
    expected = decode(write_sound(tmp_path / "a.wav", voice(1.0))).samples
    wav = bytearray((tmp_path / "a.wav").read_bytes())
    at = wav.find(b"data") + 4
    for size in (0, 0xFFFFFFFF, 0x7FFFF000):  # recorders and pipes leave these
        wav[at : at + 4] = struct.pack("<I", size)
        (tmp_path / "a.wav").write_bytes(wav)
        audio = decode(tmp_path / "a.wav")
        assert np.array_equal(audio.samples, expected)
        assert audio.warnings == ()
    expected = decode(write_sound(tmp_path / "a.flac", voice(1.0))).samples
    flac = bytearray((tmp_path / "a.flac").read_bytes())
    flac[21] &= 0xF0  # the 36 bits of the number of samples: 0 is "unknown"
    flac[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(flac)
    assert np.array_equal(decode(tmp_path / "a.flac").samples, expected)
    crop = decode(tmp_path / "a.flac", start_s=0.25, duration_s=0.5)
    assert np.array_equal(crop.samples, expected[4000:12000])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_not_finite_refuses_the_file_wherever_it_is_read(
    tmp_path: Path, value: float
) -> None:
    sound = voice(1.0)
    sound[12000] = value
    path = write_sound(tmp_path / "x.wav", sound, subtype="FLOAT")
    for part in ({}, {"start_s": 0.1, "duration_s": 0.1}):
        with pytest.raises(AudioError, match=r"1 of 16000 samples are NaN or infinite.* 0.750 s"):
            decode(path, **part)
