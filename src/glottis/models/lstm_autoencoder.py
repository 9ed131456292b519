"""LSTM autoencoder: a convolutional code of every frame, a bidirectional LSTM over it, attention.

A public trainer's system (dimuthuanuraj/voxceleb_trainer, "LSTMAutoencoder", 2025): the encoder of
a denoising autoencoder (Vincent et al., "Extracting and composing robust features with denoising
autoencoders", ICML 2008) in front of an LSTM (Hochreiter and Schmidhuber, Neural Computation 1997)
with attentive statistics pooling (Okabe et al., Interspeech 2018).  Checkpoints of its published
code load under their original names and give its outputs.

Worth knowing: that code computes the decoder in every forward pass and no loss ever sees its
output, so the decoder is never trained.  Here it is computed only in training with ``reconstruct``:
forward then gives a `Reconstructed` with what the decoder made and what it should have made.  The
target is tanh of the input features: the decoder ends in a tanh, and features of variance 1 leave
its range three times out of ten.  Embeddings are the same with and without.

What differs from the published code, none of it in the result: without ``reconstruct`` the decoder
is kept for the sake of the weights, not computed and not trained; pooling and embedding run in
float32 under autocast.

Initialisation: as torch does.  Shapes: B batch, F features, T frames, C channels, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config, OnlyWith
from glottis.models._formats import renamer
from glottis.models._interface import Reconstructed, require_features
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.frame_pooling import FramePooling
from glottis.models.parts.precision import no_autocast


class LstmAutoencoderConfig(Config):
    """Options of the LSTM autoencoder; the defaults have 3,873,745 parameters."""

    embedding_size: int = Field(512, ge=1)
    """D, values of an embedding"""
    latent_size: int = Field(128, ge=1)
    """values of the code of a frame"""
    hidden_size: int = Field(256, ge=1)
    """channels of the convolutions of encoder and decoder"""
    lstm_size: int = Field(256, ge=1)
    """units of the LSTM in each direction"""
    lstm_layers: int = Field(2, ge=1)
    """layers of the LSTM"""
    pooling: Literal["sap", "asp"] = "asp"
    """over time: weighted mean, or weighted mean and standard deviation"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """between the convolutions of encoder and decoder"""
    lstm_dropout: Annotated[
        float, OnlyWith("two or more lstm_layers", lambda o: o["lstm_layers"] > 1)
    ] = Field(0.3, ge=0, lt=1)
    """between the layers of the LSTM"""
    reconstruct: bool = False
    """train the decoder: in training, forward also gives the reconstruction, for a loss that takes
    it"""


def convolutions(sizes: tuple[int, int, int, int], dropout: float, end: nn.Module) -> nn.Sequential:
    """Three convolutions over 3 frames, norm, ReLU and dropout between them, ``end`` behind."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:3]):
        layers += [nn.Conv1d(before, after, 3, padding=1), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Conv1d(sizes[2], sizes[3], 3, padding=1), end)


_original_name = renamer(
    [
        (r"^(encoder|decoder)\.9\.0\.", r"\1.9."),
        (r"^(encoder|decoder)\.", r"autoencoder.\1."),
        (r"^lstm\.", r"lstm_encoder.lstm."),
        (r"^lstm_norm\.", r"lstm_encoder.layer_norm."),
        (r"^pooling\.reduce\.", r"pooling.attention.0."),
        (r"^pooling\.expand\.", r"pooling.attention.2."),
        (r"^embedding\.", r"fc."),
        (r"^embedding_norm\.", r"bn."),
    ]
)


