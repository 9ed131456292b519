"""Score-level fusion: what is summed, what is learned, and on which lists it may be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from glottis.data import DevelopmentProtocol, DevelopmentTrials, EvaluationTrials
from glottis.errors import ConfigError, DataError, ResultError, ToolkitError
from glottis.rng import generator
from glottis.score import (
    FusedScores,
    cllr,
    eer,
    fit_fusion,
    fuse_files,
    mean_fusion,
    metrics_from_files,
)


def scores(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two systems with errors of their own at different scales, (2, N), and which are targets."""
    rng = generator(seed, "fusion")
    target = np.arange(count) % 4 == 0
    first = 2.0 * target + rng.standard_normal(count)
    second = 30.0 * target + 20.0 * rng.standard_normal(count) + 100.0
    return np.stack([first, second]), target


def trials(target: np.ndarray, kind: Any = DevelopmentTrials, prefix: str = "d") -> Any:
    names = [f"{prefix}{i}" for i in range(len(target))]
    return kind.from_pairs(names, names[1:] + names[:1], target.astype(int).tolist(), prefix)


def eer_of(fused: np.ndarray, target: np.ndarray) -> float:
    return eer(fused[target], fused[~target]).value


def test_a_mean_is_a_weighted_mean() -> None:
    matrix, _ = scores()
    np.testing.assert_allclose(mean_fusion(2)(matrix), matrix.mean(axis=0))
    weighted = mean_fusion(2, [3, 1])
    assert weighted.weights == (0.75, 0.25)
    np.testing.assert_allclose(weighted(matrix), 0.75 * matrix[0] + 0.25 * matrix[1])


def test_standardised_systems_count_alike() -> None:
    matrix, target = scores()
    fusion = fit_fusion(matrix, trials(target), "standardised")
    z = (matrix - matrix.mean(axis=1, keepdims=True)) / matrix.std(axis=1, keepdims=True)
    np.testing.assert_allclose(fusion(matrix), z.mean(axis=0), atol=1e-12)
    assert not fusion.calibrated


def test_logistic_fusion_minimises_the_balanced_loss() -> None:
    matrix, target = scores()
    fusion = fit_fusion(matrix, trials(target), "logistic")

    def loss(theta: np.ndarray) -> float:
        fused = theta[:2] @ matrix + theta[2]
        return float(
            0.5 * np.logaddexp(0, -fused[target]).mean()
            + 0.5 * np.logaddexp(0, fused[~target]).mean()
        )

    best = minimize(
        loss,
        np.array([1.0, 0.05, -6.0]),
        method="Nelder-Mead",
        options={
            "xatol": 1e-9,
            "fatol": 1e-13,
            "maxiter": 20_000,
            "maxfev": 20_000,
        },
    )
    own = np.array([*fusion.weights, fusion.offset])
    assert loss(own) == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(own, best.x, rtol=2e-3)


def test_logistic_fusion_gives_calibrated_ratios_on_other_trials() -> None:
    fusion = fit_fusion(*_with_trials(scores(4000, seed=1)))
    matrix, target = scores(4000, seed=2)
    fused = fusion(matrix)
    assert fusion.calibrated
    assert cllr(fused[target], fused[~target]) < 0.45
    assert eer_of(fused, target) < min(eer_of(row, target) for row in matrix) - 0.02


def _with_trials(made: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, DevelopmentTrials]:
    return made[0], trials(made[1])


def test_classes_that_do_not_overlap_give_finite_weights() -> None:
    target = np.arange(40) % 2 == 0
    matrix = np.stack([np.where(target, 1.0, -1.0), np.linspace(-1, 1, 40)])
    assert np.isfinite(fit_fusion(matrix, trials(target))(matrix)).all()


def test_evaluation_data_teaches_nothing() -> None:
    matrix, target = scores()
    with pytest.raises(DataError, match="not development data") as caught:
        fit_fusion(matrix, trials(target, EvaluationTrials))  # type: ignore[arg-type]
    assert caught.value.rule == "P6"


def test_a_protocol_teaches_too() -> None:
    matrix, target = scores(40)
    names = np.array([f"u{i}" for i in range(40)], dtype=object)
    blank = np.full(40, "", dtype=object)
    protocol = DevelopmentProtocol(names, blank, blank, target, {}, "dev", "0" * 64)
    assert fit_fusion(matrix, protocol).weights == fit_fusion(matrix, trials(target)).weights


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, t: mean_fusion(2, [1, 0, 0]), "3 weights for 2 systems"),
        (lambda m, t: mean_fusion(2, [0, 0]), "the weights are 0, 0"),
        (lambda m, t: mean_fusion(2, [2, -1]), "the weights are 2, -1"),
        (lambda m, t: mean_fusion(3)(m), "2 systems for a fusion of 3"),
        (lambda m, t: mean_fusion(2)(m[0]), "shape"),
        (lambda m, t: mean_fusion(2)(np.where(m > 120, np.nan, m)), "not finite"),
        (lambda m, t: fit_fusion(m[:, :-1], trials(t)), "399 scores for 400 trials"),
        (lambda m, t: fit_fusion(m * [[1], [0]], trials(t)), "all 400 scores are 0"),
        (lambda m, t: fit_fusion(m, trials(np.ones(400, bool))), "no nontarget scores"),
    ],
)
def test_what_cannot_be_fused_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ToolkitError, match=said):
        call(*scores())


# ------------------------------------------------------------------------------------ files


