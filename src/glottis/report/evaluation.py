"""An evaluation as files: ``result.json``, ``result.md``, ``det.png``, ``scores.png``."""

from __future__ import annotations

from pathlib import Path

from glottis.files import write_json, write_text
from glottis.report.figures import SPEAKER_CLASSES, SPOOF_CLASSES, det_curve, score_histogram
from glottis.score.checkpoint import Evaluated


def write_report(folder: Path, done: Evaluated, *, title: str = "") -> None:
    """Write the numbers and the figures of an evaluation into ``folder``.

    Where there are too few voices for an EER, the figures show the shapes and no number either.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = done.result
    name = title or f"{Path(str(result.data['file'])).name} ({result.data['role']})"
    write_json(folder / "result.json", result.to_dict())
    write_text(folder / "result.md", f"# {name}\n\n{result.to_markdown()}")
    first, second = done.scores[done.positive], done.scores[~done.positive]
    classes = SPEAKER_CLASSES if result.task == "speaker" else SPOOF_CLASSES
    label = result.run_id or "model"
    eer = result.metrics["eer"]
    det_curve(
        folder / "det.png",
        {label: (first, second)},
        title=name,
        classes=classes,
        captions={label: eer.method if eer.value is None else f"EER {eer.text(percent=True)}"},
    )
    score_histogram(
        folder / "scores.png",
        first,
        second,
        threshold=None if eer.value is None else result.thresholds["eer"],
        title=name,
        classes=classes,
    )
