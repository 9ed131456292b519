"""From several channels to one: an explicit policy, and what it costs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glottis.audio.pcm import mean_product
from glottis.audio.types import Frames
from glottis.errors import AudioError, ConfigError

Channel = Literal["mix"] | int
"""``"mix"`` is the mean of all channels; a number picks that channel (from 0)."""

DEAD_RATIO = 1e-3  # 60 dB below the loudest channel
LEAST_CORRELATION = 0.5


def check_channel(channel: Channel) -> None:
    """Raise ConfigError unless it is "mix" or a whole number from 0."""
    number = isinstance(channel, int) and not isinstance(channel, bool)
    if channel == "mix" or (number and channel >= 0):
        return
    raise ConfigError(f"channel must be 'mix' or a number from 0, not {channel!r}")


def to_mono(frames: Frames, channel: Channel, name: str) -> NDArray[np.float32]:
    """(S, C) -> (S,) by the policy.  Raises AudioError if the file has no such channel."""
    count = frames.shape[1]
    if channel == "mix":
        if count == 1:
            return frames[:, 0]
        # One column at a time: the rounding of a sample must not depend on its position.
        total = frames[:, 0] + frames[:, 1]
        for index in range(2, count):
            total += frames[:, index]
        total *= np.float32(1.0 / count)
        return total
    if channel >= count:
        raise AudioError(
            f"{name}: there is no channel {channel}; the file has {count} (counted from 0)",
            fix=f"use channel='mix' or a number from 0 to {count - 1}",
        )
    return np.ascontiguousarray(frames[:, channel])


def mix_warnings(frames: Frames) -> list[str]:
    """What a mean of these channels (S, C) would hide: dead channels, different signals."""
    count = frames.shape[1]
    if count == 1:
        return []
    covariance = np.empty((count, count))
    for i in range(count):
        for j in range(i + 1):
            covariance[i, j] = covariance[j, i] = mean_product(frames[:, i], frames[:, j])
    mean = frames.mean(axis=0, dtype=np.float64)
    covariance -= np.outer(mean, mean)
    level = np.sqrt(np.maximum(covariance.diagonal(), 0))
    loudest = int(level.argmax())
    dead = [i for i in range(count) if level[i] < DEAD_RATIO * level[loudest]]
    alive = [i for i in range(count) if level[i] > 0 and i not in dead and i != loudest]
    warnings = []
    if dead:
        mixed = np.sqrt(max(float(covariance.sum()), 0.0)) / count
        drop = 20 * np.log10(level[loudest] / max(mixed, 1e-9))
        warnings.append(
            f"dead_channel: channel {', '.join(map(str, dead))} of {count} is silent; the mix is "
            f"{drop:.1f} dB below channel {loudest}: choose channel={loudest}"
        )
    for index in alive:
        correlation = covariance[index, loudest] / (level[index] * level[loudest])
        if correlation < LEAST_CORRELATION:
            warnings.append(
                f"channels_differ: channels {min(index, loudest)} and {max(index, loudest)} "
                f"correlate by {correlation:.2f}; their mix is not one signal: choose a channel"
            )
            break
    return warnings
