"""The data of a run: the rows to train on, where their samples are, and what the classes are."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glottis.audio import PackedStore
from glottis.data import CLASSES, DEV_SEEN, DevelopmentProtocol, Manifest, require_disjoint
from glottis.data.source import ClipSource, FileSource, StoreSource
from glottis.errors import ConfigError, DataError
from glottis.train.recipe import DataConfig, EvaluateConfig, Selection, expand

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """A manifest with its samples.

    train: rows to train on.  dev_seen: held-out rows of the same classes, or None.
    hashes: sha256 of every file that defines the data, unedited.
    """

    root: Path
    manifest: Manifest
    train: Manifest
    dev_seen: Manifest | None
    store: PackedStore | None
    sample_rate: int
    cache_mb: float
    allow: tuple[str, ...]
    hashes: dict[str, str] = field(default_factory=dict)

    def source(self, rows: Manifest) -> ClipSource:
        """Random access to the samples of these rows."""
        utterances = [str(u) for u in rows.column("utterance")]
        if self.store is not None:
            return StoreSource(self.store, utterances)
        return FileSource(
            self.root,
            [str(p) for p in rows.column("path")],
            self.sample_rate,
            self.cache_mb,
            rows.segments(),
        )

    def summary(self) -> dict[str, Any]:
        """For the run card: what is in the training data, and the hashes of its files."""
        return {"hashes": self.hashes, "train": self.train.summary()}


def open_corpus(
    task: str, data: DataConfig, evaluate: EvaluateConfig, allow: Sequence[str]
) -> Corpus:
    """Read the manifest, choose the rows, open the store; every problem is a clear error."""
    root, manifest_path = expand(data.root), expand(data.manifest)
    manifest = Manifest.read(manifest_path)
    hashes = {"manifest": file_hash(manifest_path)}
    train = _choose(manifest, data.train, "train", hashes)
    seen = evaluate.dev_seen
    dev_seen = None if seen is None else _choose(manifest, seen, "dev_seen", hashes)
    store_path = data.store
    store = None if store_path is None else PackedStore(expand(store_path))
    if store is not None and store.sample_rate != data.sample_rate:
        raise ConfigError(
            f"the store holds {store.sample_rate} Hz; data.sample_rate is {data.sample_rate}",
            fix="pack the corpus again at the rate of the recipe",
            rule="P12",
        )
    if store is None:
        train.check(root).raise_if_bad(root)
    if dev_seen is not None:
        require_disjoint({"train": train, DEV_SEEN: dev_seen}, allow=allow)
    if allow:
        log.warning("rules that this run breaks on purpose: %s", ", ".join(allow))
    log.info("%d training clips, %d speakers", len(train), len(train.speakers()))
    return Corpus(
        root=root,
        manifest=manifest,
        train=train,
        dev_seen=dev_seen,
        store=store,
        sample_rate=data.sample_rate,
        cache_mb=data.cache_mb,
        allow=tuple(allow),
        hashes=hashes,
    )


def label_rows(task: str, corpus: Corpus, copies: int) -> tuple[list[str], np.ndarray]:
    """The class names in order, and the class of each training row, (N,) int64.

    copies: how many classes each speaker counts as (speed copies as new speakers).
    """
    if task == "spoof":
        names = list(CLASSES)
        labels = class_numbers(corpus.train, "label", names)
        if len(np.unique(labels)) < 2:
            raise DataError(
                "the training data hold one label only", fix="check data.train", rule="P7"
            )
        return names, labels
    if (corpus.train.column("speaker") == "").any():
        raise DataError(
            "some training clips have no speaker",
            fix="fill the column 'speaker', or leave these rows out",
            rule="P5",
        )
    factor = corpus.train.factor("speaker")
    suffixes = ["", *(f"#speed{i}" for i in range(1, copies))]
    return [name + suffix for suffix in suffixes for name in factor.names], factor.codes


def class_numbers(rows: Manifest, column: str, names: Sequence[str]) -> np.ndarray:
    """Class number of each row; a value outside the label map is an error (rule P3)."""
    number = {name: i for i, name in enumerate(names)}
    values = [str(v) for v in rows.column(column)]
    strangers = sorted({v for v in values if v not in number})
    if strangers:
        shown = ", ".join(repr(s) for s in strangers[:5])
        raise DataError(
            f"{len(strangers)} values of '{column}' are not classes of the model: {shown}",
            why="a closed-set loss on strangers measures nothing",
            fix="measure EER on trials instead, or use clips of the training classes",
            rule="P3",
        )
    return np.array([number[v] for v in values], np.int64)


def file_hash(path: Path) -> str:
    """sha256 of a file, unedited."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _choose(
    manifest: Manifest, selection: Selection, name: str, hashes: dict[str, str]
) -> Manifest:
    split, label, list_file = selection.split, selection.label, selection.list_file
    rows = manifest
    if list_file is not None:
        path = expand(list_file)
        hashes[name] = file_hash(path)
        found = manifest.find(read_names(path), str(path))
        if (found < 0).any():
            raise DataError(
                f"{path}: {int((found < 0).sum())} of {len(found)} clips are not in the manifest",
                why="training would silently go on with fewer",
                fix="use the manifest that the list belongs to",
                rule="P7",
            )
        rows = manifest.take(found)
    if split is not None:
        rows = rows.select(split=split)
    if label is not None:
        rows = rows.select(label=label)
    if len(rows) == 0:
        known = ", ".join(sorted({str(s) for s in manifest.column("split")})) or "(none)"
        raise DataError(
            f"data.{name} chooses none of the {len(manifest)} rows of the manifest",
            fix=f"check split ({known}), label and list_file",
        )
    return rows


def read_names(path: Path) -> list[str]:
    """Paths of a ``speaker path`` list, or utterances of an ASVspoof protocol."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(
            f"cannot read the list {path}: {error.strerror}", fix="check list_file"
        ) from None
    if lines and len(lines[0].split()) == 2:
        return [line.split(maxsplit=1)[1].strip() for line in lines]
    return [str(u) for u in DevelopmentProtocol.read(path).utterance]
