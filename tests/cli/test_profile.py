"""``glottis profile``: a trace that a browser opens, and the heaviest operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.cli import glottis, succeeds

STEPS = ("--wait", "1", "--warmup", "1", "--active", "1")


def test_a_profile_is_a_trace_and_a_table_of_operators(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "profile"
    found = succeeds(
        "profile", bench.spoof_recipe, "batch.size=4", *STEPS, "--out", out, "--json"
    ).json
    trace = json.loads((out / "trace.json").read_text())
    assert found["trace"] == str(out / "trace.json")
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::convolution_backward" in names
    events = [e for e in trace["traceEvents"] if str(e.get("name")).startswith("aten::conv")]
    assert any("Input Dims" in event.get("args", {}) for event in events)
    assert any(event.get("cat") == "python_function" for event in trace["traceEvents"])
    assert 0 < len(found["operators"]) <= 20
    times = [operator["self_ms"] for operator in found["operators"]]
    assert times == sorted(times, reverse=True)
    assert [o["name"] for o in found["operators"] if "(" in o["name"]] == []  # Python calls
    assert any(operator["name"].startswith("aten::") for operator in found["operators"])
    assert 0 <= found["data_share"] <= 1
    assert [path.name for path in out.iterdir()] == ["trace.json"]


def test_the_table_names_the_units(bench: Any, tmp_path: Path) -> None:
    lines = succeeds(
        "profile", bench.speaker_recipe, "batch.size=4", *STEPS, "--out", tmp_path
    ).out.splitlines()
    assert lines[0].split("  ")[0] == "operator"
    for header in ("calls", "self ms", "share %", "input shapes"):
        assert header in lines[0]
    assert " ms per step, waiting for data " in lines[-2]
    assert lines[-1] == f"trace: {tmp_path / 'trace.json'}"


def test_a_wrong_recipe_leaves_no_trace(bench: Any, tmp_path: Path) -> None:
    for words in (["/no/such.yaml"], [bench.spoof_recipe, "optim.rat=3"]):
        outcome = glottis("profile", *words, "--out", tmp_path / "profile")
        assert (outcome.code, outcome.out) == (2, "")
    outcome = glottis("profile", bench.spoof_recipe, "data.manifest=/no.csv", "--out", tmp_path)
    assert outcome.code == 2
    assert list(tmp_path.rglob("*")) == []
