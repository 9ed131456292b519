"""The names of our tensors in published ReDimNet and ReDimNet2 checkpoints.

A published stage is a numbered sequence: 0 aggregation, 1 change of view, 2 merge, 3 onwards the
blocks, then the squeeze if there is one, a change of view, and the block over time.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from glottis.models._formats import renamer

_outer = renamer(
    [
        (r"^stem\.", "backbone.stem.0."),
        (r"^stem_norm\.", "backbone.stem.1."),
        (r"^stem_group_norm\.", "backbone.stem_gnorm."),
        (r"^aggregation\.weight$", "backbone.fin_wght1d.w"),
        (r"^head_norm\.", "backbone.mfa.1."),
        (r"^pooling\.attention\.reduce\.", "pool.linear1."),
        (r"^pooling\.attention\.expand\.", "pool.linear2."),
        (r"^norm\.", "bn."),
        (r"^embedding\.", "linear."),
    ]
)
_CONVNEXT = [(r"^conv\.", "dwconvs.0."), (r"^pointwise\.", "pwconv1.")]
_map = renamer(
    [
        *_CONVNEXT,
        (r"^pointwise(\d)\.", r"conv\1pw."),
        (r"^norm(\d)\.", r"bn\1."),
        (r"^gate\.reduce\.", "se.squeeze."),
        (r"^gate\.expand\.", "se.exitation."),
    ]
)
_squeeze = renamer([(r"^conv\.", "0."), (r"^norm\.", "1."), (r"^pointwise\.", "3.")])
_time = renamer(
    [
        (r"^reduce\.", "red_dim_conv.0."),
        (r"^norm\.", "red_dim_conv.1."),
        (r"^expand\.", "exp_dim_conv."),
    ]
)
_core = renamer(
    [
        *_CONVNEXT,
        (r"^position\.", "conv."),
        (r"^([qkv])(uery|ey|alue)\.", r"attention.\1_proj."),
        (r"^output\.", "attention.out_proj."),
        (r"^up\.", "feed_forward.intermediate_dense."),
        (r"^down\.", "feed_forward.output_dense."),
        (r"^norm1\.", "layer_norm."),
        (r"^norm2\.", "final_layer_norm."),
    ]
)


def published_name(name: str, stages: nn.ModuleList, *, head: str, dual: bool = False) -> str:
    """The published name of the tensor ``name``.

    stages: modules with ``blocks`` and ``squeeze``.  head: of the convolution before the pooling
    ("mfa.0" or "head").  dual: the form whose stages are in four pieces.
    """
    found = re.match(r"stages\.(\d+)\.(\w+)\.(.+)", name)
    if found is None:
        return _outer(re.sub(r"^head\.", f"backbone.{head}.", name))
    index, part, rest = found[1], found[2], found[3]
    stage: Any = stages[int(index)]
    behind = 3 + len(stage.blocks)
    before = f"backbone.stage{index}" + ("_pre" if dual else "")
    if part == "aggregation":
        return f"{before}.0.w"
    if part == "merge":
        return f"{before}.2.{rest}"
    if part == "blocks":
        number, _, rest = rest.partition(".")
        return f"{before}.{3 + int(number)}.conv_block.{_map(rest)}"
    if part == "squeeze":
        return f"{before}.{behind}.{_squeeze(rest)}"
    if part == "over_time":
        place = f".{behind + (stage.squeeze is not None) + 1}"
        return f"backbone.stage{index}{'_1d' if dual else place}.{_over_time(rest)}"
    kind = {"map_norm": "up_2d", "time_norm": "up_1d"}[part]
    return f"backbone.stage{index}_{kind}.1.{rest}"


def _over_time(name: str) -> str:
    found = re.match(r"core\.(\d+)\.(.+)", name)
    if found is None:
        return _time(name)
    return f"tcm.{found[1]}.{_core(found[2])}"
