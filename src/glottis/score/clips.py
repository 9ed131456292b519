"""Where the clips of a list are, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glottis.audio import PackedStore
from glottis.configfile import expand, read_mapping
from glottis.data import Manifest
from glottis.data.source import ClipSource, FileSource, StoreSource
from glottis.errors import ConfigError, DataError, ModelError
from glottis.score._checks import Names
from glottis.score.answer import resolve_checkpoint

PLACE = "{utterance}"


@dataclass(frozen=True)
class Clips:
    """Where the clips of a list are.

    root: folder of the audio.  manifest: says path, speaker and conditions.  store: packed store to
    read.  pattern: path of a key below the root, over that of the manifest; None = the manifest's,
    else the key itself (trials) or ``{utterance}.flac`` (protocols).
    borrowed: the file of the manifest if nobody gave it: it is the run's, and it is used for lists
    that it fits.  remark: what a reader of the result must know about all this.
    """

    root: Path
    manifest: Manifest | None = None
    store: PackedStore | None = None
    pattern: str | None = None
    borrowed: Path | None = None
    remark: str = ""

    def for_list(self, keys: Names, source: str, pattern: str) -> Clips:
        """These clips for one list: a borrowed manifest that does not fit is put aside, and said.

        It fits if it has every key and its files are below the root.  pattern: of lists of this
        kind, where there is no manifest.
        """
        if self.manifest is None:
            return replace(self, pattern=self.pattern or pattern)
        if self.borrowed is None:
            return self
        reason = self._misfit(keys, source)
        if not reason:
            return replace(self, remark=f"speakers and conditions are from {self.borrowed}")
        if self.store is not None:
            raise DataError(
                f"{self.borrowed}, the manifest of the run, does not fit {source}: {reason}",
                why="a packed store alone does not say who speaks",
                fix="give --manifest beside --store",
            )
        remark = f"{self.borrowed}, the manifest of the run, is not used: {reason}"
        return replace(self, manifest=None, pattern=self.pattern or pattern, remark=remark)

    def source(self, keys: Names, rows: Manifest | None, sample_rate: int) -> ClipSource:
        """The samples of these keys, in this order.  rows: of the manifest, one per key."""
        if rows is not None and self.store is not None:
            return StoreSource(self.store, [str(u) for u in rows.column("utterance")])
        paths = self._paths(keys, rows)
        missing = self._missing(paths)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} clips are not below {self.root}, the first is "
                f"{missing[0]}",
                why="skipped trials would make another, easier list",
                fix="give --root; for utterance names --manifest, or a --pattern",
                rule="P7",
            )
        pieces = None if rows is None or self.pattern is not None else rows.segments()
        return FileSource(self.root, paths, sample_rate, cache_mb=0, segments=pieces)

    def _misfit(self, keys: Names, source: str) -> str:
        assert self.manifest is not None
        found = self.manifest.find([str(key) for key in keys], source)
        unknown = int((found < 0).sum())
        if unknown:
            return f"{unknown} of the {len(found)} utterances of {source} are not in it"
        if self.store is not None:
            return ""
        missing = self._missing(self._paths(keys, self.manifest.take(found)))
        if missing:
            return f"{len(missing)} of its {len(found)} files are not below {self.root}"
        return ""

    def _paths(self, keys: Names, rows: Manifest | None) -> list[str]:
        if rows is not None and self.pattern is None:
            return [str(path) for path in rows.column("path")]
        pattern = self.pattern or PLACE
        return [pattern.replace(PLACE, str(key)) for key in keys]

    def _missing(self, paths: Sequence[str]) -> list[str]:
        return [path for path in paths if not (self.root / path).is_file()]


def open_clips(
    checkpoint: Path,
    root: Path | None = None,
    manifest: Path | None = None,
    store: Path | None = None,
    pattern: str | None = None,
) -> Clips:
    """`Clips` from what was given, and from the run's own recipe for what was not.

    With another root the files below it are read, not the run's store.
    """
    if pattern is not None and PLACE not in pattern:
        raise ConfigError(
            f"the pattern '{pattern}' does not hold {PLACE}",
            why="every utterance would be the same file",
            fix="for example --pattern 'flac/{utterance}.flac'",
        )
    if pattern is not None and store is not None:
        raise ConfigError(
            "a pattern names files, but the clips are to be read from a packed store",
            fix="give --pattern or --store",
        )
    known_root, known_manifest, known_store = clips_of_run(checkpoint)
    borrowed = None
    remark = ""
    if manifest is None:
        manifest = known_manifest
        if root is not None or store is not None:
            borrowed = known_manifest
            if manifest is not None and not manifest.is_file():
                borrowed = manifest = None
                remark = f"{known_manifest}, the manifest of the run, is not there any more"
        elif pattern is None:
            store = known_store
        root = root if root is not None else known_root
    if store is not None and manifest is None:
        raise DataError("a packed store alone does not say who speaks", fix="give --manifest too")
    if root is None:
        root = manifest.parent if manifest is not None else Path()
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist", fix="give --root")
    if store is not None and not store.is_dir():
        raise ModelError(f"there is no packed store at {store}", fix="give --store, or pack it")
    return Clips(
        root=root,
        manifest=None if manifest is None else Manifest.read(manifest),
        store=None if store is None else PackedStore(store),
        pattern=pattern,
        borrowed=borrowed,
        remark=remark,
    )


def clips_of_run(checkpoint: Path) -> tuple[Path | None, Path | None, Path | None]:
    """(root, manifest, store) that the run of a checkpoint was trained with, where they are known.

    Paths with a variable that is not set here are left out.
    """
    folder = resolve_checkpoint(checkpoint).resolve()
    for parent in (folder, *folder.parents[:2]):
        recipe = parent / "recipe.yaml"
        if recipe.is_file():
            data = read_mapping(recipe)["data"]
            found = [data.get(name) for name in ("root", "manifest", "store")]
            root, manifest, store = (None if f is None else _expanded(f) for f in found)
            return root, manifest, store
    return None, None, None


def _expanded(text: str) -> Path | None:
    try:
        return expand(text)
    except ConfigError:
        return None
