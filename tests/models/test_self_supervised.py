"""Self-supervised front ends: layers, normalisation, what is trained, where weights come from.

Shapes: B batch, S samples, T frames, C size of a layer, L layers.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glottis.config import to_tree
from glottis.errors import ConfigError, ModelError, ToolkitError
from glottis.models import create_model, load_model, save_model
from glottis.models.parts.self_supervised import Backbone, EncoderConfig, LayerSum, StackedFbank
from glottis.rng import generator
from helpers.tiny_ssl import KINDS, architecture, needs_ssl, published

pytestmark = needs_ssl
every_kind = pytest.mark.parametrize("kind", KINDS)


def noise(batch: int = 2, samples: int = 4000) -> Tensor:
    rng = generator(3, "ssl", samples)
    return torch.from_numpy(rng.standard_normal((batch, samples)).astype(np.float32) * 0.1 + 0.02)


def backbone(kind: str, **options: Any) -> Backbone:
    changes = {} if "weights" in options else {"architecture": architecture(kind)}
    torch.manual_seed(1)
    return Backbone(EncoderConfig(kind=kind, **{**changes, **options}))


def mhfa(**encoder: Any) -> Any:
    return create_model("ssl_mhfa", seed=1, encoder=encoder, heads=4, compressed_size=8)


# ------------------------------------------------------------------------- what is computed


@every_kind
def test_the_states_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    network = published(kind, tmp_path)
    made = backbone(kind, weights=str(tmp_path)).eval()
    wave = noise()
    with torch.no_grad():
        output = network(made._input(wave), output_hidden_states=True)
        states = made(wave)
    assert len(states) == made.num_states == len(output.hidden_states) == 3
    for state, expected in zip(states[:-1], output.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=0)
    torch.testing.assert_close(states[-1], output.last_hidden_state, rtol=0, atol=0)


def test_the_last_state_stands_behind_the_closing_norm() -> None:
    made = backbone("wavlm", architecture=architecture("wavlm", do_stable_layer_norm=True))
    norm = made.network.encoder.layer_norm
    with torch.no_grad():
        norm.bias.fill_(5.0)
        shifted = made.eval()(noise())[-1].mean()
    assert float(shifted) == pytest.approx(5.0, abs=1e-4)


def test_the_sum_over_layers_is_a_weighted_mean() -> None:
    states = [noise(2, 12).view(2, 3, 4) + layer for layer in range(3)]
    layers = LayerSum(3)
    torch.testing.assert_close(layers(states), torch.stack(states).mean(dim=0))
    with torch.no_grad():
        layers.weight.copy_(torch.tensor([0.0, 1.0, -2.0]))
    shares = np.exp([0.0, 1.0, -2.0]) / np.exp([0.0, 1.0, -2.0]).sum()
    expected = sum(float(share) * state for share, state in zip(shares, states, strict=True))
    torch.testing.assert_close(layers(states), expected)


def test_clips_are_normalised_as_the_published_extractor_does() -> None:
    import transformers

    wave = noise()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    expected = extractor(list(wave.numpy()), sampling_rate=16000, return_tensors="pt").input_values
    torch.testing.assert_close(backbone("hubert")._input(wave), expected, rtol=1e-5, atol=1e-5)
    assert backbone("hubert", normalise=False)._input(wave) is wave


@pytest.mark.parametrize("samples", [4000, 4160])  # an even and an odd number of frames
def test_the_stacked_filterbank_is_that_of_the_library(samples: int) -> None:
    import transformers

    wave = noise(3, samples)
    made = transformers.SeamlessM4TFeatureExtractor()(
        list(wave.numpy()), sampling_rate=16000, return_tensors="pt"
    )
    valid = int(made.attention_mask[0].sum())
    features = StackedFbank(normalise=True)(wave)
    assert features.shape == (3, valid, 160)
    expected = made.input_features[:, :valid].float()
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


@every_kind
def test_so_many_samples_give_so_many_frames(kind: str) -> None:
    made = backbone(kind).eval()
    for frames in (1, 2, 5):
        needed = made.samples(frames)
        with torch.no_grad():
            assert made(noise(1, needed))[0].shape[1] == frames
            if frames > 1:
                assert made(noise(1, needed - 1))[0].shape[1] == frames - 1


@every_kind
def test_training_everything_drops_no_layer_and_masks_no_frame(kind: str) -> None:
    """Layer drop 0.1 and masking are the library's defaults; only dropout may act."""
    sizes = architecture(
        kind, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
    ) | ({"conformer_conv_dropout": 0.0} if kind == "w2v_bert" else {})
    made = backbone(kind, architecture={**sizes, "num_hidden_layers": 6}, trainable="full")
    wave = noise()
    with torch.no_grad():
        expected = made.eval()(wave)[-1]
        made.train()
        for _ in range(8):
            torch.testing.assert_close(made(wave)[-1], expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------- what is trained


def step(model: Any, wave: Tensor) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    model.train()
    optimiser.zero_grad()
    model(wave).square().mean().backward()
    optimiser.step()


@every_kind
def test_frozen_means_frozen(kind: str) -> None:
    model = mhfa(kind=kind, architecture=architecture(kind, hidden_dropout=0.5))
    before = copy.deepcopy(model.network.backbone.state_dict())
    model.train()
    assert not any(module.training for module in model.network.backbone.network.modules())
    first, second = model(noise()), model(noise())
    assert torch.equal(first, second)
    assert not any(state.requires_grad for state in model.network.backbone(noise()))
    step(model, noise())
    for name, value in model.network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.network.pooling.key_layers.weight.grad is not None


def test_options_of_adapters_without_adapters_are_refused() -> None:
    with pytest.raises(ConfigError, match="'lora_rank' does nothing here: it acts only with"):
        mhfa(kind="hubert", lora_rank=4)


@every_kind
def test_lora_trains_the_adapters_and_nothing_else_of_the_network(kind: str) -> None:
    model = mhfa(kind=kind, trainable="lora", architecture=architecture(kind))
    network = model.network.backbone.network
    before = copy.deepcopy(network.state_dict())
    step(model, noise())
    step(model, noise())
    adapters = [name for name in before if "lora_" in name]
    assert len(adapters) in (8, 16)  # W2V-BERT has two feed-forward parts in a layer
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == ("lora_" not in name), name


def test_new_adapters_change_nothing() -> None:
    plain = backbone("wavlm").eval()
    adapted = backbone("wavlm", trainable="lora").eval()
    names = {name.replace(".base_layer", ""): name for name in adapted.network.state_dict()}
    state = {names[name]: value for name, value in plain.network.state_dict().items()}
    adapted.network.load_state_dict(state, strict=False)
    for a, b in zip(adapted(noise()), plain(noise()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_adapters_that_would_train_nothing_are_refused() -> None:
    """WavLM's attention reads q_proj and v_proj without calling them."""
    with pytest.raises(ModelError, match="8 of 8 adapter weights receive no gradient") as caught:
        backbone("wavlm", trainable="lora", lora_targets=("q_proj", "v_proj"))
    assert "intermediate_dense" in caught.value.fix
    with pytest.raises(ModelError, match=r"8 of 12 .* in the layers q_proj, v_proj"):
        backbone("wavlm", trainable="lora", lora_targets=("q_proj", "v_proj", "output_dense"))


def test_without_the_refusal_they_do_train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "_require_gradients", lambda self: None)
    model = mhfa(
        kind="wavlm",
        trainable="lora",
        lora_targets=["q_proj", "v_proj"],
        architecture=architecture("wavlm"),
    )
    model(noise()).square().mean().backward()
    adapters = [p for name, p in model.named_parameters() if "lora_" in name]
    assert len(adapters) == 8
    assert all(p.requires_grad and p.grad is None for p in adapters)


def test_only_the_dropout_of_the_adapters_acts() -> None:
    sizes = architecture("hubert", hidden_dropout=0.5)
    quiet = backbone("hubert", trainable="lora", architecture=sizes).train()
    assert torch.equal(quiet(noise())[-1], quiet(noise())[-1])
    loud = backbone("hubert", trainable="lora", lora_dropout=0.5, architecture=sizes).train()
    for name, parameter in loud.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not torch.equal(loud(noise())[-1], loud(noise())[-1])
    loud.eval()
    assert torch.equal(loud(noise())[-1], loud(noise())[-1])


def test_a_layer_that_is_not_there_cannot_be_adapted() -> None:
    with pytest.raises(ConfigError, match="no linear layer called linear_q") as caught:
        backbone("hubert", trainable="lora", lora_targets=("linear_q",))
    assert "q_proj" in caught.value.fix


def test_recomputed_blocks_give_the_same_gradient() -> None:
    from glottis.train.runtime import _recompute

    sizes = architecture("wav2vec2", hidden_dropout=0.0, attention_dropout=0.0)
    sizes["activation_dropout"] = 0.0
    gradients = []
    for recomputed in (False, True):
        model = mhfa(kind="wav2vec2", trainable="full", architecture=sizes)
        if recomputed:
            _recompute(model.network)
        model.train()(noise()).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------- weights


@every_kind
def test_a_saved_model_needs_nothing_but_its_folder(kind: str, tmp_path: Path) -> None:
    published(kind, tmp_path / "published")
    model = mhfa(kind=kind, weights=str(tmp_path / "published"), trainable="lora").eval()
    assert model.config.encoder.weights == "stored"
    save_model(model, tmp_path / "ours")
    shutil.rmtree(tmp_path / "published")
    loaded = load_model(tmp_path / "ours")
    assert to_tree(loaded.config) == to_tree(model.config)
    with torch.inference_mode():
        assert torch.equal(loaded(noise()), model(noise()))


def test_a_card_names_every_size(tmp_path: Path) -> None:
    """Defaults of a later transformers must not change a model of today."""
    card = save_model(mhfa(kind="wavlm", architecture=architecture("wavlm")), tmp_path)
    sizes = card["config"]["encoder"]["architecture"]
    assert sizes["hidden_size"] == 32
    assert {"num_buckets", "layer_norm_eps", "conv_stride", "feat_extract_norm"} <= sizes.keys()
    assert not {"layerdrop", "mask_time_prob", "vocab_size"} & sizes.keys()


def test_weights_below_other_heads_are_found(tmp_path: Path) -> None:
    network = published("wav2vec2", tmp_path, head="ForPreTraining", codevector_dim=16)
    made = backbone("wav2vec2", weights=str(tmp_path)).eval()
    own = made.network.state_dict()
    theirs = network.wav2vec2.state_dict()
    assert set(theirs) - set(own) == {"masked_spec_embed"}
    assert all(torch.equal(value, theirs[name]) for name, value in own.items())


def test_weights_in_a_torch_file_are_read_as_plain_tensors(tmp_path: Path) -> None:
    network = published("hubert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    made = backbone("hubert", weights=str(tmp_path)).eval()
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_normalisation_is_read_from_the_published_file(tmp_path: Path) -> None:
    published("wavlm", tmp_path)
    assert backbone("wavlm", weights=str(tmp_path)).normalise
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_normalize": False}))
    assert not backbone("wavlm", weights=str(tmp_path)).normalise
    path.unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        backbone("wavlm", weights=str(tmp_path))
    assert backbone("wavlm", weights=str(tmp_path), normalise=True).normalise


def refused(**options: Any) -> ToolkitError:
    with pytest.raises(ToolkitError) as caught:
        mhfa(**options)
    return caught.value


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    network = published("hubert", tmp_path)
    error = refused(kind="wavlm", weights=str(tmp_path))
    assert "of the type 'hubert', not 'wavlm'" in error.seen
    assert error.fix == "set encoder.kind=hubert"
    error = refused(kind="hubert", weights=str(tmp_path), architecture={"hidden_size": 32})
    assert "both" in error.seen
    state = network.state_dict()
    del state["encoder.layers.1.final_layer_norm.bias"]
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    error = refused(kind="hubert", weights=str(tmp_path))
    assert "lacks 1 tensors: encoder.layers.1.final_layer_norm.bias" in error.seen
    (tmp_path / "pytorch_model.bin").unlink()
    assert "pytorch_model.bin" in refused(kind="hubert", weights=str(tmp_path)).fix


def test_wrong_sizes_are_refused() -> None:
    assert "did you mean 'hidden_size'" in refused(architecture={"hiden_size": 32}).fix
    assert "hidden_size" in refused(architecture={"hidden_size": "32"}).seen
    sizes = architecture("wavlm", num_attention_heads=3)
    assert "divisible" in refused(architecture=sizes).seen
    sizes = architecture("w2v_bert", feature_projection_input_dim=80)
    assert "80 values per frame" in refused(kind="w2v_bert", architecture=sizes).seen


def test_nothing_is_downloaded_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def fetch(name: str, file: str, *, revision: str, local_files_only: bool) -> str:
        asked.append((file, revision, local_files_only))
        raise huggingface_hub.errors.LocalEntryNotFoundError("no such file here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    error = refused(weights="microsoft/wavlm-base-plus")
    assert "not on this machine" in error.seen
    assert "encoder.download=true" in error.fix
    assert asked == [("config.json", "main", True)]
    error = refused(weights="microsoft/wavlm-base-plus", download=True, revision="abc")
    assert "cannot be downloaded" in error.seen
    assert asked[1:] == [("config.json", "abc", False)]
    assert "no folder" in refused(weights=str(tmp_path / "missing")).seen


def test_a_published_name_is_loaded_from_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    network = published("wavlm", tmp_path)

    def fetch(name: str, file: str, **_: Any) -> str:
        if not (tmp_path / file).is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    made = backbone("wavlm", weights="microsoft/wavlm-base-plus")
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    assert torch.equal(made.network.state_dict()[name], network.state_dict()[name])
    (tmp_path / "model.safetensors").unlink()
    assert "not on this machine" in refused(weights="microsoft/wavlm-base-plus").seen


def test_without_the_extra_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = architecture("wavlm")
    monkeypatch.setitem(sys.modules, "peft", None)
    error = refused(trainable="lora", architecture=sizes)
    assert "'peft'" in error.seen
    assert "glottis[ssl]" in error.fix
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "'transformers'" in refused(architecture=sizes).seen


def test_the_list_of_models_does_not_import_the_extra() -> None:
    script = (
        "from glottis.models import MODELS; import sys; "
        "assert 'ssl_mhfa' in MODELS.names(); "
        "assert not {'transformers', 'peft', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
