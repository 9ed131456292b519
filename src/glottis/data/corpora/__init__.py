"""Readers of published corpora: one file each, found by name.

prepared = prepare("librispeech", "/data/LibriSpeech")
prepared.manifest.write("librispeech.parquet")
"""

from glottis.data.corpora._prepared import CorpusConfig, Count, CountReport, Prepared
from glottis.data.corpora._registry import CORPORA, prepare, register_corpus

__all__ = [
    "CORPORA",
    "CorpusConfig",
    "Count",
    "CountReport",
    "Prepared",
    "prepare",
    "register_corpus",
]
