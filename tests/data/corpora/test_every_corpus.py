"""What every corpus reader promises, whatever the corpus."""

from __future__ import annotations

import inspect
import sys

import pytest

from glottis.data.corpora import CORPORA, CorpusConfig, prepare
from glottis.errors import ConfigError, DataError

NAMES = CORPORA.names()
OPTIONS = {"table": {"file": "clips.csv"}}
CARD = ("licence", "layout")


def test_the_corpora_of_the_issue_are_there():
    assert set(NAMES) >= {
        "voxceleb1", "voxceleb2", "librispeech", "cnceleb", "asvspoof2019", "asvspoof2021",
        "asvspoof5", "inthewild", "fakeorreal", "scenefake", "spoofceleb", "mlaad", "folder",
        "table", "kaldi",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused_with_what_was_looked_for(plant, name):
    with pytest.raises(DataError) as caught:
        prepare(name, plant({}), **OPTIONS.get(name, {}))
    assert caught.value.fix


@pytest.mark.parametrize("name", [n for n in NAMES if n != "folder"])
def test_the_folder_of_another_corpus_is_refused_with_what_it_holds(plant, name):
    root = plant({"recordings/talk.wav": None})
    with pytest.raises(DataError, match="recordings"):
        prepare(name, root, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_does_not_exist_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="nowhere"):
        prepare(name, tmp_path / "nowhere", **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="stict"):
        prepare(name, tmp_path, **OPTIONS.get(name, {}), stict=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_card_states_layout_and_licence(name):
    entry = CORPORA[name]
    card = (inspect.getdoc(sys.modules[entry.module]) or "").lower()
    if name not in ("folder", "table", "kaldi"):
        assert all(word in card for word in CARD), card
    assert len(card) > 200
    assert issubclass(entry.config, CorpusConfig)
    assert entry.summary


def test_the_page_of_corpora_has_a_row_for_each(request):
    page = (request.config.rootpath / "docs" / "corpora.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(line.split("`")[1] for line in rows) == NAMES
