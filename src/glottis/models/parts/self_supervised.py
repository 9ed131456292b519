"""A self-supervised network as a front end: waveform in, frames of 20 ms out.

wav2vec 2.0: Baevski et al., NeurIPS 2020; HuBERT: Hsu et al., TASLP 2021; WavLM: Chen et al.,
JSTSP 2022; W2V-BERT 2: Seamless Communication, 2023.  Through `transformers` (extra ``ssl``).

The frames are those of the last layer, or a sum over all layers with learned weights that add up to
1 (Yang et al., "SUPERB", Interspeech 2021).  The layers are counted with the input of the first one
in front, and the last one stands behind the network's closing normalisation, if it has one.

How it is trained: ``frozen`` computes it in eval mode and without gradient; ``lora`` trains
adapters only (see `parts/adapters.py`), in eval mode but for their own dropout; ``full`` trains
everything with the published dropout.  Layer drop and masking of frames are always off: every layer
takes part in every step, which the weighted sum and training in several processes need.

Shapes: B batch, S samples, T frames, C size of the network, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from glottis.config import Config, OnlyWith
from glottis.errors import ModelError
from glottis.features.kaldi_fbank import KaldiFbank, KaldiFbankConfig
from glottis.models._interface import require_wave
from glottis.models.parts.adapters import add_lora, lora_dropouts, require_gradients
from glottis.models.parts.precision import at_least_float32, no_autocast
from glottis.models.parts.pretrained import KINDS, Source, build_backbone, find_source

C = TypeVar("C", bound=Config)

_LEAST_VARIANCE = 1e-7  # added by the published feature extractors
_NUM_MELS = 80
_ADAPTERS = OnlyWith("trainable=lora", lambda o: o["trainable"] == "lora")


class BackboneConfig(Config):
    """A self-supervised network, its weights, and what of it is trained."""

    kind: Literal["wav2vec2", "hubert", "wavlm", "w2v_bert"] = "wav2vec2"
    """family of the network"""
    weights: str = "random"
    """a folder with config.json and weights, or a published name (facebook/wav2vec2-xls-r-300m);
    ``random``: initial weights; ``stored``, written by Glottis: in the folder of this model"""
    download: bool = False
    """whether a published name may be fetched from the network"""
    revision: str = "main"
    """version of a published name: a branch, or better a commit"""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """sizes where no weights are given, under the names of config.json (hidden_size,
    num_hidden_layers ...); what is left out is that of the family's base network"""
    normalise: bool | None = None
    """mean 0 and variance 1 for each clip (W2V-BERT: each mel bin); null: as published"""
    trainable: Literal["frozen", "lora", "full"] = "frozen"
    """what is trained of the network"""
    lora_rank: Annotated[int, _ADAPTERS] = Field(8, ge=1)
    """rank of the adapters"""
    lora_alpha: Annotated[float, _ADAPTERS] = Field(16.0, gt=0)
    """the adapters' output is multiplied by this over their rank"""
    lora_dropout: Annotated[float, _ADAPTERS] = Field(0.0, ge=0, lt=1)
    """dropout on the input of the adapters"""
    lora_targets: Annotated[tuple[str, ...], _ADAPTERS] = ()
    """last names of the adapted linear layers; empty: two that work in this family"""


class EncoderConfig(BackboneConfig):
    """A self-supervised network with one output per frame."""

    layers: Literal["weighted", "last"] = "weighted"
    """a learned weighted sum over all layers, or the last one"""


