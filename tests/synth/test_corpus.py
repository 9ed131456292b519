"""A corpus on disk: the same from any number of workers, complete, resumable, readable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glottis.data.manifest import Manifest
from glottis.data.protocols import DevelopmentProtocol, EvaluationProtocol
from glottis.data.trials import DevelopmentTrials, EvaluationTrials
from glottis.errors import DataError
from glottis.synth import SynthConfig, SynthCorpus, generate, tiny_config
from glottis.synth.clips import plan

SMALLEST = SynthConfig(
    train_talkers=2,
    dev_talkers=4,
    eval_talkers=4,
    clips_per_talker=2,
    sessions_per_talker=2,
    clips_per_attack=1,
    clips_held_out=1,
    min_seconds=1.0,
    max_seconds=1.1,
    num_trials=40,
)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> SynthCorpus:
    return generate(tmp_path_factory.mktemp("smallest") / "corpus", SMALLEST)


def test_workers_change_no_bit(smallest: SynthCorpus, tmp_path: Path) -> None:
    shared = generate(tmp_path / "corpus", SMALLEST, workers=2)
    assert digests(shared.root) == digests(smallest.root)


def test_an_interrupted_run_continues_and_ends_the_same(
    smallest: SynthCorpus, tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    def stop_in_the_middle(done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted

    dst = tmp_path / "corpus"
    with pytest.raises(Interrupted):
        generate(dst, SMALLEST, progress=stop_in_the_middle)
    assert not dst.exists()
    (partial,) = tmp_path.iterdir()
    done = sorted(partial.rglob("*.flac"))
    done[0].write_bytes(done[0].read_bytes()[:500])  # as after a full disk
    times = {path.relative_to(partial): path.stat().st_mtime_ns for path in done[1:]}

    dst.mkdir()  # an empty destination is as good as none
    calls: list[tuple[int, int]] = []
    corpus = generate(dst, SMALLEST, progress=lambda done, total: calls.append((done, total)))
    assert digests(corpus.root) == digests(smallest.root)
    assert all((dst / name).stat().st_mtime_ns == time for name, time in times.items())
    assert list(tmp_path.iterdir()) == [dst]
    assert calls[-1] == (64, 64)
    assert len(calls) == 10


def test_a_finished_corpus_is_found_again(smallest: SynthCorpus) -> None:
    def unexpected(done: int, total: int) -> None:
        raise AssertionError("clips were made again")

    again = generate(smallest.root, SMALLEST, progress=unexpected)
    assert again == smallest


@pytest.mark.parametrize("other", ["config", "generator", "stranger"])
def test_other_content_is_never_touched(other: str, smallest: SynthCorpus, tmp_path: Path) -> None:
    dst = tmp_path / "corpus"
    dst.mkdir()
    card = json.loads((smallest.root / "corpus.json").read_text())
    if other == "config":
        card["fingerprint"] = "0" * 16
    elif other == "generator":
        card["generator"] -= 1
    else:
        card = ["my holiday"]
    (dst / "corpus.json").write_text(json.dumps(card))
    before = digests(dst)
    with pytest.raises(DataError, match="not this synthetic corpus"):
        generate(dst, SMALLEST)
    assert digests(dst) == before


def test_audio_is_what_the_manifest_says(tiny: SynthCorpus) -> None:
    manifest = Manifest.read(tiny.manifest)
    assert manifest.check(tiny.root).ok
    for path, seconds in zip(manifest.column("path"), manifest.column("duration_s"), strict=True):
        info = soundfile.info(tiny.root / path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames / 16000 == seconds
        samples, _ = soundfile.read(tiny.root / path, dtype="float32")
        assert np.isfinite(samples).all()
        assert 0.01 < np.abs(samples).max() < 1.0


def test_everything_is_marked_synthetic(tiny: SynthCorpus) -> None:
    manifest = Manifest.read(tiny.manifest)
    for column, value in (
        ("source", "synthetic"), ("language", "synthetic"), ("licence", "CC0-1.0"),
    ):  # fmt: skip
        assert set(manifest.column(column)) == {value}
    assert json.loads((tiny.root / "corpus.json").read_text())["synthetic"] is True


def test_trials_are_across_sessions_and_within_a_gender(tiny: SynthCorpus) -> None:
    manifest = Manifest.read(tiny.manifest)
    for split, kind in (("dev", DevelopmentTrials), ("eval", EvaluationTrials)):
        trials = kind.read(tiny.trials[split])
        first_word = tiny.trials[split].read_text().splitlines()[0].split()
        assert first_word[0] in "01"
        assert first_word[1].endswith(".flac")
        rows = trials.rows(manifest)
        enrol, test = rows[trials.enrol], rows[trials.test]
        column = {name: manifest.column(name) for name in ("speaker", "session", "gender", "split")}
        assert np.array_equal(trials.target, column["speaker"][enrol] == column["speaker"][test])
        assert np.all(column["session"][enrol] != column["session"][test])
        assert np.all(column["gender"][enrol] == column["gender"][test])
        assert set(column["split"][np.concatenate([enrol, test])]) == {split}
        assert set(manifest.column("label")[enrol]) == {"bonafide"}
        assert trials.target.sum() > 10
        assert (~trials.target).sum() > 10


def test_protocols_hold_what_their_names_promise(tiny: SynthCorpus) -> None:
    manifest = Manifest.read(tiny.manifest)
    held_out = tiny.config.held_out
    known = {"S01", "S02", "S03", "S04", "S05"} - {held_out}
    attacks = {"train": known, "dev": known, "eval": {held_out}, "eval_known": known}
    talkers = {}
    for name, path in tiny.protocols.items():
        kind = DevelopmentProtocol if name in ("train", "dev") else EvaluationProtocol
        protocol = kind.read(path)
        assert set(protocol.attacks()) == attacks[name]
        rows = protocol.rows(manifest)
        assert np.array_equal(protocol.label, manifest.column("label")[rows])
        talkers[name] = set(manifest.column("speaker")[rows])
        assert {"bonafide", "spoof"} == set(protocol.label)
    assert talkers["eval"] == talkers["eval_known"]
    assert not talkers["train"] & (talkers["dev"] | talkers["eval"])
    assert not talkers["dev"] & talkers["eval"]


def test_default_size_has_about_two_thousand_trials() -> None:
    config = SynthConfig()
    for split, talkers in (("dev", config.dev_talkers), ("eval", config.eval_talkers)):
        clips = [c for group in plan(config) for c in group if c.split == split and not c.attack]
        pairs = sum(
            1
            for i, one in enumerate(clips)
            for other in clips[:i]
            if one.talker == other.talker and one.session != other.session
        )
        assert pairs >= min(70 * talkers, 0.9 * config.num_trials / 2)


def test_tiny_is_tiny() -> None:
    clips = [clip for group in plan(tiny_config()) for clip in group]
    assert sum(clip.num_samples for clip in clips) / 16000 < 180
    assert len(clips) < 120
