"""AASIST-L: AASIST with narrower layers, less than a third of its parameters.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention
networks", ICASSP 2022 (arXiv 2110.01200).  Differences from the published code and names of its
tensors: see `aasist.py`.  Initialisation: as there.
"""

from __future__ import annotations

from glottis.models._parity import golden
from glottis.models._registry import register_model
from glottis.models.aasist import Aasist, AasistConfig


class AasistLConfig(AasistConfig):
    """Options of AASIST-L; the defaults are the published model (85,306 parameters)."""

    channels: tuple[int, int] = (32, 24)
    """channels of encoder blocks 0-1 and of blocks 2-5"""
    graph_sizes: tuple[int, int] = (24, 32)
    """size of a node after the homogeneous and after the heterogeneous attention"""
    pool_ratios: tuple[float, float, float] = (0.4, 0.5, 0.7)
    """share of nodes kept: spectral, temporal, between the heterogeneous layers"""


@register_model("aasist_l", AasistLConfig, parity=golden("AASIST-L"))
class AasistL(Aasist):
    """(B, S) wave at 16 kHz -> embedding (B, 5 K) and logits (B, 2); S >= 2315 samples.

    Jung et al., ICASSP 2022: the network of `Aasist` at other widths and pool ratios.
    """
