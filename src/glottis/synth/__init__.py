"""Synthetic talkers and spoofed versions of them: data for the demo and for tests, made offline."""

from glottis.synth.clips import SynthConfig, tiny_config
from glottis.synth.corpus import SynthCorpus, generate
from glottis.synth.spoofs import ATTACKS

__all__ = ["ATTACKS", "SynthConfig", "SynthCorpus", "generate", "tiny_config"]
