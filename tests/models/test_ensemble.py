"""Ensembles: joined embeddings are the means of cosines, averaged scores those of the members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional

from glottis.errors import ToolkitError
from glottis.models import (
    Ensemble,
    build_model,
    combine_embeddings,
    create_model,
    load_ensemble,
    save_model,
)
from glottis.rng import generator

SMALL = {"channels": [4, 4], "graph_sizes": [4, 4], "num_filters": 12, "kernel_size": 33}


def noise(*shape: int) -> Tensor:
    rng = generator(1, "ensemble", *shape)
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * 0.1)


def speakers(sizes: tuple[int, ...] = (8, 12)) -> list:
    return [
        create_model("resnetse34l", seed=i, embedding_size=size).eval()
        for i, size in enumerate(sizes)
    ]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], noise(9000 + 700 * number).numpy(), 16000)
    return paths


@pytest.mark.parametrize("weights", [None, (3.0, 1.0)])
def test_the_cosine_of_joined_embeddings_is_the_mean_of_cosines(
    weights: tuple[float, float] | None,
) -> None:
    first, second = noise(4, 6), 50 * noise(4, 9)
    joined = combine_embeddings([first, second], "concat", weights)
    assert joined.shape == (4, 15)
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(4))
    share = 0.5 if weights is None else 0.75
    cosines = [
        functional.normalize(item, dim=1) @ functional.normalize(item, dim=1).T
        for item in (first, second)
    ]
    torch.testing.assert_close(joined @ joined.T, share * cosines[0] + (1 - share) * cosines[1])


def test_a_mean_of_unit_embeddings_has_unit_length() -> None:
    first, second = noise(4, 6), 50 * noise(4, 6).flip(0)
    mean = combine_embeddings([first, second], "mean")
    sum_of_units = functional.normalize(first, dim=1) + functional.normalize(second, dim=1)
    torch.testing.assert_close(mean, functional.normalize(sum_of_units, dim=1))


def test_an_ensemble_of_folders_embeds_files(files: list[Path], tmp_path: Path) -> None:
    members = speakers()
    for number, member in enumerate(members):
        save_model(member, tmp_path / str(number))
    ensemble = load_ensemble([tmp_path / "0", tmp_path / "1"])
    assert ensemble.embedding_size == 20
    assert not ensemble.training
    embeddings = ensemble.embed(files)
    expected = combine_embeddings([member.embed(files) for member in members])
    torch.testing.assert_close(embeddings, expected)
    scores = [member.verify(files[0], files[1]).score for member in members]
    assert ensemble.verify(files[0], files[1]).score == pytest.approx(np.mean(scores), abs=1e-5)
    wave = noise(2, 8000)
    with torch.inference_mode():
        torch.testing.assert_close(
            ensemble(wave), combine_embeddings([member(wave) for member in members])
        )


def test_countermeasures_are_averaged(files: list[Path]) -> None:
    members = [create_model("aasist_l", seed=i, **SMALL).eval() for i in range(2)]
    ensemble = Ensemble(members, weights=(1, 3)).eval()
    found, each = ensemble.detect(files[0]), [member.detect(files[0]) for member in members]
    assert found.score == pytest.approx(0.25 * each[0].score + 0.75 * each[1].score)
    assert found.probability == pytest.approx(
        0.25 * each[0].probability + 0.75 * each[1].probability
    )
    assert found.segment_scores == pytest.approx([found.score])
    wave = noise(2, 8000)
    with torch.inference_mode():
        output, outputs = ensemble(wave), [member(wave) for member in members]
    torch.testing.assert_close(output.logits, 0.25 * outputs[0].logits + 0.75 * outputs[1].logits)
    assert output.embedding.shape == (2, ensemble.embedding_size) == (2, 40)


def test_members_that_do_not_fit_are_refused() -> None:
    members = speakers()
    spoof = create_model("aasist_l", seed=1, **SMALL)
    cosine = build_model(spoof.config, seed=1, classifier="cosine")
    slow = create_model("resnetse34l", seed=1, features={"sample_rate": 8000, "high_hz": 4000.0})
    for make, said in (
        (lambda: Ensemble([]), "no models"),
        (lambda: Ensemble([*members, spoof]), "differ in task: speaker, spoof"),
        (lambda: Ensemble([*members, slow]), "differ in sample_rate: 16000, 8000"),
        (lambda: Ensemble([spoof, cosine]), "differ in their classifiers: linear, cosine"),
        (lambda: Ensemble(members, "mean"), "with 8, 12 values"),
        (lambda: Ensemble(members, "sum"), "cannot be combined by 'sum'"),  # type: ignore[arg-type]
        (lambda: Ensemble(members, weights=(1, 2, 3)), "for 2 models"),
        (lambda: Ensemble(members, weights=(1, -1)), "for 2 models"),
        (lambda: Ensemble([spoof]).embed([]), "the members are spoof models"),
        (lambda: Ensemble(members).detect("x.wav"), "the members are speaker models"),
    ):
        with pytest.raises(ToolkitError, match=said):
            make()
