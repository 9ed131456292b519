"""AASIST and AASIST-L against the published weights and the published code's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from glottis.models import SpoofModel, import_weights
from glottis.models.inference import fit
from helpers import golden

CASES = [("aasist", "AASIST", 297_866), ("aasist_l", "AASIST-L", 85_306)]
NAMES = [(arch, file) for arch, file, _ in CASES]


def load(shared: Path, arch: str, file: str) -> SpoofModel:
    model = import_weights(arch, shared / "golden" / f"{file}_weights.safetensors")
    assert isinstance(model, SpoofModel)
    return model


def training_loss(logits: Tensor, labels: Tensor) -> Tensor:
    weight = torch.tensor([0.1, 0.9], dtype=logits.dtype)
    return functional.cross_entropy(logits, labels, weight=weight)


@pytest.mark.parametrize(("arch", "file", "count"), CASES)
def test_outputs_equal_the_original(shared: Path, arch: str, file: str, count: int) -> None:
    vectors = golden.read(shared, f"{file}_io")
    model = load(shared, arch, file).eval()
    assert model.num_parameters == count
    with torch.inference_mode():
        together = model(vectors["input.wave"])
        alone = torch.cat([model(wave[None]).logits for wave in vectors["input.wave"]])
    assert golden.relative_error(together.logits, vectors["eval.logits"]) < golden.OUTPUT
    assert golden.relative_error(together.embedding, vectors["eval.last_hidden"]) < golden.OUTPUT
    assert golden.relative_error(alone, vectors["eval.logits_b1"]) < golden.OUTPUT


@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_a_short_clip_is_tiled_like_the_original(shared: Path, arch: str, file: str) -> None:
    vectors = golden.read(shared, f"{file}_io")
    model = load(shared, arch, file).eval()
    clip = vectors["input.short"].numpy()
    size = model.window.samples(len(clip), model)
    wave = torch.from_numpy(fit(clip, size))
    assert torch.equal(wave, vectors["input.wave"][2])


@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_inner_activations_equal_the_original(shared: Path, arch: str, file: str) -> None:
    vectors = golden.read(shared, f"{file}_io")
    network = load(shared, arch, file).eval().network
    seen: dict[str, Tensor] = {}
    parts = {
        "GAT_layer_S": network.spectral_attention,
        "GAT_layer_T": network.temporal_attention,
        "pool_S": network.spectral_pool,
        "pool_T": network.temporal_pool,
        "HtrgGAT_layer_ST11": network.branches[0].first,
        "HtrgGAT_layer_ST12": network.branches[0].second,
        "HtrgGAT_layer_ST21": network.branches[1].first,
        "HtrgGAT_layer_ST22": network.branches[1].second,
        "pool_hS1": network.branches[0].spectral_pool,
        "pool_hT2": network.branches[1].temporal_pool,
    }
    for name, part in parts.items():

        def keep(_module, _inputs, output, name=name):
            many = isinstance(output, tuple)
            seen.update(
                {f"{name}.{i}": x for i, x in enumerate(output)} if many else {name: output}
            )

        part.register_forward_hook(keep)
    with torch.inference_mode():
        network(vectors["input.wave"][1:2])
    assert len(seen) == 6 + 4 * 3
    for name, value in seen.items():
        reference = vectors[f"eval.act.{name}"][1:2]
        assert golden.relative_error(value, reference) < golden.OUTPUT, name


@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_a_training_step_equals_the_original(shared: Path, arch: str, file: str) -> None:
    vectors = golden.read(shared, f"{file}_io")
    model = golden.without_dropout(load(shared, arch, file)).train()
    output = model(vectors["input.wave"])
    loss = training_loss(output.logits, vectors["train.labels"])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(vectors["train.loss"]), rel=golden.LOSS)
    assert golden.relative_error(output.logits, vectors["train.logits"]) < golden.OUTPUT
    reference = golden.reference_norms(vectors, "train.gradnorm.")
    # float32 on both sides: ten times the noise; `test_gradients_in_float64` has the tight bound
    golden.assert_gradients_match(golden.gradient_norms(model.network), reference, noise=1e-4)
    gradients = {
        model.network.original_name(name): parameter.grad
        for name, parameter in model.network.named_parameters()
    }
    for name in ("out_layer.weight", "pos_S", "GAT_layer_T.att_proj.weight"):
        assert golden.relative_error(gradients[name], vectors[f"train.grad.{name}"]) < 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_gradients_in_float64_equal_the_original(shared: Path, arch: str, file: str) -> None:
    vectors = golden.read(shared, f"{file}_io")
    model = golden.without_dropout(load(shared, arch, file)).double().train()
    output = model(vectors["input.wave"].double())
    training_loss(output.logits, vectors["train.labels"]).backward()
    reference = golden.reference_norms(vectors, "train.gradnorm.")
    # the two scalars of first_bn, sums over the whole map, are off in the reference itself
    golden.assert_gradients_match(golden.gradient_norms(model.network), reference, noise=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_three_adam_steps_equal_the_original(shared: Path, arch: str, file: str) -> None:
    vectors = golden.read(shared, f"{file}_io")
    model = golden.without_dropout(load(shared, arch, file)).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trainable, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    losses = []
    for _ in range(3):
        adam.zero_grad()
        loss = training_loss(model(vectors["input.wave"]).logits, vectors["train.labels"])
        loss.backward()
        adam.step()
        losses.append(loss.detach())
    assert golden.relative_error(torch.stack(losses), vectors["adam3.losses"]) < golden.OUTPUT
    network = model.network
    ours = {network.original_name(name): value for name, value in network.state_dict().items()}
    # the vectors `train.after` hold the statistics after these three forward passes
    for name, reference in vectors.items():
        if name.startswith("train.after.") and ".bn1." not in name:
            found = ours[name.removeprefix("train.after.")]
            assert golden.relative_error(found, reference) < 1e-3, name
    for name, reference in vectors.items():
        # the norms of tensors without a real gradient are Adam's normalised rounding errors
        if name.startswith("adam3.norm.") and reference > 1e-2:
            found = float(ours[name.removeprefix("adam3.norm.")].norm())
            assert found == pytest.approx(float(reference), rel=1e-4), name
    with torch.inference_mode():
        logits = model.eval()(vectors["input.wave"]).logits
    assert golden.relative_error(logits, vectors["adam3.eval_logits"]) < 5e-3


@pytest.mark.parametrize(
    ("arch", "file", "first", "second"),
    [
        ("aasist", "AASIST", "encoder.3.0.conv2.weight", "encoder.4.0.conv2.weight"),
        ("aasist_l", "AASIST-L", "pool_hS1.proj.weight", "pool_hS2.proj.weight"),
    ],
)
def test_two_swapped_tensors_break_the_parity(
    shared: Path, tmp_path: Path, arch: str, file: str, first: str, second: str
) -> None:
    vectors = golden.read(shared, f"{file}_io")
    state = golden.swapped(golden.read(shared, f"{file}_weights"), first, second)
    model = import_weights(arch, golden.save_state(state, tmp_path / "swapped.safetensors")).eval()
    with torch.inference_mode():
        logits = model(vectors["input.wave"][1:2]).logits
    assert golden.relative_error(logits, vectors["eval.logits"][1:2]) > golden.OUTPUT


@pytest.mark.parametrize(("arch", "file"), NAMES)
def test_every_original_name_has_one_of_ours(shared: Path, arch: str, file: str) -> None:
    network = load(shared, arch, file).network
    table = (shared / "golden" / "state_dicts" / f"{file}.tsv").read_text().splitlines()[1:]
    original = [line.split("\t")[1] for line in table]
    assert sorted(network.original_name(name) for name in network.state_dict()) == sorted(original)
