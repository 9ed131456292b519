"""The front door: the list of verbs, their options as a public contract, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from glottis.cli.main import VERBS, app
from glottis.version import __version__
from helpers.cli import Outcome, glottis, succeeds

# verb -> its arguments and options: scripts of users rely on them.  A new option is added here;
# one that disappears or changes its name is a breaking change, for CHANGELOG.md.
CONTRACT = {
    "demo": "--json --out --quick --seed --workers",
    "prepare": "CORPUS SRC DST KEY=VALUE --dev --json --seed --test",
    "pack": "MANIFEST DST --budget --codec --json --root --sample-rate --workers",
    "train": "RECIPE KEY=VALUE --json --out --resume",
    "evaluate": "CHECKPOINT --by --combine --device --dim --json --manifest --out --pattern "
    "--protocol --root --scores --store --trials",
    "score-metrics": "SCORES --allow-extra --asv --calibrated --dev --dev-key --fuse --json "
    "--key --layout --speakers --subset --weights",
    "embed": "CHECKPOINT FILES --dim --json --out",
    "verify": "CHECKPOINT A B --dim --json",
    "identify": "CHECKPOINT FILES --dim --json --shortlist --store --top",
    "detect": "CHECKPOINT FILES --json",
    "models": "NAME --init --json --task",
    "losses": "NAME --json",
    "corpora": "NAME --json",
    "recipes": "--json",
    "runs": "DIR --json --watch",
    "inspect": "CHECKPOINT --json",
    "replay": "BUNDLE --json",
    "profile": "RECIPE KEY=VALUE --active --json --out --wait --warmup",
    "import-weights": "ARCH FILE DST KEY=VALUE --dims --format --json",
}


def signature(verb: str) -> str:
    """``RECIPE KEY=VALUE --json ...``: arguments in their order, options sorted."""
    group = get_command(app)
    command = group.get_command(None, verb)  # type: ignore[attr-defined]
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    options = [o for p in command.params if p.param_type_name == "option" for o in p.opts]
    return " ".join([*arguments, *sorted(o for o in options if o != "--help")])


def test_verbs_and_options_are_the_ones_users_rely_on() -> None:
    assert {verb: signature(verb) for verb in VERBS} == CONTRACT


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_overview_lists_every_verb(words: list[str]) -> None:
    outcome = succeeds(*words)
    listed = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ")]
    assert [word for word in listed if word in VERBS] == list(VERBS)
    assert outcome.err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_an_example_and_names_everything(verb: str) -> None:
    outcome = succeeds(verb, "--help")
    (example,) = [line.strip() for line in outcome.out.splitlines() if "Example:" in line]
    assert example.startswith(f"Example: glottis {verb}")
    for name in CONTRACT[verb].split():
        assert name in outcome.out
    assert "completion" not in outcome.out


def test_the_version_is_printed() -> None:
    assert succeeds("--version").out == f"glottis {__version__}\n"


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


def test_an_unknown_verb_gets_the_nearest_one() -> None:
    refused(glottis("trian", "x.yaml"), "there is no verb 'trian'", "did you mean 'train'?")
    refused(glottis("qqq"), "there is no verb 'qqq'", "fix: 'glottis --help' lists them")


@pytest.mark.parametrize(
    "words",
    [
        ["--nope"],
        ["train", "x.yaml", "--ot", "y"],
        ["evaluate", "x", "--trails", "y"],
        ["train"],
        ["verify", "x", "a.wav"],
        ["verify", "x", "a.wav", "b.wav", "c.wav"],
        ["embed", "x", "a.wav"],
        ["profile", "x.yaml", "--out", "y", "--active", "many"],
        ["profile", "x.yaml", "--out", "y", "--active", "0"],
        ["profile", "x.yaml", "--out", "y", "--warmup", "0"],
        ["pack", "x.csv", "y", "--sample-rate", "10"],
        ["prepare", "folder", "x", "y", "--dev", "-1"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_exist_or_do_not_fit_are_wrong_requests(words: list[str]) -> None:
    refused(glottis(*words), "Usage: glottis", "Error: ")


def test_the_nearest_option_is_named() -> None:
    assert "--trials" in glottis("evaluate", "x", "--trails", "y").err


def test_a_full_disk_is_one_line_and_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device", "/data/x")

    monkeypatch.setattr("glottis.cli.listing.print_table", fails)
    outcome = glottis("models")
    assert (outcome.code, outcome.err) == (1, "glottis: /data/x: No space left on device\n")


def test_a_path_without_permission_is_one_line_and_a_wrong_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/x")

    monkeypatch.setattr("glottis.cli.listing.print_table", fails)
    refused(glottis("models"), "glottis: /root/x: Permission denied\n")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("glottis.cli.listing.print_table", fails)
    with pytest.raises(ZeroDivisionError):
        glottis("models")


def test_names_that_are_not_text_are_printed(tmp_path: Path) -> None:
    """In a process of its own: the streams are those of the system."""
    name = os.fsdecode(b"gr\xfc\xdfe.wav")
    done = subprocess.run(
        [sys.executable, "-m", "glottis", "pack", os.fsencode(tmp_path / name), "store"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("glottis: ")