def write(path: Path, row: np.ndarray, prefix: str, order: Any = None) -> Path:
    names = [f"{prefix}{i}" for i in range(len(row))]
    lines = [f"{a} {b} {s:.6f}\n" for a, b, s in zip(names, names[1:] + names[:1], row)]  # noqa: B905
    path.write_text("".join(lines if order is None else [lines[i] for i in order]))
    return path


def write_key(path: Path, target: np.ndarray, prefix: str) -> Path:
    names = [f"{prefix}{i}" for i in range(len(target))]
    rows = zip(target, names, names[1:] + names[:1], strict=True)
    path.write_text("".join(f"{int(t)} {a} {b}\n" for t, a, b in rows))
    return path


class Files:
    """Scores of two systems on a development and on an evaluation list; lines in another order."""

    def __init__(self, folder: Path) -> None:
        self.dev, self.dev_target = scores(400, seed=3)
        self.eval, self.eval_target = scores(400, seed=4)
        order = generator(1, "order").permutation(400)
        self.a = write(folder / "a.txt", self.eval[0], "e")
        self.b = write(folder / "b.txt", self.eval[1], "e", order)
        self.a_dev = write(folder / "a_dev.txt", self.dev[0], "d")
        self.b_dev = write(folder / "b_dev.txt", self.dev[1], "d", order)
        self.key = write_key(folder / "key.txt", self.eval_target, "e")
        self.dev_key = write_key(folder / "dev_key.txt", self.dev_target, "d")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files_are_joined_by_trial_not_by_line(files: Files) -> None:
    fused = fuse_files([files.a, files.b], weights=[3, 1])
    np.testing.assert_allclose(
        fused.table.scores, 0.75 * files.eval[0] + 0.25 * files.eval[1], atol=1e-5
    )
    report = metrics_from_files(fused.table, files.key)
    expected = eer_of(fused.table.scores, files.eval_target)
    assert report.to_dict()["metrics"]["eer"]["value"] == pytest.approx(expected)


def test_a_fusion_is_learned_on_development_files(files: Files) -> None:
    fused = learned(files)
    expected = fit_fusion(files.dev, trials(files.dev_target))
    np.testing.assert_allclose(fused.fusion.weights, expected.weights, rtol=1e-4)
    np.testing.assert_allclose(fused.table.scores, expected(files.eval), rtol=1e-3, atol=1e-3)


def test_the_measured_trials_cannot_teach(files: Files) -> None:
    with pytest.raises(DataError, match=r"400 trials of .* are among the development") as caught:
        fuse_files(
            [files.a, files.b],
            "logistic",
            development=[files.a, files.b],
            development_key=files.key,
        )
    assert caught.value.rule == "P6"


def test_a_measured_pair_in_the_other_order_cannot_teach(files: Files) -> None:
    key = files.dev_key.read_text().splitlines()
    files.dev_key.write_text("\n".join([*key, "1 e1 e0"]) + "\n")
    for path in (files.a_dev, files.b_dev):
        path.write_text(path.read_text() + "e1 e0 2.0\n")
    with pytest.raises(DataError, match=r"1 trials of .* are among the development trials: e1 e0"):
        learned(files)


def test_shared_clips_are_told(files: Files) -> None:
    key = files.dev_key.read_text()
    assert not any("clips are in" in remark for remark in learned(files).remarks)
    files.dev_key.write_text(key + "1 e0 e7\n")
    for path in (files.a_dev, files.b_dev):
        path.write_text(path.read_text() + "e0 e7 2.0\n")
    assert "2 clips are in the development trials too" in learned(files).remarks


def test_labels_in_development_scores_must_agree_with_their_key(files: Files) -> None:
    lines = files.b_dev.read_text().splitlines()
    words = ["target" if target else "nontarget" for target in files.dev_target]
    words[0] = "nontarget"
    kinds = {f"d{i}": word for i, word in enumerate(words)}
    labelled = [f"{a} {b} {score} {kinds[a]}" for a, b, score in map(str.split, lines)]
    files.b_dev.write_text("\n".join(labelled) + "\n")
    with pytest.raises(ResultError, match=r"1 labels in .*b_dev\.txt contradict the key: d0 d1"):
        learned(files)


def learned(files: Files) -> FusedScores:
    return fuse_files(
        [files.a, files.b],
        "logistic",
        development=[files.a_dev, files.b_dev],
        development_key=files.dev_key,
    )


def test_files_that_do_not_belong_together_are_refused(files: Files, tmp_path: Path) -> None:
    short = write(tmp_path / "short.txt", files.eval[1][:-1], "e")
    with pytest.raises(ResultError, match="hold different trials: e398 e399, e399 e0, e398 e0"):
        fuse_files([files.a, short])
    for wrong, said in (
        ({"how": "logistic"}, "with 0 development score files"),
        ({"how": "mean", "development": [files.a_dev, files.b_dev]}, "a mean learns nothing"),
        ({"how": "logistic", "development": [files.a_dev]}, "1 development score files for 2"),
        (
            {"how": "standardised", "weights": [1, 1], "development": [files.a_dev, files.b_dev]},
            "has its own",
        ),
        ({"how": "best"}, "no fusion 'best'"),
    ):
        with pytest.raises(ConfigError, match=said):
            fuse_files([files.a, files.b], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one score file"):
        fuse_files([files.a])
    with pytest.raises(ResultError, match="without labels"):
        fuse_files([files.a, files.b], "logistic", development=[files.a_dev, files.b_dev])
