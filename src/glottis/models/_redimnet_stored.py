"""The ``model_config`` that published ReDimNet checkpoints carry, as options of ours.

A released file holds ``{"model_config": arguments of the published class, "state_dict": tensors}``.
Every argument is either an option here, of no effect on a result (augmentation, a classifier that
is not there), or refused by name: nothing of a stored description is guessed or passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from glottis.config import Config, build, to_tree
from glottis.errors import ConfigError, ModelError
from glottis.models._registry import MODELS

Options = dict[str, Any]
RowReader = Callable[[list[Any]], Options]

# argument of the published classes -> option of ours
_NETWORK = {
    "C": "channels",
    "block_1d_type": "time_core",
    "block_2d_type": "map_block",
    "group_divisor": "group_channels",
    "out_channels": "head_channels",
    "embed_dim": "embedding_size",
    "global_context_att": "global_context",
    "feat_agg_dropout": "aggregation_dropout",
    "compress_tconvs": "grouped_merge",
    "return_2d_output": "head_on_map",
    "dual_agg": "dual_aggregation",
}
# argument -> option of the log-mel front end
_FEATURES = {
    "F": "num_mels",
    "n_mels": "num_mels",
    "hop_length": "hop_samples",
    "n_fft": "fft_size",
    "win_length": "window_samples",
    "f_min": "low_hz",
    "f_max": "high_hz",
}
# argument -> the values under which it changes nothing here
_FIXED: dict[str, tuple[Any, ...]] = {
    "feat_type": ("pt", "pt_mel"),
    "pooling_func": ("ASTP",),
    "num_classes": (None,),
    "emb_bn": (False,),  # its names are in no list that could be compared
    "tf_optimized_arch": (False,),
    "fm_weigthing_type": ("NC",),
    "causal": ("none",),
    "use_freq_pos_enc": (False,),
    "spec_in_channels": (1,),
    "sample_rate": (16000,),
    "norm_signal": (False,),
    "spec_norm": ("mn",),
}
# the front end of the published class, for what is not stored
_FRONT_END: Options = {
    "num_mels": 72,
    "hop_samples": 160,
    "fft_size": 512,
    "window_samples": 400,
    "low_hz": 20.0,
    "high_hz": 7600.0,
    "pre_emphasis": 0.97,
}
# options of ours that a checkpoint of a named size may have otherwise
_FREE = ("name", "embedding_size", "aggregation_dropout", "projection_dropout")
# arguments that act in training only, or on outputs that are not the embedding
_IDLE = {
    *("class_dropout", "head_activation", "return_all_outputs"),
    *("do_spec_aug", "freq_start_bin", "num_apply_spec_aug", "freq_mask_width", "time_mask_width"),
}


def read_stored(
    content: Mapping[str, Any],
    arch: str,
    base: type[Config],
    read_row: RowReader,
    required: tuple[str, ...] = (),
) -> tuple[Options, Options]:
    """Options of the network and of its front end that the ``model_config`` of a file describes.

    content: of the file beside its tensors; without a ``model_config`` it implies nothing.
    arch: the name it is imported as.  base: config with the defaults of the published class, for
    what is not stored.  read_row: a row of ``stages_setup`` to the options of a stage.
    required: arguments that must be stored.
    Raises `ModelError` that names every argument this code does not follow, and for a description
    of another network than ``arch``; the name of a family (`redimnet`) takes any of its networks.
    """
    stored = content.get("model_config")
    if stored is None:
        return {}, {}
    if not isinstance(stored, Mapping):
        raise ModelError(f"its model_config is {type(stored).__name__}, not named arguments")
    missing = [name for name in required if name not in stored]
    if missing:
        raise ModelError(f"its model_config does not say {', '.join(missing)}")
    network, features = _translated(stored, read_row)
    try:
        network = to_tree(build(base, network, "model_config"))
    except ConfigError as error:
        raise ModelError(str(error), why="this network has no such form") from None
    features = {**_FRONT_END, **features}
    if MODELS[arch].config is not base:
        _require_same(arch, network, features)
    return network, features


def _translated(stored: Mapping[str, Any], read_row: RowReader) -> tuple[Options, Options]:
    arguments = dict(stored)
    spectrum = arguments.pop("spec_params", None) or {}
    network: Options = {}
    features: Options = {}
    refused = []
    dual = arguments.get("dual_agg", False)
    if arguments.pop("agg_gnorm", dual) != dual:  # two switches, one option: names are known so
        refused.append(f"agg_gnorm={not dual} with dual_agg={dual}")
    for name, value in {**arguments, **spectrum}.items():
        if name == "stages_setup":
            network["stages"] = [read_row(list(row)) for row in value]
        elif name == "do_preemph":
            features["pre_emphasis"] = 0.97 if value else 0.0
        elif name in _NETWORK:
            network[_NETWORK[name]] = value
        elif name in _FEATURES:
            features[_FEATURES[name]] = float(value) if name in ("f_min", "f_max") else value
        elif name not in _IDLE and value not in _FIXED.get(name, ()):
            refused.append(f"{name}={value!r}")
    if refused:
        raise ModelError(
            f"its model_config asks for {', '.join(refused)}",
            why="this network has no such part, so its outputs would not be the published ones",
            fix="use a checkpoint without, or its own software",
        )
    return network, features


def _require_same(arch: str, network: Options, features: Options) -> None:
    """Raise `ModelError` unless these options are those of ``arch``, apart from `_FREE` ones."""
    differences = _differences(arch, network, features)
    if not differences:
        return
    family = arch.partition("_")[0]
    same = [
        name
        for name in MODELS.names()
        if name.startswith(f"{family}_") and not _differences(name, network, features)
    ]
    others = " or ".join([*same, family] if family in MODELS else same)
    raise ModelError(
        f"its model_config is not {arch}: {', '.join(differences)}",
        why="the name would say another network than the one that is loaded",
        fix=f"import it as {others}" if others else "no registered network has this form",
    )


def _differences(arch: str, network: Options, features: Options) -> list[str]:
    own = to_tree(MODELS.config(arch))
    found = [name for name in own if name not in _FREE and own[name] != network.get(name)]
    mels = MODELS[arch].target.default_features["num_mels"]
    return [*found, "num_mels"] if features["num_mels"] != mels else found
