"""Weights from a file into a model: every tensor accounted for, nothing silently left random.

model = import_weights("aasist", Path("AASIST.pth"))      # published names
model = import_weights("cam_plus_plus", file, format="3dspeaker")
report = load_weights(model, state, new=("network.embedding.*",))
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from glottis.errors import ModelError, ToolkitError
from glottis.models._formats import Format, choose_format, importers
from glottis.models._registry import MODELS
from glottis.models.system import SpeakerModel, SpoofModel, create_model

_log = logging.getLogger(__name__)
# keys under which trainers store the weights of a network, beside a step, an optimiser ...
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
_SHOWN = 12


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a model came from a file; every mass is a number of values.

    matched: loaded.  missing: in the model, not in the file.  mismatched: of another shape in the
    file.  unexpected: in the file, not in the model.  format: the published kind of checkpoint,
    where a network has several.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]
    matched_mass: int
    missing_mass: int
    mismatched_mass: int
    unexpected_mass: int
    format: str = ""

    @property
    def loaded_share(self) -> float:
        """Share of the model's values that came from the file, 0 to 1."""
        return self.matched_mass / max(1, self.total_mass)

    @property
    def total_mass(self) -> int:
        """Values in the model, running statistics included."""
        return self.matched_mass + self.missing_mass + self.mismatched_mass

    def __str__(self) -> str:
        rows = [
            f"loaded {self.matched_mass:,} of {self.total_mass:,} values "
            f"({100 * self.loaded_share:.2f} %) in {len(self.matched)} tensors"
        ]
        if self.format:
            rows.append(f"format: {self.format}")
        for label in ("missing", "mismatched", "unexpected"):
            names, mass = getattr(self, label), getattr(self, f"{label}_mass")
            text = f"{len(names)} tensors, {mass:,} values: {_listed(names)}" if names else "none"
            rows.append(f"{label}: {text}")
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: counts and masses; names of what was not loaded."""
        return {
            "format": self.format or None,
            "loaded_share": self.loaded_share,
            "matched": len(self.matched),
            "matched_mass": self.matched_mass,
            **{
                key: value
                for label in ("missing", "mismatched", "unexpected")
                for key, value in (
                    (label, list(getattr(self, label))),
                    (f"{label}_mass", getattr(self, f"{label}_mass")),
                )
            },
        }


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    new: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
) -> LoadReport:
    """Copy ``state`` into ``model`` and say what was loaded.

    new: patterns (``network.embedding.*``) of tensors that may keep their initial values: a new
    head.  ignore: patterns of tensors of the file that may be left out: an old head.
    Raises `ModelError` that lists every tensor that is missing, of another shape or type, left over
    or not finite; the model is then unchanged.
    """
    return _load(model, state, new, ignore, {})


def _load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    new: tuple[str, ...],
    ignore: tuple[str, ...],
    called: Mapping[str, str],
) -> LoadReport:
    """`load_weights`; called: our names -> those of the file, which an error speaks of."""
    own = model.state_dict()
    matched = [name for name in own if name in state and own[name].shape == state[name].shape]
    mismatched = [name for name in own if name in state and own[name].shape != state[name].shape]
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    report = LoadReport(
        tuple(matched),
        tuple(missing),
        tuple(mismatched),
        tuple(unexpected),
        _mass(own, matched),
        _mass(own, missing),
        _mass(own, mismatched),
        _mass(state, unexpected),
    )
    in_file = {name: called.get(name, name) for name in own}
    problems = [f"missing: {in_file[name]} {_shape(own[name])}" for name in _unlike(missing, new)]
    problems += [
        f"other shape: {in_file[name]} is {_shape(own[name])} here and {_shape(state[name])} "
        "in the file"
        for name in _unlike(mismatched, new)
    ]
    problems += [
        f"left over: {name} {_shape(state[name])}" for name in _unlike(unexpected, (*new, *ignore))
    ]
    problems += [f"not finite: {in_file[name]}" for name in matched if not _finite(state[name])]
    problems += [
        f"other type: {in_file[name]} is {state[name].dtype} in the file"
        for name in matched
        if state[name].is_floating_point() != own[name].is_floating_point()
    ]
    if problems:
        raise _refusal(problems, report)
    with torch.no_grad():
        for name in matched:
            own[name].copy_(state[name])
    return report


def import_weights(
    arch: str,
    file: str | Path,
    *,
    format: str | None = None,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> SpeakerModel | SpoofModel:
    """A model with published weights: ``import_weights("aasist", "AASIST.pth")``.

    arch: a registered name.  file: .safetensors, or a torch file of plain tensors (nothing else is
    unpickled), with the original tensor names.  format: where the file comes from, for networks
    with several kinds of published checkpoints; None finds out by the tensor names.
    Options and front end follow from the file where they can; ``options`` and ``features``
    overrule it.
    Raises `ModelError` unless every tensor of the model is in the file and none is left over.
    """
    model, report = import_with_report(arch, file, format=format, features=features, **options)
    _log.info("%s: %s", file, report)
    return model


def import_with_report(
    arch: str,
    file: str | Path,
    *,
    format: str | None = None,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[SpeakerModel | SpoofModel, LoadReport]:
    """`import_weights`, and the account of its tensors."""
    formats = importers(arch)
    if not formats:
        known = ", ".join(name for name in MODELS.names() if importers(name))
        raise ModelError(
            f"no published checkpoint format is known for '{arch}'",
            why="without a published list of its tensors a map of names would be a guess",
            fix=f"known are {known}; what Glottis saved needs no import",
        )
    state, content = _read(file)
    try:
        kind = choose_format(formats, state, format)
        state = kind.stripped(state)
        implied, implied_features = _implied(kind, state, content, arch)
        options = {**implied, **options}
        features = {**implied_features, **(features or {})}
        model = create_model(arch, features=features, seed=0, **options)  # weights are replaced
        network, names = model.network, _names(kind, model.network)
        report = _load(network, _renamed(names, state, network), (), kind.extras, names)
    except ModelError as error:
        fitting = _fitting(arch, kind, state) if isinstance(error, _Unfit) else []
        fix = f"import it as {' or '.join(fitting)}" if fitting else error.fix
        raise ModelError(f"{file} as {arch}: {error.seen}", why=error.why, fix=fix) from None
    return model, replace(report, format=kind.name if len(formats) > 1 else "")


class _Unfit(ModelError):
    """The tensors of a file are not those of a model."""


def _implied(
    kind: Format, state: Mapping[str, Tensor], content: Mapping[str, Any], arch: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return kind.implied(state, content, arch)
    except (LookupError, TypeError, ValueError) as error:  # a tensor, an axis, a key is not there
        raise ModelError(
            f"its content is not that of {arch}: {type(error).__name__} {error}",
            fix="choose the matching model",
        ) from None


def _names(kind: Format, network: nn.Module) -> dict[str, str]:
    """Our names of the tensors of a network -> those in a file of this kind."""
    original_name = getattr(network, "original_name", kind.original_name)
    return {name: original_name(name) for name in network.state_dict()}


def _renamed(
    names: Mapping[str, str], state: Mapping[str, Tensor], network: nn.Module
) -> dict[str, Tensor]:
    """The tensors of a file under our names, 1x1 convolutions as the matrices they are."""
    back = {published: name for name, published in names.items()}
    ours = {back.get(name, name): value for name, value in state.items()}
    return _reshaped(ours, network.state_dict())


def _fitting(arch: str, kind: Format, state: Mapping[str, Tensor]) -> list[str]:
    """Relatives of ``arch``, as registered, that these tensors fill completely."""
    target, found = MODELS[arch].target, []
    for name in MODELS.names():
        other = MODELS[name].target
        if name == arch or not (issubclass(other, target) or issubclass(target, other)):
            continue
        try:
            options, features = _implied(kind, state, {}, name)
            with torch.device("meta"):  # shapes only
                network = create_model(name, features=features, seed=0, **options).network
        except ToolkitError:
            continue
        own, ours = network.state_dict(), _renamed(_names(kind, network), state, network)
        fits = all(key in ours and ours[key].shape == own[key].shape for key in own)
        if fits and importers(name) and not _unlike(list(ours.keys() - own.keys()), kind.extras):
            found.append(name)
    return found


def read_state(file: str | Path) -> dict[str, Tensor]:
    """The named tensors in a .safetensors file or a torch file, on the CPU; no code is run."""
    return _read(file)[0]


def _read(file: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The named tensors of a file, and what a torch file holds beside them (a config, a step)."""
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path), {}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise anything, IndexError included, on other files
        raise _unreadable(path, error) from error
    beside: dict[str, Any] = {}
    while isinstance(content, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        beside |= {str(name): value for name, value in content.items() if name != inner[0]}
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds no named tensors", fix="store model.state_dict()")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(
            f"{path} holds no named tensors alone, but also {_listed(tuple(others))}",
            fix=f"store model.state_dict(), alone or under one of the keys {', '.join(_WRAPPERS)}",
        )
    return {str(name): value for name, value in content.items()}, beside


