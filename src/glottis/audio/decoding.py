"""Files to samples: `probe`, `decode` (the file's own rate) and `load` (at the rate you ask for).

The crop path does as little as possible: open, seek where the format allows it, read, mix.  Only a
whole-file decode also looks for what is odd about the recording (`Audio.warnings`).
"""

from __future__ import annotations

import math
import os
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glottis.audio.channels import Channel, check_channel, mix_warnings, to_mono
from glottis.audio.health import level_warnings
from glottis.audio.resampling import margin_samples, resample, resample_array
from glottis.audio.source import Source, open_source
from glottis.audio.types import Audio, AudioInfo
from glottis.errors import AudioError, ConfigError


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """What the header says.  Raises AudioError for anything that is not audio."""
    with closing(open_source(Path(path))) as source:
        return AudioInfo(
            sample_rate=source.sample_rate,
            channels=source.channels,
            num_samples=source.num_samples,
            container=source.container,
            encoding=source.encoding,
            duration_s=source.duration_s,
        )


def decode(
    path: str | os.PathLike[str],
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: Channel = "mix",
    inspect: bool = True,
) -> Audio:
    """Samples of a file at its own rate, one channel.

    start_s, duration_s: the part wanted, in seconds; rounded to samples.  A part that reaches
    beyond the end, or into damage, comes back shorter; never padded.
    channel: "mix" (mean of all) or the number of one channel, from 0.
    inspect: look a whole recording over for warnings (a quarter of the time of a short one).
    Raises AudioError with the reason if there are no samples to return, or if one is not finite.
    A crop equals the same slice of the whole, exactly.
    """
    _check_request(start_s, duration_s, channel)
    with closing(open_source(Path(path))) as source:
        start = round(start_s * source.sample_rate)
        stop = (
            None if duration_s is None else start + max(1, round(duration_s * source.sample_rate))
        )
        samples, warnings = _take(Path(path), source, start, stop, channel, inspect)
        return Audio(samples, source.sample_rate, tuple(warnings))


def load(
    path: str | os.PathLike[str],
    sample_rate: int = 16000,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: Channel = "mix",
    inspect: bool = True,
) -> Audio:
    """`decode`, then resampled to ``sample_rate``.

    A crop is read with a margin on both sides and lies on the sample grid of the whole, so that
    it equals the same slice of the whole resampled file (to 1e-6): no filter edges in the crop.
    """
    _check_request(start_s, duration_s, channel)
    if start_s == 0 and duration_s is None:
        audio = decode(path, channel=channel, inspect=inspect)
        result = resample(audio, sample_rate)
        if not len(result.samples):
            raise AudioError(f"{path}: {len(audio.samples)} samples are none at {sample_rate} Hz")
        return result
    with closing(open_source(Path(path))) as source:
        first = round(start_s * sample_rate)
        count = None if duration_s is None else max(1, round(duration_s * sample_rate))
        common = math.gcd(source.sample_rate, sample_rate)
        step_in, step_out = source.sample_rate // common, sample_rate // common
        margin = math.ceil(margin_samples(source.sample_rate, sample_rate) / step_in)
        block = max(0, first // step_out - margin)
        last = None if count is None else -(-(first + count) // step_out) + margin
        start, stop = block * step_in, None if last is None else last * step_in
        if step_in == step_out:
            block, start, stop = first, first, None if count is None else first + count
        samples, warnings = _take(Path(path), source, start, stop, channel, inspect)
        samples = resample_array(samples, source.sample_rate, sample_rate)
        offset = first - block * step_out
        samples = samples[offset : None if count is None else offset + count]
        if not len(samples):
            raise _beyond_end(Path(path), source, start_s)
        return Audio(samples, sample_rate, tuple(warnings))


def _take(
    path: Path, source: Source, start: int, stop: int | None, channel: Channel, inspect: bool
) -> tuple[NDArray[np.float32], list[str]]:
    """Samples start..stop of one channel, finite and within [-1, 1], and the warnings."""
    whole = start == 0 and stop is None
    # Floating point may exceed full scale by any factor.  The factor is a property of the file,
    # so a crop must see the whole file to be scaled like it.
    entire = whole or source.float_pcm
    frames = source.read(0, None) if entire else source.read(start, stop)
    samples = to_mono(frames, channel, str(path))
    if not len(samples):
        raise _beyond_end(path, source, start / source.sample_rate)
    inspected = whole and inspect
    if source.bounded and not inspected:
        return samples, list(source.notes)  # looking for a peak took a tenth of a crop's time
    peak = float(max(samples.max(), -samples.min()))  # NaN and infinity come through
    if not math.isfinite(peak):
        raise _not_finite(path, samples, source.sample_rate)
    warnings = list(source.notes)
    if peak > 1.0 and source.float_pcm:
        samples = samples / np.float32(peak)
        warnings.append(
            f"over_full_scale: the peak is {peak:.3g}; scaled by {-20 * math.log10(peak):.1f} dB"
        )
    elif peak > 1.0:  # a lossy decoder overshoots a little; every player cuts that off
        samples = np.clip(samples, -1.0, 1.0)
    if inspected:
        warnings += source.end_notes(len(frames))
        warnings += level_warnings(samples, source.sample_rate, min(peak, 1.0))
        if channel == "mix":
            warnings += mix_warnings(frames)
    if entire and not whole:
        samples = samples[start:stop]
        if not len(samples):
            raise _beyond_end(path, source, start / source.sample_rate)
    return samples, warnings


def _check_request(start_s: float, duration_s: float | None, channel: Channel) -> None:
    if not (math.isfinite(start_s) and start_s >= 0):
        raise ConfigError(f"start_s must be 0 or more seconds, not {start_s}")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        raise ConfigError(f"duration_s must be more than 0 seconds, not {duration_s}")
    check_channel(channel)


def _beyond_end(path: Path, source: Source, start_s: float) -> AudioError:
    length = "" if source.duration_s is None else f"; the file lasts {source.duration_s:.3f} s"
    return AudioError(f"{path}: nothing to read from {start_s:.3f} s on{length}")


def _not_finite(path: Path, samples: NDArray[np.float32], sample_rate: int) -> AudioError:
    bad = ~np.isfinite(samples)
    return AudioError(
        f"{path}: {int(bad.sum())} of {len(samples)} samples are NaN or infinite, the first at "
        f"{int(bad.argmax()) / sample_rate:.3f} s",
        why="one such sample makes every loss and every weight NaN",
        fix="write the file again, in 16-bit integers",
    )
