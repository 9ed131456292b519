"""Factorised attentive pooling over all layers of a self-supervised network (MHFA).

Peng, Plchot, Stafylakis, Mosner, Burget and Cernocky, "An attention-based backend allowing
efficient fine-tuning of transformer models for speaker verification", SLT 2022 (arXiv 2210.01273):
there on WavLM Base+, trained as a whole (``encoder: {kind: wavlm, weights:
microsoft/wavlm-base-plus, trainable: full}``) with a smaller rate for the network than for the
pooling.  As a countermeasure the embedding goes through a ReLU and a linear layer to the two
logits, which is ours.

Initialisation: equal weights of the layers, linear layers as torch does; the self-supervised
network from ``encoder.weights``, else as transformers does.
Shapes: B batch, S samples, D embedding.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config
from glottis.models._interface import SpoofOutput
from glottis.models._parity import ours
from glottis.models._registry import register_model
from glottis.models.parts.mhfa import FactorisedPooling
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.self_supervised import (
    Backbone,
    BackboneConfig,
    frozen_names,
    with_backbone,
)


class SslMhfaConfig(Config):
    """MHFA on a self-supervised network, for speakers."""

    encoder: BackboneConfig = BackboneConfig(kind="wavlm")
    """the self-supervised network"""
    heads: int = Field(64, ge=1)
    """H, weighted means of the frames"""
    compressed_size: int = Field(128, ge=1)
    """values of a key and of a value"""
    embedding_size: int = Field(256, ge=1)
    """D, values of an embedding"""


@register_model(
    "ssl_mhfa",
    SslMhfaConfig,
    parity=ours("no reference vectors; the pooling is tested against its formulas"),
)
class SslMhfa(nn.Module):
    """(B, S) wave at 16 kHz -> (B, D) embeddings, not normalised; Peng et al., SLT 2022."""

    reference = "Peng et al., SLT 2022"
    task = "speaker"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds: float | None = None
    unused_parameters: tuple[str, ...] = ()
    heavy_blocks = ("backbone.network.encoder.layers",)

    def __init__(self, config: SslMhfaConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config.encoder)
        self.resolved_config = with_backbone(config, self.backbone)
        self.min_samples = self.backbone.samples(1)
        self.embedding_size = config.embedding_size
        self.pooling = FactorisedPooling(
            self.backbone.size,
            self.backbone.num_states,
            heads=config.heads,
            compressed=config.compressed_size,
            embedding_size=config.embedding_size,
        )
        self.unused_parameters = frozen_names(self)

    def embed(self, wave: Tensor) -> Tensor:
        """(B, S) -> (B, D)."""
        return self.pooling(self.backbone(wave))

    def forward(self, wave: Tensor) -> Tensor:
        return self.embed(wave)


class SslMhfaSpoofConfig(SslMhfaConfig):
    """MHFA on a self-supervised network, as a countermeasure."""


@register_model(
    "ssl_mhfa_spoof",
    SslMhfaSpoofConfig,
    parity=ours("ssl_mhfa with a classifier of ours"),
)
class SslMhfaSpoof(SslMhfa):
    """(B, S) wave at 16 kHz -> embedding (B, D) and logits (B, 2); Peng et al., SLT 2022."""

    task = "spoof"
    window_seconds = 64600 / 16000

    def __init__(self, config: SslMhfaSpoofConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.embedding_size, 2)

    def forward(self, wave: Tensor) -> SpoofOutput:  # type: ignore[override]
        embedding = functional.relu(self.embed(wave))
        with no_autocast(embedding):
            return SpoofOutput(embedding, self.classifier(embedding))