def _unreadable(path: Path, error: Exception) -> ModelError:
    """Why a file cannot be read, and what a pickle with code would need."""
    try:
        needed = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no zip file, or damaged: nothing is known of what is in it
        needed = []
    if needed:
        return ModelError(
            f"{path} holds more than tensors: reading it would import {', '.join(needed)}",
            why="a pickle can run any code; nothing of it was run",
            fix="ask for model.state_dict() alone or .safetensors; if you trust the file, read it "
            "where its own software is installed and store the tensors alone",
        )
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ModelError(
        f"{path} cannot be read as weights: {reason}",
        why="only plain tensors are read, because a pickle can run any code",
        fix="convert the file to .safetensors, or store state_dict() alone",
    )


def _reshaped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that differ from ours in axes of size 1 only: a 1x1 convolution is a matrix."""
    result = dict(state)
    for name in own.keys() & state.keys():
        value, shape = state[name], own[name].shape
        if [n for n in value.shape if n > 1] == [n for n in shape if n > 1]:
            result[name] = value.reshape(shape)
    return result


def _refusal(problems: list[str], report: LoadReport) -> _Unfit:
    lines = [f"  {line}" for line in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    return _Unfit(
        f"{len(problems)} tensors do not fit; loaded would be {report.matched_mass:,} of "
        f"{report.total_mass:,} values\n" + "\n".join(lines),
        why="whatever does not come from the file stays random, or loses what was trained",
        fix="choose the matching model and options; name new heads on purpose",
    )


def _unlike(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(name, p) for p in patterns)]


def _mass(tensors: Mapping[str, Tensor], names: list[str]) -> int:
    return sum(tensors[name].numel() for name in names if tensors[name].is_floating_point())


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _shape(value: Tensor) -> str:
    return "x".join(str(size) for size in value.shape) or "scalar"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
