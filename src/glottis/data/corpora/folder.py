"""A plain folder of audio, in which one level of folders is the speaker or the label.

Say which: ``speaker_component=0`` (the default) for ``alice/monday/1.wav``, ``label_component=0``
for ``fake/1.wav``.  Components are counted from 0 below the given folder; what lies above it never
matters.  Other levels can be the session or the split.  The label words are the usual ones (bona
fide, real, genuine, human; spoof, fake, deepfake); 0 and 1 need ``polarity``.
Nothing is known of hours, rate or licence: say ``licence``, ``language`` and ``source``, they
travel to the run card.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from glottis.data._files import some
from glottis.data.corpora._asvspoof import count_labels
from glottis.data.corpora._layout import audio_files, existing, without_suffix
from glottis.data.corpora._prepared import CorpusConfig, Prepared, Reading
from glottis.data.corpora._registry import register_corpus
from glottis.data.labels import Polarity, canonical_labels
from glottis.errors import DataError


class FolderConfig(CorpusConfig):
    """Which level of folders says what."""

    speaker_component: int | None = Field(None, ge=0)
    """The level of folders that is the speaker (0 if neither speaker nor label is given)."""
    label_component: int | None = Field(None, ge=0)
    """The level of folders that is the label."""
    session_component: int | None = Field(None, ge=0)
    """The level of folders that is the session."""
    split_component: int | None = Field(None, ge=0)
    """The level of folders that is the split."""
    polarity: Polarity | None = None
    """What a label folder called 1 means."""
    language: str = ""
    """Language of all clips."""
    source: str = "folder"
    """Name of the collection."""
    licence: str = ""
    """Licence of all clips."""


@register_corpus("folder", FolderConfig)
def prepare(root: Path, config: FolderConfig) -> Prepared:
    """Your own audio: folders are speakers (``alice/1.wav``) or labels (``real/1.wav``)."""
    levels = _levels(config)
    existing(root, ("",), "a folder of audio")
    paths = audio_files(root)
    reading = Reading(config.source, root)
    depth = 1 + max(levels.values())
    shallow = [path for path in paths if path.count("/") < depth]
    if shallow:
        raise DataError(
            f"{root}: {len(shallow)} files do not lie {depth} folders deep: {some(shallow, 5)}",
            why=f"the folders give {', '.join(f'{k} (level {v})' for k, v in levels.items())}",
            fix="move them, or give other components",
            rule="P16",
        )
    parts = [path.split("/") for path in paths]
    columns = {name: [part[level] for part in parts] for name, level in levels.items()}
    if "label" in columns:
        columns["label"] = canonical_labels(
            columns["label"], polarity=config.polarity, source=f"folders of {root.name}"
        ).to_pylist()
    if "session" in columns and "speaker" in columns:  # "monday" of two people is two sessions
        pairs = zip(columns["speaker"], columns["session"], strict=True)
        columns["session"] = [f"{speaker}/{session}" for speaker, session in pairs]
    reading.add(
        len(paths),
        utterance=[without_suffix(path) for path in paths],
        path=paths,
        language=config.language,
        source=config.source,
        licence=config.licence,
        **columns,
    )
    reading.count("clips", len(paths))
    reading.count("speakers", len(set(columns.get("speaker", []))))
    if "label" in columns:
        reading.columns.setdefault("split", [""] * len(paths))
        count_labels(reading, {})
    return reading.finish(config)


def _levels(config: FolderConfig) -> dict[str, int]:
    """Column -> level; the speaker is the first level if nothing is said."""
    given = {
        "speaker": config.speaker_component,
        "label": config.label_component,
        "session": config.session_component,
        "split": config.split_component,
    }
    if config.speaker_component is None and config.label_component is None:
        given["speaker"] = 0
    levels = {name: level for name, level in given.items() if level is not None}
    if len(set(levels.values())) < len(levels):
        raise DataError(f"one level of folders has two meanings: {levels}", fix="give each its own")
    return levels
