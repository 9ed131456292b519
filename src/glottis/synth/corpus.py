"""A synthetic corpus on disk: audio, manifest, trial lists and spoofing protocols.

    corpus = generate(Path("demo/corpus"), SynthConfig(), workers=2)
    corpus.manifest, corpus.trials["eval"], corpus.protocols["eval"]

The audio is the same bit for bit with any number of workers.  Work goes on in a folder beside the
destination, which is renamed when everything is there: an interrupted run continues, a finished
one is found again, and a folder with other content is never touched.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import soundfile

from glottis.config import fingerprint, to_tree
from glottis.data.trials import DevelopmentTrials, EvaluationTrials
from glottis.errors import DataError
from glottis.files import sync, write_json
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.clips import SPLITS, Clip, SynthConfig, make_clip, plan, session_of, talker_of
from glottis.synth.lists import clip_table, write_protocol, write_trials

GENERATOR = 1
"""Counts changes of the generator that change its sounds."""

PROTOCOLS = ("train", "dev", "eval", "eval_known")

Progress = Callable[[int, int], None]
"""Called with the number of finished clips and the number of all clips."""


@dataclass(frozen=True)
class SynthCorpus:
    """Where everything is.  ``root`` is the data root of manifest and trial paths."""

    root: Path
    config: SynthConfig

    @property
    def manifest(self) -> Path:
        """The table of all clips."""
        return self.root / "manifest.csv"

    @property
    def trials(self) -> dict[str, Path]:
        """Speaker trials by split: dev (for selection) and eval."""
        return {split: self.root / f"trials_{split}.txt" for split in ("dev", "eval")}

    @property
    def protocols(self) -> dict[str, Path]:
        """Spoofing protocols: train, dev, eval (unseen attack), eval_known; talkers differ."""
        return {name: self.root / f"cm.{name}.txt" for name in PROTOCOLS}


def generate(
    dst: Path, config: SynthConfig, *, workers: int = 0, progress: Progress | None = None
) -> SynthCorpus:
    """Make the corpus in ``dst``, or find it there if it is already complete.

    workers: processes beside this one; 0 does the work here.
    Raises `DataError` if ``dst`` holds anything else than this very corpus.
    """
    corpus = SynthCorpus(dst, config)
    identity = {"generator": GENERATOR, "fingerprint": fingerprint(config)}
    if _is_complete(dst, identity):
        return corpus
    partial = dst.with_name(f".{dst.name}.{identity['fingerprint']}.partial")
    talkers = plan(config)
    total = sum(len(clips) for clips in talkers)
    done = 0
    channels: dict[str, str] = {}
    for clips, new_channels in _made(partial, config.seed, talkers, workers):
        channels |= new_channels
        done += clips
        if progress is not None:
            progress(done, total)
    counts = _write_lists(SynthCorpus(partial, config), talkers, channels)
    write_json(
        partial / "corpus.json",
        {"synthetic": True, **identity, "config": to_tree(config), "counts": counts},
    )
    _finish(partial, dst, identity)
    return corpus


def _is_complete(dst: Path, identity: dict[str, object]) -> bool:
    if not dst.exists() or (dst.is_dir() and not any(dst.iterdir())):
        return False
    try:
        card = json.loads((dst / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = {}
    if isinstance(card, dict) and all(card.get(key) == identity[key] for key in identity):
        return True
    raise DataError(
        f"{dst} exists and is not this synthetic corpus",
        why="it is another configuration, another version of the generator, or other data",
        fix="choose another folder or remove this one",
    )


def _made(
    root: Path, seed: int, talkers: tuple[tuple[Clip, ...], ...], workers: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Make every talker; the number of clips and the channels of the sessions of each."""
    if workers == 0:
        for clips in talkers:
            yield _make_talker(root, seed, clips)
        return
    # spawn: a forked copy of a process that has used torch may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(talkers)),
        mp_context=context,
        initializer=signal.signal,  # Ctrl-C is for the main process
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        futures = [pool.submit(_make_talker, root, seed, clips) for clips in talkers]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make_talker(root: Path, seed: int, clips: tuple[Clip, ...]) -> tuple[int, dict[str, str]]:
    talker = talker_of(seed, clips[0].talker, clips[0].gender)
    names = dict.fromkeys(clip.session_name for clip in clips)
    sessions = {name: session_of(seed, name) for name in names}
    (root / clips[0].path).parent.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        path = root / clip.path
        if not _is_there(path, clip.num_samples):
            samples = make_clip(seed, clip, talker, sessions[clip.session_name])
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            soundfile.write(
                temporary, samples, SAMPLE_RATE, "PCM_16", format="FLAC", compression_level=0.2
            )
            os.replace(temporary, path)
    return len(clips), {name: session.channel for name, session in sessions.items()}


def _is_there(path: Path, num_samples: int) -> bool:
    """Whether an interrupted run had finished this file; it is read, its header may lie."""
    if not path.exists():
        return False
    try:
        return len(soundfile.read(path, dtype="int16")[0]) == num_samples
    except soundfile.LibsndfileError:
        return False


def _write_lists(
    corpus: SynthCorpus, talkers: tuple[tuple[Clip, ...], ...], channels: dict[str, str]
) -> dict[str, int]:
    clips = [clip for group in talkers for clip in group]
    manifest = clip_table(clips, [channels[clip.session_name] for clip in clips])
    manifest.write(corpus.manifest)
    by_split = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    held_out = corpus.config.held_out
    members = {
        "train": by_split["train"],
        "dev": by_split["dev"],
        "eval": [c for c in by_split["eval"] if c.attack in ("", held_out)],
        "eval_known": [c for c in by_split["eval"] if c.attack != held_out],
    }
    counts = {"talkers": len(talkers), "clips": len(clips)}
    for name, kind in (("dev", DevelopmentTrials), ("eval", EvaluationTrials)):
        path = corpus.trials[name]
        counts[path.stem] = write_trials(path, manifest.select(split=name), kind, corpus.config)
    for name, path in corpus.protocols.items():
        counts[path.stem] = write_protocol(path, members[name])
    return counts


def _finish(partial: Path, dst: Path, identity: dict[str, object]) -> None:
    sync(partial)
    if dst.is_dir() and not any(dst.iterdir()):
        dst.rmdir()
    try:
        os.rename(partial, dst)
    except OSError as error:
        if not _is_complete(dst, identity):  # another process may have finished first
            raise DataError(f"cannot rename {partial} to {dst}: {error.strerror}") from error
    sync(dst.parent)
