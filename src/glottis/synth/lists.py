"""The manifest, the trial lists and the spoofing protocols of a synthetic corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from glottis.data.manifest import Manifest
from glottis.data.trial_build import TrialBuildConfig, build_trials
from glottis.data.trials import Trials
from glottis.files import write_text
from glottis.synth.articulation import SAMPLE_RATE
from glottis.synth.clips import Clip, SynthConfig

LICENCE = "CC0-1.0"
SOURCE = "synthetic"


def clip_table(clips: Sequence[Clip], channels: Sequence[str]) -> Manifest:
    """All clips with the columns of the design; source and licence say what they are."""
    return Manifest.from_columns(
        {
            "utterance": [c.utterance for c in clips],
            "path": [c.path for c in clips],
            "speaker": [c.talker for c in clips],
            "session": [c.session_name for c in clips],
            "split": [c.split for c in clips],
            "label": [c.label for c in clips],
            "attack": [c.attack for c in clips],
            "duration_s": [c.num_samples / SAMPLE_RATE for c in clips],
            "sample_rate": [SAMPLE_RATE] * len(clips),
            "gender": [c.gender for c in clips],
            "language": ["synthetic"] * len(clips),
            "channel": list(channels),
            "source": [SOURCE] * len(clips),
            "licence": [LICENCE] * len(clips),
        }
    )


def write_trials(path: Path, manifest: Manifest, kind: type[Trials], config: SynthConfig) -> int:
    """``1|0 enrol test`` with paths: targets across sessions, non-targets of one gender.

    manifest: the clips of one split.  Returns the number of trials.
    """
    per_speaker = max(1, config.num_trials // (2 * len(manifest.speakers())))
    options = TrialBuildConfig(targets_per_speaker=per_speaker, same_session="never")
    trials, _ = build_trials(manifest, options, config.seed, kind)
    path_of = dict(zip(manifest.column("utterance"), manifest.column("path"), strict=True))
    kind.from_pairs(
        [path_of[key] for key in trials.enrol_keys],
        [path_of[key] for key in trials.test_keys],
        trials.kind,
    ).write(path)
    return len(trials)


def write_protocol(path: Path, clips: Iterable[Clip]) -> int:
    """``SPEAKER UTTERANCE - ATTACK bonafide|spoof`` (ASVspoof 2019 LA); the number of lines."""
    lines = [f"{c.talker} {c.utterance} - {c.attack or '-'} {c.label}" for c in clips]
    write_text(path, "\n".join(lines) + "\n")
    return len(lines)
