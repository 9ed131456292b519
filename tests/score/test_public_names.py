from __future__ import annotations

import glottis.score


def test_all_public_names_exist_and_are_sorted() -> None:
    names = glottis.score.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    assert all(getattr(glottis.score, name) is not None for name in names)
    assert callable(glottis.score.eer)
