"""A model in a folder: ``model.safetensors`` and ``card.json``; nothing is ever unpickled.

The card says what the tensors are: name, options and front end of the model, sample rate, count of
parameters, version of Glottis, hash of the tensor file.  Both files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from glottis.config import to_tree
from glottis.errors import ModelError
from glottis.features import FEATURES
from glottis.files import atomic_path, write_json
from glottis.models._registry import MODELS
from glottis.models.inference import Window
from glottis.models.parts.adapters import merged
from glottis.models.system import Model, SpeakerModel, SpoofModel, build_model
from glottis.models.weights import load_weights, read_state
from glottis.version import __version__

FORMAT = 1
"""of the card; a higher one comes from a newer Glottis"""
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"


def save_model(
    model: Model, folder: str | Path, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write weights and card into ``folder`` (made if need be); returns the card.

    extra: plain data for the card's key ``extra`` (run id, step, results).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    data = safetensors.torch.save(state, metadata={"glottis": __version__})
    card = {
        "format": FORMAT,
        "glottis": __version__,
        "task": model.task,
        "name": model.name,
        "config": to_tree(model.config),
        "features": None if model.features_config is None else to_tree(model.features_config),
        "classifier": model.classifier_kind,
        "sample_rate": model.sample_rate,
        "embedding_size": model.embedding_size,
        "dims": list(model.dims),
        "min_samples": model.min_samples,
        "adapters": None if model.adapters is None else dict(model.adapters),
        "parameters": model.num_parameters,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "extra": dict(extra or {}),
    }
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(data)
    write_json(folder / CARD_FILE, card)
    return card


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> SpeakerModel | SpoofModel:
    """The model that `save_model` wrote, in eval mode on ``device``.

    It hears through the window that the training evaluated with, if the card says one.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS_FILE
    state = read_state(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["weights_sha256"]:
        raise ModelError(
            f"{path} is not the file that {CARD_FILE} describes",
            why="weights and options of different models would be joined",
            fix="copy the folder again from its source",
        )
    config = MODELS.config(**card["config"])
    features = None if card["features"] is None else FEATURES.config(**card["features"])
    kind = card.get("classifier", "linear")  # cards of earlier versions do not say
    model = build_model(config, features, seed=0, classifier=kind)  # weights are replaced below
    load_weights(model, _plain(state, card))
    model.dims = tuple(card.get("dims") or model.dims)
    window = (card.get("extra") or {}).get("window")
    if window is not None:  # its threshold and calibration are of what was heard through it
        model.window = Window(**window)
    return model.to(device).eval()


def plain_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a model's folder, or of a weight file, with the adapters of a card merged."""
    path = Path(path)
    if not path.is_dir():
        return read_state(path)
    state = read_state(path / WEIGHTS_FILE)
    return _plain(state, read_card(path)) if (path / CARD_FILE).is_file() else state


def _plain(state: dict[str, Tensor], card: Mapping[str, Any]) -> dict[str, Tensor]:
    adapters = card.get("adapters")
    return merged(state, adapters["alpha"] / adapters["rank"]) if adapters else state


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of a saved model; a card of a newer format is refused."""
    path = Path(folder) / CARD_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no model: {CARD_FILE} is missing",
            fix=f"point to a folder with {WEIGHTS_FILE} and {CARD_FILE}",
        )
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise ModelError(f"{path} is not the card of a model")
    if card["format"] > FORMAT:
        raise ModelError(
            f"{path} was written by Glottis {card.get('glottis', '?')} in format {card['format']}",
            why=f"this is Glottis {__version__}, which reads formats up to {FORMAT}",
            fix="update Glottis",
        )
    missing = {"config", "features", "weights_sha256"} - card.keys()
    if missing:
        raise ModelError(f"{path} lacks {', '.join(sorted(missing))}")
    return card
