"""ECAPA-TDNN on a weighted sum of the layers of a self-supervised network.

Chen et al., "WavLM: large-scale self-supervised pre-training for full stack speech processing",
IEEE JSTSP 2022, on speaker verification: ECAPA-TDNN on WavLM Large, first with the network frozen,
then trained as a whole.  Desplanques et al., "ECAPA-TDNN", Interspeech 2020, for the rest; see
`ecapa.py`.  The public code of the paper gives every value of a frame mean 0 and variance 1 over
the clip, which takes the place of the mean normalisation of a filterbank.

Initialisation: equal weights of the layers; ECAPA as torch does; the self-supervised network from
``encoder.weights``, else as transformers does.  Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from glottis.features import normalise_over_time
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.ecapa import Ecapa, Ecapa512Config
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.self_supervised import (
    EncoderConfig,
    SelfSupervisedEncoder,
    frozen_names,
    with_backbone,
)


class SslEcapaConfig(Ecapa512Config):
    """Options of ECAPA-TDNN on a self-supervised network."""

    encoder: EncoderConfig = EncoderConfig(kind="wavlm")
    """the self-supervised network"""
    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""
    normalise_frames: bool = True
    """mean 0 and variance 1 over the clip for every value of a frame"""


@register_model(
    "ssl_ecapa",
    SslEcapaConfig,
    parity=ours("no reference vectors of the whole; ECAPA by itself has some"),
)
class SslEcapa(nn.Module):
    """(B, S) wave at 16 kHz -> (B, D) embeddings, not normalised; Chen et al., JSTSP 2022."""

    reference = "Chen et al., JSTSP 2022; Desplanques et al., Interspeech 2020"
    task = "speaker"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = None
    unused_parameters: tuple[str, ...] = ()
    heavy_blocks = ("encoder.backbone.network.encoder.layers", "back_end.blocks")

    def __init__(self, config: SslEcapaConfig) -> None:
        super().__init__()
        self.encoder = SelfSupervisedEncoder(config.encoder)
        self.resolved_config = with_backbone(config, self.encoder.backbone)
        self.normalise = config.normalise_frames
        self.back_end = Ecapa(config, self.encoder.size)
        self.embedding_size = config.embedding_size
        self.min_samples = self.encoder.backbone.samples(self.back_end.min_frames)
        self.unused_parameters = frozen_names(self)

    def forward(self, wave: Tensor) -> Tensor:
        x = self.encoder(wave)  # (B, C, T)
        if self.normalise:
            with no_autocast(x):
                x = normalise_over_time(at_least_float32(x), "mean_var")
        return self.back_end(x)