@register_model(
    "lstm_autoencoder",
    LstmAutoencoderConfig,
    parity=golden("dim_lstm_autoencoder", "dim_lstm_autoencoder_sap_small"),
)
class LstmAutoencoder(nn.Module):
    """(B, F, T) normalised log-mel features -> (B, D) embeddings, not normalised; T >= 4 frames.

    Published code of 2025, see above.  With ``reconstruct``, in training: -> `Reconstructed`.
    """

    reference = "dimuthuanuraj/voxceleb_trainer, 2025"
    task = "speaker"
    input = "features"
    min_frames = 4
    window_seconds = None
    unused_parameters: tuple[str, ...] = ("decoder.*",)
    default_features: dict[str, Any] = {  # noqa: RUF012
        "name": "logmel",
        "num_mels": 80,
        "fft_size": 512,
        "window_samples": 400,
        "hop_samples": 160,
        "window": "hamming",
        "low_hz": 0.0,
        "high_hz": 8000.0,
        "log_floor": 1e-6,
        "normalise": "mean_var",
    }

    def __init__(self, config: LstmAutoencoderConfig, num_features: int) -> None:
        super().__init__()
        self.embedding_size, self.num_features = config.embedding_size, num_features
        self.reconstruct = config.reconstruct
        latent, hidden, size = config.latent_size, config.hidden_size, config.lstm_size
        layers, dropout, lstm_dropout = config.lstm_layers, config.dropout, config.lstm_dropout
        ends = nn.Sequential(nn.BatchNorm1d(latent), nn.ReLU(inplace=True)), nn.Tanh()
        self.encoder = convolutions((num_features, hidden, hidden, latent), dropout, ends[0])
        self.decoder = convolutions((latent, hidden, hidden, num_features), dropout, ends[1])
        self.lstm = nn.LSTM(
            latent,
            size,
            layers,
            batch_first=True,
            bidirectional=True,
            dropout=lstm_dropout if layers > 1 else 0.0,
        )
        self.lstm_norm = nn.LayerNorm(2 * size)
        deviation = config.pooling == "asp"
        self.pooling = FramePooling(2 * size, 2 * size, "tanh", deviation=deviation)
        self.embedding = nn.Linear(self.pooling.output_size, config.embedding_size)
        self.embedding_norm = nn.BatchNorm1d(config.embedding_size)
        if self.reconstruct:
            self.unused_parameters = ()
        else:
            self.decoder.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor | Reconstructed:
        require_features(features, self.num_features, self.min_frames)
        code = self.encoder(features)  # (B, C, T)
        sequence, _ = self.lstm(code.transpose(1, 2))  # (B, T, 2 C)
        with no_autocast(features):
            sequence = self.lstm_norm(sequence.to(self.lstm_norm.weight.dtype))
            pooled = self.pooling(sequence.transpose(1, 2))
            embedding = self.embedding_norm(self.embedding(pooled))
        if not (self.reconstruct and self.training):
            return embedding
        return Reconstructed(embedding, self.decoder(code), features.detach().tanh(), code)

    original_name = staticmethod(_original_name)

    original_prefixes = ("module.", "__S__.")
    original_extras = ("torchfb.*", "__L__.*")

    @staticmethod
    def original_options(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and front-end options that the shapes in a checkpoint imply."""
        options: dict[str, Any] = {}
        features: dict[str, Any] = {}
        if "autoencoder.encoder.8.weight" in state:
            latent, hidden, _ = state["autoencoder.encoder.8.weight"].shape
            options |= {"latent_size": latent, "hidden_size": hidden}
        if "lstm_encoder.lstm.weight_hh_l0" in state:
            options["lstm_size"] = state["lstm_encoder.lstm.weight_hh_l0"].shape[1]
            names = [re.fullmatch(r"lstm_encoder\.lstm\.weight_hh_l(\d+)", n) for n in state]
            options["lstm_layers"] = sum(match is not None for match in names)
        if "fc.weight" in state and "pooling.attention.0.weight" in state:
            size, pooled = state["fc.weight"].shape
            options["embedding_size"] = size
            width = state["pooling.attention.0.weight"].shape[1]
            options["pooling"] = "sap" if pooled == width else "asp"
        if "torchfb.mel_scale.fb" in state:
            features["num_mels"] = state["torchfb.mel_scale.fb"].shape[1]
        return options, features
