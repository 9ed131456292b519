"""From several channels to one: an explicit policy, and what it costs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

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


def to_mono(frames: NDArray[np.float32], channel: Channel, name: str) -> NDArray[np.float32]:
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


def mix_warnings(frames: NDArray[np.float32]) -> list[str]:
    """What a mean of these channels (S, C) would hide: dead channels, different signals."""
    count = frames.shape[1]
    if count == 1 or not len(frames):
        return []
    # Sums in float64: an hour of samples loses digits in float32.
    mean = frames.mean(axis=0, dtype=np.float64)
    centred = frames - mean
    level = np.sqrt(np.mean(centred**2, axis=0))
    loudest = int(level.argmax())
    if not level[loudest] > 0:
        return []
    warnings = []
    dead = [i for i in range(count) if level[i] < DEAD_RATIO * level[loudest]]
    if dead:
        mixed = float(np.sqrt(np.mean(centred.mean(axis=1) ** 2)))
        drop = 20 * np.log10(max(mixed, 1e-9) / level[loudest])
        which = ", ".join(map(str, dead))
        warnings.append(
            f"dead_channel: channel {which} of {count} is silent; the mix is {-drop:.1f} dB below "
            f"channel {loudest}: choose channel={loudest}"
        )
    for index in range(count):
        if index == loudest or index in dead:
            continue
        product = float(np.mean(centred[:, index] * centred[:, loudest]))
        correlation = product / float(level[index] * level[loudest])
        if correlation < LEAST_CORRELATION:
            warnings.append(
                f"channels_differ: channels {min(index, loudest)} and {max(index, loudest)} "
                f"correlate by {correlation:.2f}; their mix is not one signal: choose a channel"
            )
            break
    return warnings
