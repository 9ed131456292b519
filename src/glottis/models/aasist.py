"""AASIST: raw waveform, fixed sinc filters, residual encoder, graph attention.

Jung, Heo, Tak, Shim, Chung, Lee, Yu and Evans, "AASIST: audio anti-spoofing using integrated
spectro-temporal graph attention networks", ICASSP 2022 (arXiv 2110.01200).  Weights published by
its authors (clovaai/aasist, MIT) load under their original names and give their outputs.

What differs from the published code, none of it in the result:
- the batch norm and SELU at the head of encoder blocks 1-5, whose output it throws away, are not
  computed; the tensors are kept (`unused_parameters`), so the parameter count is the published one;
- attention computes each unordered pair of nodes once (`parts/graph.py`);
- the sinc filters are a buffer and the map of envelopes is one strided convolution;
- in eval mode the batch norm inside a block is folded into the convolution before it;
- the graph half (0.3 % of the work) runs in float32 under autocast, ranking of nodes included;
- the embedding is returned before the classifier's dropout.

Initialisation: attention weights Xavier normal, positions and master nodes standard normal, the
rest as torch does.  Shapes: B batch, S samples, C channels, F bands (23), T frames, N nodes.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from glottis.config import Config, OnlyWith
from glottis.errors import ModelError
from glottis.models._formats import renamer
from glottis.models._interface import SpoofOutput, require_wave
from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.parts.folding import conv_norm
from glottis.models.parts.graph import GraphAttention, GraphPool, HeterogeneousGraphAttention
from glottis.models.parts.precision import no_autocast
from glottis.models.parts.sinc import SincEnvelope


class GraphConfig(Config):
    """Options that every network with AASIST's graph half has."""

    channels: tuple[int, int] = (32, 64)
    """channels of encoder blocks 0-1 and of blocks 2-5"""
    graph_sizes: tuple[int, int] = (64, 32)
    """size of a node after the homogeneous and after the heterogeneous attention"""
    pool_ratios: tuple[float, float, float] = (0.5, 0.7, 0.5)
    """share of nodes kept: spectral, temporal, between the heterogeneous layers"""
    temperatures: tuple[float, float, float] = (2.0, 2.0, 100.0)
    """of the attention softmax: spectral, temporal, heterogeneous"""
    attention_dropout: float = Field(0.2, ge=0, lt=1)
    """on the nodes that enter an attention layer"""
    pool_dropout: float = Field(0.3, ge=0, lt=1)
    """on the nodes from which a pool computes its scores"""
    branch_dropout: float = Field(0.2, ge=0, lt=1)
    """on the nodes of the two branches before they are combined"""
    head_dropout: float = Field(0.5, ge=0, lt=1)
    """before the classifier"""


class AasistConfig(GraphConfig):
    """Options of AASIST; the defaults are the published model (297,866 parameters)."""

    num_filters: int = Field(70, ge=9)
    """sinc filters; three neighbours make one band"""
    kernel_size: int = Field(129, ge=3)
    """taps of a sinc filter, odd"""
    frequency_mask: bool = False
    """in training, silence a random run of neighbouring sinc filters, one run per batch"""
    frequency_mask_width: Annotated[
        int, OnlyWith("frequency_mask=true", lambda o: o["frequency_mask"])
    ] = Field(20, ge=1)
    """the run has 0 to this many minus one filters"""


