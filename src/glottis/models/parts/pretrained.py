"""Self-supervised speech networks of `transformers`: which there are, their sizes, their weights.

The library (extra ``ssl``) is imported when a network is built and not before.  Nothing is fetched
from the network unless ``download`` is on; files are read without running code from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from glottis.errors import ConfigError, MissingExtra, ModelError

log = logging.getLogger(__name__)

CONFIG_FILE, EXTRACTOR_FILE = "config.json", "preprocessor_config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
NO_FILE = ("random", "stored")
"""values of ``weights`` that name no file: initial weights, and those of the model's own folder"""


@dataclass(frozen=True)
class Kind:
    """One family of networks.

    library_name: its classes in transformers are <library_name>Config and <library_name>Model.
    model_type: what its config.json says.  adapted: layers that LoRA adapts.
    normalise: whether clips are normalised where no published file says it.
    takes_features: a stacked filterbank goes in, not the waveform.
    """

    library_name: str
    model_type: str
    adapted: tuple[str, ...]
    normalise: bool = True
    takes_features: bool = False


KINDS = {
    "wav2vec2": Kind("Wav2Vec2", "wav2vec2", ("q_proj", "v_proj")),
    "hubert": Kind("Hubert", "hubert", ("q_proj", "v_proj")),
    # its attention reads the weights of q_proj ... out_proj without calling these layers
    "wavlm": Kind("WavLM", "wavlm", ("intermediate_dense", "output_dense")),
    "w2v_bert": Kind(
        "Wav2Vec2Bert", "wav2vec2-bert", ("linear_q", "linear_v"), takes_features=True
    ),
}

# what would make a forward pass random, or shorten it, besides dropout
_OFF: dict[str, Any] = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
}
# of pretraining, recognition and classification heads: no part of the network
_FOREIGN = (
    *("mask_*", "vocab_size", "*_token_id", "*ctc*", "*codevector*", "num_negatives"),
    *("contrastive_*", "diversity_*", "use_weighted_layer_sum", "classifier_proj_size"),
    *("tdnn_*", "xvector_*", "final_dropout", "feat_quantizer_dropout", "*adapter*"),
    *("output_hidden_size", *_OFF),
)


@dataclass(frozen=True)
class Source:
    """Where a network comes from: its sizes, complete, and the folder of its weights, if any.

    normalise: whether the published feature extractor normalises each clip.
    """

    kind: Kind
    architecture: dict[str, Any]
    normalise: bool
    folder: Path | None


def library(name: str, purpose: str) -> Any:
    """The module ``name`` of the extra ``ssl``, imported."""
    try:
        with torch.device("cpu"):  # importing fails on the meta device
            if name == "peft":
                import peft

                return peft
            import transformers

            return transformers
    except ImportError:
        raise MissingExtra(name, "ssl", purpose) from None


def _class(transformers: Any, name: str) -> Any:
    """A class of the library, which is imported on demand."""
    with torch.device("cpu"):
        return getattr(transformers, name)


def find_source(
    kind_name: str,
    weights: str,
    architecture: Mapping[str, Any],
    normalise: bool | None,
    *,
    revision: str,
    download: bool,
) -> Source:
    """What the options of a front end mean; reads the small files, not the weights."""
    kind = KINDS[kind_name]
    config_class = _config_class(kind)
    if weights in NO_FILE:
        sizes = _complete(config_class, architecture)
        return Source(kind, sizes, kind.normalise if normalise is None else normalise, None)
    if architecture:
        raise ConfigError(
            f"both 'weights' ({weights}) and 'architecture' are given",
            why="the sizes are those of the weights",
            fix="leave 'architecture' out",
        )
    folder = Path(weights)
    if not folder.is_dir():
        folder = _from_hub(weights, revision, download)
    described = _json(folder / CONFIG_FILE)
    found = described.get("model_type")
    if found != kind.model_type:
        fitting = [name for name, other in KINDS.items() if other.model_type == found]
        raise ModelError(
            f"{weights} holds a network of the type '{found}', not '{kind.model_type}'",
            fix=f"set encoder.kind={fitting[0]}" if fitting else f"known: {', '.join(KINDS)}",
        )
    if described.get("add_adapter"):
        raise ModelError(
            f"{weights} has convolutions behind its last layer (add_adapter)",
            why="their frames are not those of the other layers",
            fix="take the pretrained network, not one made for recognition",
        )
    known = _architecture_keys(config_class)
    given = {key: value for key, value in described.items() if key in known}
    if normalise is None:
        normalise = _published_normalise(kind, folder)
    return Source(kind, _complete(config_class, given), normalise, folder)


