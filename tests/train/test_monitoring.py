"""What users were told to watch by hand is in the metrics, and all of it in TensorBoard too."""

from __future__ import annotations

from pathlib import Path

from glottis.report.history import read_metrics
from glottis.train import train_recipe
from helpers.tones import recipe, speaker_tree, write_corpus

WATCHED = {
    *("train/loss", "train/loss_4", "train/loss_8", "train/accuracy_4"),  # per size
    *("train/rate", "train/rate_network", "train/loss_scale", "train/margin"),
    *("train/nested_gate_2", "train/grad_norm", "train/clipped", "train/skipped_steps"),
    *("train/embedding_norm", "train/embedding_cosine"),
    *("train/clips_per_s", "train/data_wait", "train/memory/process_mb"),
    *("dev/eer", "dev/eer_low", "dev/eer_high", "dev/4/eer", "dev/4/ratio"),
    *("dev/min_dcf_0.01", "dev/min_dcf_0.05", "dev/threshold", "dev/seconds", "dev/share_of_time"),
}


def test_everything_to_watch_is_in_the_metrics_and_in_tensorboard(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tree = speaker_tree(
        write_corpus(tmp_path / "corpus", dev=6, clips=3),
        model={"name": "nested_report004", "embedding_size": 8},
        loss={"name": "matryoshka", "dims": [4, 8], "loss": {"name": "aam_softmax"}},
        train={"steps": 2, "precision": "bf16"},
        optim={"name": "adam", "part_rates": {"network": 0.1}},
        phases=[{"name": "ramp", "margin": {"start": 0.1, "end": 0.2, "epochs": 1}}],
        log={"every_steps": 1, "tensorboard": True},
    )
    train_recipe(recipe(tree), tmp_path / "run")
    records = read_metrics(tmp_path / "run")
    logged = {key for record in records for key in record if "/" in key}
    assert logged >= WATCHED, WATCHED - logged
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= logged