class ResidualBlock(nn.Module):
    """(B, C, F, T) -> (B, C', F, T // 3): two 2x3 convolutions, a shortcut, a pool over time.

    dead_norm: with the batch norm that the published code has and does not use.  pool: False leaves
    the pool out, and T as it is.
    """

    def __init__(
        self, in_channels: int, channels: int, *, dead_norm: bool, pool: bool = True
    ) -> None:
        super().__init__()
        self.pool = pool
        if dead_norm:
            self.dead_norm = nn.BatchNorm2d(in_channels)  # only for the published state dict
            self.dead_norm.requires_grad_(False)
        self.conv1 = nn.Conv2d(in_channels, channels, (2, 3), padding=(1, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, (2, 3), padding=(0, 1))
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(x, self.conv1, self.norm)  # (B, C', F + 1, T)
        y = functional.selu(y, inplace=True)
        y = self.conv2(y).add_(x if self.shortcut is None else self.shortcut(x))
        return pool_time(y) if self.pool else y


def pool_time(x: Tensor) -> Tensor:
    """Largest of 3 neighbours over time, (..., T) -> (..., T // 3)."""
    if torch.is_grad_enabled():
        return functional.max_pool2d(x, (1, 3))
    # the same values; the pool would also store where each came from, which takes most of its time
    end = 3 * (x.shape[-1] // 3)
    first, second, third = (x[..., shift:end:3] for shift in range(3))
    return torch.maximum(torch.maximum(first, second), third)


class Branch(nn.Module):
    """Two heterogeneous layers with a pool between; the second one is added to its input.

    temporal (B, N1, D), spectral (B, N2, D) -> the same, fewer nodes of size K, and a master node.
    """

    def __init__(self, size: int, output_size: int, config: GraphConfig) -> None:
        super().__init__()
        ratio, temperature = config.pool_ratios[2], config.temperatures[2]
        dropout, pool_dropout = config.attention_dropout, config.pool_dropout
        self.master = nn.Parameter(torch.randn(1, 1, size))
        self.first = HeterogeneousGraphAttention(size, output_size, temperature, dropout)
        self.temporal_pool = GraphPool(output_size, ratio, pool_dropout)
        self.spectral_pool = GraphPool(output_size, ratio, pool_dropout)
        self.second = HeterogeneousGraphAttention(output_size, output_size, temperature, dropout)
        self.dropout = nn.Dropout(config.branch_dropout)

    def forward(self, temporal: Tensor, spectral: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        temporal, spectral, master = self.first(temporal, spectral, self.master)
        temporal, spectral = self.temporal_pool(temporal), self.spectral_pool(spectral)
        more_temporal, more_spectral, more_master = self.second(temporal, spectral, master)
        return (
            self.dropout(temporal + more_temporal),
            self.dropout(spectral + more_spectral),
            self.dropout(master + more_master),
        )


class GraphHalf(nn.Module):
    """What follows the encoder: nodes, attention, branches, classifier; for subclasses.

    spectral (B, F, C) and temporal (B, T, C) nodes -> embedding (B, 5 K) and logits (B, 2).
    """

    def build_graph(self, config: GraphConfig, num_bands: int) -> None:
        """Make its layers, under the names that the published weights are mapped to."""
        size, output_size = config.graph_sizes
        wide = config.channels[1]
        dropout, pool_dropout = config.attention_dropout, config.pool_dropout
        self.embedding_size = 5 * output_size
        self.position = nn.Parameter(torch.randn(1, num_bands, wide))
        self.spectral_attention = GraphAttention(wide, size, config.temperatures[0], dropout)
        self.temporal_attention = GraphAttention(wide, size, config.temperatures[1], dropout)
        self.spectral_pool = GraphPool(size, config.pool_ratios[0], pool_dropout)
        self.temporal_pool = GraphPool(size, config.pool_ratios[1], pool_dropout)
        self.branches = nn.ModuleList(Branch(size, output_size, config) for _ in range(2))
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(self.embedding_size, 2)

    def judge(self, spectral: Tensor, temporal: Tensor) -> SpoofOutput:
        """The nodes, without their positions, to the answer; in float32 and outside autocast."""
        spectral = self.spectral_pool(self.spectral_attention(spectral + self.position))
        temporal = self.temporal_pool(self.temporal_attention(temporal))
        branches = [branch(temporal, spectral) for branch in self.branches]
        temporal, spectral, master = (torch.maximum(*pair) for pair in zip(*branches, strict=True))
        embedding = torch.cat(
            [
                temporal.abs().max(dim=1).values,
                temporal.mean(dim=1),
                spectral.abs().max(dim=1).values,
                spectral.mean(dim=1),
                master.squeeze(1),
            ],
            dim=1,
        )
        return SpoofOutput(embedding, self.classifier(self.dropout(embedding)))


_original_name = renamer(
    [
        (r"^input_norm\.", r"first_bn."),
        (r"^encoder\.(\d)\.", r"encoder.\1.0."),
        (r"\.0\.dead_norm\.", r".0.bn1."),
        (r"\.0\.norm\.", r".0.bn2."),
        (r"\.shortcut\.", r".conv_downsample."),
        (r"^position$", r"pos_S"),
        (r"^spectral_attention\.", r"GAT_layer_S."),
        (r"^temporal_attention\.", r"GAT_layer_T."),
        (r"^spectral_pool\.score\.", r"pool_S.proj."),
        (r"^temporal_pool\.score\.", r"pool_T.proj."),
        (r"^branches\.0\.", r"branch1."),
        (r"^branches\.1\.", r"branch2."),
        (r"^branch(\d)\.master$", r"master\1"),
        (r"^branch(\d)\.first\.", r"HtrgGAT_layer_ST\g<1>1."),
        (r"^branch(\d)\.second\.", r"HtrgGAT_layer_ST\g<1>2."),
        (r"^branch(\d)\.spectral_pool\.score\.", r"pool_hS\1.proj."),
        (r"^branch(\d)\.temporal_pool\.score\.", r"pool_hT\1.proj."),
        (r"\.pair_weight$", r".att_weight"),
        (r"\.pair_weight_temporal$", r".att_weight11"),
        (r"\.pair_weight_spectral$", r".att_weight22"),
        (r"\.pair_weight_cross$", r".att_weight12"),
        (r"\.temporal_projection\.", r".proj_type1."),
        (r"\.spectral_projection\.", r".proj_type2."),
        (r"\.pair_projection\.", r".att_proj."),
        (r"\.neighbour_projection\.", r".proj_with_att."),
        (r"\.node_projection\.", r".proj_without_att."),
        (r"\.master_pair_projection\.", r".att_projM."),
        (r"\.master_weight$", r".att_weightM"),
        (r"\.master_neighbour_projection\.", r".proj_with_attM."),
        (r"\.master_self_projection\.", r".proj_without_attM."),
        (r"^((?:Htrg)?GAT_layer_\w+)\.norm\.", r"\1.bn."),
        (r"^classifier\.", r"out_layer."),
    ]
)


@register_model("aasist", AasistConfig, parity=golden("AASIST"))
class Aasist(GraphHalf):
    """(B, S) wave at 16 kHz -> embedding (B, 5 K) and logits (B, 2); S >= 2315 samples.

    Jung et al., ICASSP 2022.  One temporal node covers 2187 samples (0.137 s); the published
    scores come from the first 64,600 samples (4.04 s, 29 temporal and 23 spectral nodes).
    """

    reference = "Jung et al., ICASSP 2022"
    task = "spoof"
    input = "wave"
    default_features = None
    sample_rate = 16000
    window_seconds = 64600 / 16000
    unused_parameters = ("encoder.*.dead_norm.*",)
    heavy_blocks = ("encoder",)

    def __init__(self, config: AasistConfig) -> None:
        super().__init__()
        if config.kernel_size % 2 == 0:
            raise ModelError(f"kernel_size={config.kernel_size} is even", fix="use an odd number")
        narrow, wide = config.channels
        self.num_filters = config.num_filters
        width = config.frequency_mask_width
        self.mask_width = width if config.frequency_mask else 0
        self.min_samples = config.kernel_size - 1 + 3**7

        self.envelope = SincEnvelope(config.num_filters, config.kernel_size, self.sample_rate)
        self.input_norm = nn.BatchNorm2d(1)
        widths = [1, narrow, narrow, wide, wide, wide, wide]
        self.encoder = nn.Sequential(
            *(ResidualBlock(widths[i], widths[i + 1], dead_norm=i > 0) for i in range(6))
        )
        self.build_graph(config, self.envelope.num_rows)

    def draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """The random tensors of one training step: ``filter_mask`` (num_filters,), 0 = silenced.

        As published: a uniform width from 0 to ``frequency_mask_width`` - 1, a uniform place, one
        mask for the whole batch.  Empty without ``frequency_mask`` and in eval mode.
        """
        if not self.mask_width or not self.training:
            return {}
        width = int(generator.integers(0, min(self.mask_width, self.num_filters)))
        start = int(generator.integers(0, self.num_filters - width + 1))
        mask = torch.ones(self.num_filters)
        mask[start : start + width] = 0.0
        return {"filter_mask": mask.to(self.position.device, non_blocking=True)}

    def forward(self, wave: Tensor, filter_mask: Tensor | None = None) -> SpoofOutput:
        require_wave(wave, self.min_samples)
        if self.training and self.mask_width and filter_mask is None:
            raise ModelError(
                "frequency_mask is on, but no mask was drawn for this step",
                why="the network draws nothing by itself: every random number has a known origin",
                fix="call model(wave, **model.draw(generator)) in training",
            )
        x = self.input_norm(self.envelope(wave, filter_mask))  # (B, 1, F, 3^6 T)
        x = self.encoder(functional.selu(x, inplace=True))  # (B, C, F, T)
        with no_autocast(x):
            magnitude = x.to(self.position.dtype).abs()
            spectral = magnitude.max(dim=3).values.transpose(1, 2)  # (B, F, C)
            temporal = magnitude.max(dim=2).values.transpose(1, 2)  # (B, T, C)
            return self.judge(spectral, temporal)

    original_name = staticmethod(_original_name)
