"""The teacher of a distillation: its outputs on every training clip, computed once and kept.

The teacher hears each clip whole and clean, at its own window; the student hears crops with noise.
The outputs are a function of the teacher's card (weights, front end, options) and the clips: they
are stored under a name that is the hash of these and of where the samples are read, and found again
by the next run.  Samples that change in place are not noticed.
Shapes: N clips, D embedding, K classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glottis.augment import Augmenter
from glottis.configfile import expand, read_tree
from glottis.errors import ConfigError, ModelError
from glottis.files import atomic_path
from glottis.losses import LOSSES, build_loss
from glottis.models import SpeakerModel, SpoofModel, load_model, read_card
from glottis.score import Extraction, output_clips, resolve_checkpoint
from glottis.train import distributed
from glottis.train.checkpoint import load_state
from glottis.train.corpus import Corpus
from glottis.train.evaluation import SomeClips, shared_rows
from glottis.train.terms import DistillationConfig, Imitation

log = logging.getLogger(__name__)


class Teacher:
    """A checked teacher; `imitation` computes or reads its outputs.

    Raises `ConfigError` if student and teacher do not fit together.
    """

    def __init__(
        self,
        config: DistillationConfig,
        student: SpeakerModel | SpoofModel,
        head: Any,
        label_map: list[str],
        augmenter: Augmenter | None,
    ) -> None:
        self.config = config
        self.folder = resolve_checkpoint(Path(expand(config.teacher)))
        self.cache = None if config.cache is None else Path(expand(config.cache))
        self.card = read_card(self.folder)
        self._require_fit(student, head)
        _require_same_clips(augmenter)
        self.head: Any = None  # of a speaker model, where its class scores are needed
        if config.kind == "kl" and student.task == "speaker":
            self.head = _head(self.folder, self.card["embedding_size"], label_map)

    def _require_fit(self, student: SpeakerModel | SpoofModel, head: Any) -> None:
        card, kind = self.card, self.config.kind
        if card["task"] != student.task:
            raise ConfigError(
                f"the teacher {self.folder} is a {card['task']} model, the student is a "
                f"{student.task} model",
                fix="choose a teacher of the same task",
            )
        if card["sample_rate"] != student.sample_rate:
            raise ConfigError(
                f"the teacher works at {card['sample_rate']} Hz, the student at "
                f"{student.sample_rate} Hz",
                fix="choose a teacher of the same rate",
                rule="P12",
            )
        if kind == "cosine" and card["embedding_size"] != student.embedding_size:
            raise ConfigError(
                f"the teacher's embedding has {card['embedding_size']} values, the student's "
                f"{student.embedding_size}",
                why="directions can only be compared at equal size",
                fix="set model.embedding_size to the teacher's, or distillation.kind=relational",
            )
        if kind == "kl" and student.task == "speaker" and not hasattr(head, "scores"):
            raise ConfigError(
                "distillation.kind=kl compares class probabilities; this loss does not give them",
                fix=f"take {', '.join(_with_scores())}, or kind cosine or relational",
            )

    def imitation(self, corpus: Corpus, run_folder: Path, device: torch.device) -> Imitation:
        """The term of the loss, with the teacher's outputs on the training clips."""
        folder = self.cache or run_folder
        path = folder / f"teacher-{self._key(corpus)}.safetensors"
        if not distributed.gather_lists([path.is_file()])[0]:
            self._compute(corpus, path, device)
        distributed.barrier()
        if not path.is_file():
            raise ModelError(
                f"{path} is not there in this process",
                fix="let distillation.cache be a folder that all processes see",
            )
        outputs = safetensors.torch.load_file(path)["outputs"].to(device)
        size = self.card["embedding_size"]
        embeddings, logits = outputs[:, :size], outputs[:, size:]
        if self.config.kind != "kl":
            return Imitation(self.config, embeddings.__getitem__)
        if self.head is None:  # a countermeasure
            return Imitation(self.config, logits.__getitem__)
        scores = torch.no_grad()(self.head.to(device).scores)
        return Imitation(self.config, lambda rows: scores(embeddings[rows]))

    def _key(self, corpus: Corpus) -> str:
        card = {k: v for k, v in self.card.items() if k not in ("extra", "glottis")}
        card["window"] = self.card["extra"].get("window")
        samples = corpus.root.resolve() if corpus.store is None else corpus.store.path.resolve()
        said = [json.dumps(card, sort_keys=True), str(samples)]
        said += [f"{name}={corpus.hashes.get(name)}" for name in ("manifest", "train")]
        said += map(str, corpus.train.column("utterance"))
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]

    def _compute(self, corpus: Corpus, path: Path, device: torch.device) -> None:
        teacher = load_model(self.folder, device)
        clips = list(corpus.train.column("utterance"))
        log.info("the teacher %s hears %d clips (once)", teacher.name, len(clips))
        source = corpus.source(corpus.train)
        outputs = shared_rows(
            len(clips),
            lambda mine: output_clips(
                teacher, [clips[i] for i in mine], SomeClips(source, mine), Extraction()
            ),
        )
        if distributed.rank() > 0:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            safetensors.torch.save_file({"outputs": torch.from_numpy(outputs)}, temporary)


def _with_scores() -> list[str]:
    """The speaker losses that can say class probabilities."""
    return [entry.name for entry in LOSSES if hasattr(entry.target, "scores")]


def _require_same_clips(augmenter: Augmenter | None) -> None:
    """The teacher heard the clip as it is: no other voice, no mixture."""
    if augmenter is None:
        return
    if augmenter.label_copies > 1 or "mixup" in augmenter.names:
        raise ConfigError(
            "distillation beside speed as_new_speakers or mixup",
            why="the student would hear another voice than the teacher did",
            fix="set as_new_speakers: false, and remove mixup",
        )


def _head(folder: Path, embedding_size: int, label_map: list[str]) -> Any:
    """The loss head of a checkpoint of ours, whose classes must be those of the student."""
    recipe = folder.parent.parent / "recipe.yaml"
    if not (folder / "state.pt").is_file() or not recipe.is_file():
        raise ConfigError(
            f"{folder} holds no loss head",
            why="class probabilities need the teacher's class weights, not only its embeddings",
            fix="give a checkpoint inside the run folder that trained it, or another kind",
        )
    state = load_state(folder, torch.device("cpu"))
    if state["label_map"] != label_map:
        raise ConfigError(
            f"the classes of the teacher {folder} are not those of this training",
            why="its probabilities would be about other speakers",
            fix="train the teacher on the same speakers, or take kind cosine or relational",
            rule="P4",
        )
    head = build_loss(LOSSES.config(**read_tree(recipe)["loss"]), embedding_size, len(label_map))
    if not hasattr(head, "scores"):
        raise ConfigError(
            "the teacher's loss does not give class probabilities",
            fix=f"take a teacher of {', '.join(_with_scores())}, or kind cosine or relational",
        )
    head.load_state_dict(state["head"])
    return head.requires_grad_(False).eval()
