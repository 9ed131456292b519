"""Self-supervised networks small enough for a test, and what is needed to skip such tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

INSTALLED = find_spec("transformers") is not None and find_spec("peft") is not None
needs_ssl = pytest.mark.skipif(not INSTALLED, reason="needs the extra 'ssl'")

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
KINDS = ("wav2vec2", "hubert", "wavlm", "w2v_bert")
CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "w2v_bert": "Wav2Vec2Bert",
}


def architecture(kind: str, **changes: Any) -> dict[str, Any]:
    """Sizes of a tiny network."""
    own = {} if kind == "w2v_bert" else CONVOLUTIONS
    return {**TRANSFORMER, **own, **changes}


def published(kind: str, folder: Path, head: str = "Model", **changes: Any) -> Any:
    """A tiny network of transformers, written as its publishers do; returns the network."""
    import transformers

    config = getattr(transformers, f"{CLASSES[kind]}Config")(**architecture(kind, **changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = getattr(transformers, f"{CLASSES[kind]}{head}")(config)
    network.save_pretrained(folder)
    extractor: Any = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    if kind == "w2v_bert":
        extractor = transformers.SeamlessM4TFeatureExtractor()
    extractor.save_pretrained(folder)
    return network.eval()