class LayerSum(nn.Module):
    """A weighted sum over layers, weights softmax(w): L times (B, T, C) -> (B, T, C)."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_layers))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        with no_autocast(self.weight):
            shares = torch.softmax(at_least_float32(self.weight), dim=0)
            total = shares[0] * at_least_float32(states[0])
            for share, state in zip(shares[1:], states[1:], strict=True):
                total = torch.addcmul(total, share, at_least_float32(state))
            return total


class StackedFbank(nn.Module):
    """The features of W2V-BERT 2: (B, S) -> (B, T, 160), two frames of a Kaldi filterbank each.

    normalise: every mel bin over the clip, with the unbiased variance.  An odd last frame is left
    out, as the published network masks it.
    """

    def __init__(self, normalise: bool) -> None:
        super().__init__()
        self.fbank = KaldiFbank(KaldiFbankConfig(num_mels=_NUM_MELS))
        self.normalise = normalise

    def forward(self, wave: Tensor) -> Tensor:
        mels = self.fbank(wave)  # (B, F, 2 T or 2 T + 1)
        if self.normalise:
            deviation = (mels.var(dim=2, keepdim=True) + _LEAST_VARIANCE).sqrt()
            mels = (mels - mels.mean(dim=2, keepdim=True)) / deviation
        mels = mels[..., : mels.shape[2] // 2 * 2]
        return mels.transpose(1, 2).unflatten(1, (-1, 2)).flatten(2)

    def samples(self, frames: int) -> int:
        """The fewest samples that give so many stacked frames."""
        return self.fbank.min_samples + (2 * frames - 1) * self.fbank.hop_samples


class Backbone(nn.Module):
    """(B, S) wave at 16 kHz -> the outputs of all layers, L times (B, T, C).

    Attributes: ``size`` (C), ``num_states`` (L), ``untrained`` (whether the weights are random),
    ``awaits_weights`` (whether they are in the folder of the model, to be loaded into it).
    """

    sample_rate = 16000
    fbank: StackedFbank | None

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        source = find_source(
            config.kind,
            config.weights,
            config.architecture,
            config.normalise,
            revision=config.revision,
            download=config.download,
        )
        self.untrained, self.awaits_weights = config.weights == "random", config.weights == "stored"
        self.resolved = _resolved(config, source)
        self.trainable, self.normalise = config.trainable, source.normalise
        self.network: Any = build_backbone(source)
        self.size: int = source.architecture["hidden_size"]
        self.num_states: int = source.architecture["num_hidden_layers"] + 1
        self.fbank = None
        if source.kind.takes_features:
            self.fbank = self._stacked(source)
        else:
            # else the first convolution computes the gradient of the waveform, for nobody
            self.network.feature_extractor._requires_grad = False
            architecture = source.architecture
            self.convolutions = list(
                zip(architecture["conv_kernel"], architecture["conv_stride"], strict=True)
            )
        targets, rank = config.lora_targets or KINDS[config.kind].adapted, config.lora_rank
        alpha, dropout = config.lora_alpha, config.lora_dropout
        if self.trainable == "frozen":
            self.network.requires_grad_(False)
        elif self.trainable == "lora":
            add_lora(self.network, targets, rank=rank, alpha=alpha, dropout=dropout)
        self.train()
        if self.trainable == "lora":
            self._require_gradients()

    def samples(self, frames: int) -> int:
        """The fewest samples that give so many frames."""
        if self.fbank is not None:
            return self.fbank.samples(frames)
        for kernel, stride in reversed(self.convolutions):
            frames = (frames - 1) * stride + kernel
        return frames

    def train(self, mode: bool = True) -> Backbone:
        """As usual, but what is not trained stays in eval mode (dropout off)."""
        super().train(mode)
        if self.trainable != "full":
            self.network.eval()
            for dropout in lora_dropouts(self.network):
                dropout.train(mode)
        return self

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        require_wave(wave, self.samples(1))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable != "frozen"):
            output = self.network(self._input(wave), output_hidden_states=True)
            return (*output.hidden_states[:-1], output.last_hidden_state)

    def _input(self, wave: Tensor) -> Tensor:
        if self.fbank is not None:
            return self.fbank(wave)
        if not self.normalise:
            return wave
        with no_autocast(wave):
            centred = wave - wave.mean(dim=1, keepdim=True)
            variance = centred.square().mean(dim=1, keepdim=True)
            return centred * torch.rsqrt(variance + _LEAST_VARIANCE)

    def _stacked(self, source: Source) -> StackedFbank:
        width = source.architecture["feature_projection_input_dim"]
        if width != 2 * _NUM_MELS:
            raise ModelError(
                f"the network takes {width} values per frame",
                why=f"two frames of {_NUM_MELS} mel bins make {2 * _NUM_MELS}",
            )
        return StackedFbank(source.normalise)

    def _require_gradients(self) -> None:
        parameter = next(self.network.parameters())
        if parameter.is_meta:  # a network without values, for counting
            return
        was_training = self.training
        self.eval()
        wave = torch.linspace(-1, 1, self.samples(2)).square()[None]
        require_gradients(self.network, lambda: self(wave)[-1])
        self.train(was_training)


class SelfSupervisedEncoder(nn.Module):
    """(B, S) wave -> (B, C, T) frames: the weighted sum over the layers, or the last one."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.size = self.backbone.size
        weighted = config.layers == "weighted"
        self.sum = LayerSum(self.backbone.num_states) if weighted else None

    def forward(self, wave: Tensor) -> Tensor:
        states = self.backbone(wave)
        x = states[-1] if self.sum is None else self.sum(states)
        return x.transpose(1, 2)


def with_backbone(config: C, backbone: Backbone) -> C:
    """A network's config, whose field ``encoder`` needs nothing but the model's own folder."""
    return config.model_copy(update={"encoder": backbone.resolved})


def frozen_names(network: nn.Module) -> tuple[str, ...]:
    """The parameters that do not ask for a gradient."""
    return tuple(name for name, p in network.named_parameters() if not p.requires_grad)


def _resolved(config: BackboneConfig, source: Source) -> BackboneConfig:
    """The same with all sizes written out: it builds the network without the published files."""
    return config.model_copy(
        update={
            "weights": "stored",
            "download": False,
            "architecture": source.architecture,
            "normalise": source.normalise,
        }
    )