def build_backbone(source: Source) -> Any:
    """The network, with its published weights if the source has a folder."""
    transformers = library("transformers", "a self-supervised front end")
    config = _config_class(source.kind)(**source.architecture, **_OFF)
    model_class = _class(transformers, f"{source.kind.library_name}Model")
    if source.folder is None:
        try:
            return model_class(config)
        except ValueError as error:
            raise ConfigError(f"architecture: {error}") from error
    with _quiet(transformers):
        try:
            backbone, report = model_class.from_pretrained(
                source.folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{source.folder} cannot be loaded: {str(error).splitlines()[0]}",
                fix=f"it needs {CONFIG_FILE} and one of {', '.join(WEIGHT_FILES)}",
            ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{source.folder} lacks {len(missing)} tensors: {', '.join(missing[:5])}",
            why="they would stay random",
            fix="take the complete pretrained network",
        )
    log.info(
        "%s: loaded; %d tensors of its other heads are left out",
        *(source.folder, len(report["unexpected_keys"])),
    )
    return backbone


def _config_class(kind: Kind) -> Any:
    transformers = library("transformers", "a self-supervised front end")
    return _class(transformers, f"{kind.library_name}Config")


def _architecture_keys(config_class: Any) -> list[str]:
    """Fields of a config that say what the network is."""
    base = {field.name for field in dataclasses.fields(config_class.__mro__[1])}
    names = [field.name for field in dataclasses.fields(config_class) if field.name not in base]
    return [name for name in names if not any(fnmatchcase(name, p) for p in _FOREIGN)]


def _complete(config_class: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes with the library's defaults for those that are not given, as plain data."""
    known = _architecture_keys(config_class)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"architecture.{key} is no size of this network",
                fix=f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}",
                rule="C1",
            )
    try:
        config = config_class(**given, **_OFF)
    except Exception as error:  # the library's own checks raise several unrelated types
        reason = " ".join(str(error).split())
        raise ConfigError(f"architecture: {reason}") from error
    values = {key: getattr(config, key) for key in known}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _from_hub(name: str, revision: str, download: bool) -> Path:
    """The folder of a published network on this machine; fetched first if ``download``."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"there is no folder {name}",
            fix="give a folder with config.json and the weights, or a name such as "
            "facebook/wav2vec2-xls-r-300m",
        )
    library("transformers", "a self-supervised front end")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def fetch(file: str) -> Path:
        path = huggingface_hub.hf_hub_download(
            name, file, revision=revision, local_files_only=not download
        )
        return Path(path)

    def fetch_any(files: tuple[str, ...]) -> Path | None:
        for file in files:
            try:
                return fetch(file)
            except LocalEntryNotFoundError:  # offline: perhaps another of the files is here
                if download:
                    raise
            except EntryNotFoundError:
                continue
        return None

    try:
        folder = fetch(CONFIG_FILE).parent
        fetch_any((EXTRACTOR_FILE,))
        found = fetch_any(WEIGHT_FILES)
    except Exception as error:  # the client raises errors of several libraries
        raise _unreachable(name, download, str(error) or type(error).__name__) from error
    if found is None:
        raise _unreachable(name, download, f"none of {', '.join(WEIGHT_FILES)}")
    return folder


def _unreachable(name: str, download: bool, reason: str) -> ModelError:
    if download:
        return ModelError(
            f"{name} cannot be downloaded: {reason.splitlines()[0]}",
            fix="check the name and the connection, or give a folder",
        )
    return ModelError(
        f"{name} is not on this machine",
        why="nothing is downloaded unless a recipe asks for it",
        fix="set encoder.download=true once, or give a folder with its files as encoder.weights",
    )


def _published_normalise(kind: Kind, folder: Path) -> bool:
    if kind.takes_features:
        return kind.normalise  # per mel bin; its extractor has no switch
    path = folder / EXTRACTOR_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {EXTRACTOR_FILE}",
            why="it says whether clips are normalised, and networks differ in this",
            fix="add the file, or set encoder.normalise to what the network was trained with",
        )
    return bool(_json(path).get("do_normalize", kind.normalise))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}",
            fix=f"give a folder with {CONFIG_FILE} and the weights",
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a mapping")
    return content


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's progress bars and its report of unused heads."""
    logging_of = transformers.utils.logging
    level, bars = logging_of.get_verbosity(), logging_of.is_progress_bar_enabled()
    logging_of.set_verbosity_error()
    logging_of.disable_progress_bar()
    try:
        yield
    finally:
        logging_of.set_verbosity(level)
        if bars:
            logging_of.enable_progress_bar()
