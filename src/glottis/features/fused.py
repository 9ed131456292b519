"""Several front ends at once, stacked: the features of all of them, frame by frame.

All streams must have one sample rate and one hop.  Frame t of the result is, in every stream, the
frame whose centre lies nearest to the same sample: front ends with centred frames agree anyway, and
`kaldi_fbank`, whose first frame begins with the clip, lies half a window later, so that the first
frame or two of the centred ones are left out.  Frames that not all streams have, at the end, are
left out too.  Each stream is normalised on its own, over the frames that remain.

Shapes: B batch, S samples, F features of all streams together, T frames.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from glottis.config import Choice, Config, to_tree
from glottis.errors import ConfigError
from glottis.features._frontend import FrontEnd, TimingConfig, normalise_over_time
from glottis.features._registry import FEATURES, build_features, register_feature


class FusedConfig(Config):
    """As ``streams: [{name: logmel, num_mels: 64}, {name: prosody}]``."""

    streams: Annotated[tuple[Config, ...], Choice(FEATURES)]
    """The front ends, each with its own options and normalisation; features in this order."""


@register_feature("fused", FusedConfig)
class Fused(FrontEnd):
    """Several front ends stacked along F, (B, S) -> (B, sum of their F, T of the shortest)."""

    def __init__(self, config: FusedConfig) -> None:
        if not config.streams:
            raise ConfigError("'fused' has no streams", fix="name at least one front end")
        streams = [build_features(stream) for stream in config.streams]
        names = [f"streams.{i} ({to_tree(c)['name']})" for i, c in enumerate(config.streams)]
        _require_equal(names, streams)
        first = streams[0]
        timing = TimingConfig(sample_rate=first.sample_rate, hop_samples=first.hop_samples)
        super().__init__(
            timing,
            sum(stream.num_features for stream in streams),
            max(stream.min_samples for stream in streams),
        )
        self.config = config
        self.streams = nn.ModuleList(streams)
        self.first_centre = max(stream.first_centre for stream in streams)
        # frames that lie before the first one of the latest stream
        self.skipped = [
            round((self.first_centre - stream.first_centre) / stream.hop_samples)
            for stream in streams
        ]
        # lengths repeat with the hop: over one hop of them, one stream is never the longer one
        lengths = range(self.min_samples, self.min_samples + self.hop_samples)
        counts = [
            [stream.num_frames(length) - skipped for length in lengths]
            for stream, skipped in zip(streams, self.skipped, strict=True)
        ]
        self.shortest = min(range(len(counts)), key=lambda i: sum(counts[i]))
        self.cut = [
            skipped > 0 or count != counts[self.shortest]
            for skipped, count in zip(self.skipped, counts, strict=True)
        ]

    def num_frames(self, num_samples: int) -> int:
        """The least of the streams, from the first frame that all of them have."""
        shortest: FrontEnd = self.streams[self.shortest]  # type: ignore[assignment]
        return shortest.num_frames(num_samples) - self.skipped[self.shortest]

    def compute(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, F, T)."""
        frames = torch.arange(self.num_frames(wave.shape[1]), device=wave.device)
        parts = []
        for stream, skipped, cut in zip(self.streams, self.skipped, self.cut, strict=True):
            part = stream.compute(wave)  # type: ignore[operator]
            if cut:  # by index: how many frames a slice has would tie an exported graph to S
                part = part.index_select(2, frames + skipped)
            parts.append(normalise_over_time(part, stream.normalise))  # type: ignore[arg-type]
        return torch.cat(parts, dim=1)


def _require_equal(names: list[str], streams: list[FrontEnd]) -> None:
    """Raise ConfigError unless all streams agree in sample rate and hop."""
    for key in ("sample_rate", "hop_samples"):
        values = [getattr(stream, key) for stream in streams]
        if len(set(values)) > 1:
            said = ", ".join(f"{value} in {n}" for n, value in zip(names, values, strict=True))
            raise ConfigError(
                f"the streams of 'fused' differ in {key}: {said}",
                why="features are stacked frame by frame",
                fix=f"set {key}: {values[0]} in all of them",
            )
