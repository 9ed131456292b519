"""``glottis train RECIPE``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from glottis.cli._output import JSON_OPTION, print_json, require_folder

app = typer.Typer(rich_markup_mode=None, add_completion=False)

NEWEST = "newest"


class TrainCommand(TyperCommand):
    """Knows that the value of ``--resume`` may be left out; the parser of options does not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """A word after ``--resume`` is its value unless it is an option, an override or a file."""
        self._refuse_foreign(args)
        words: list[str] = []
        for word, following in zip(args, [*args[1:], "-"], strict=False):
            words.append(word)
            other = following.startswith("-") or "=" in following or Path(following).is_file()
            if word == "--resume" and other:
                words.append(NEWEST)
        return super().parse_args(ctx, words)

    def _refuse_foreign(self, args: list[str]) -> None:
        """Options of other trainers are settings of the recipe here, or nothing."""
        known = {option for parameter in self.params for option in parameter.opts} | {"--help"}
        strangers = [w for w in args if w.startswith("--") and w.partition("=")[0] not in known]
        for word in strangers:
            from glottis.errors import ConfigError
            from glottis.train.foreign import option_hint

            told = option_hint(word)
            if told:
                raise ConfigError(
                    f"there is no option '{word.partition('=')[0]}'; {told}",
                    why="settings are keys of the recipe, so that the run folder holds all of them",
                    fix="glottis train RECIPE key=value; docs/migrating.md has the keys of others",
                )


@app.command(cls=TrainCommand)
def train(
    recipe: Path = typer.Argument(
        ..., metavar="RECIPE", help="YAML recipe; see 'glottis recipes'."
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Changes of the recipe, checked like it."
    ),
    out: Path = typer.Option(None, "--out", metavar="DIR", help="Run folder; default runs/RECIPE."),
    resume: str = typer.Option(
        None,
        "--resume",
        metavar="[CHECKPOINT]",
        help="Continue the run in the folder, after its newest checkpoint or after this one.",
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Train a recipe.  Kill it at any moment: --resume continues bit for bit.

    \b
    Example: glottis train recipes/speech_resnetse34l.yaml optim.rate=5e-4 --out runs/first
    """
    from glottis.train import load_recipe, train_recipe

    folder = out if out is not None else Path("runs") / recipe.stem
    require_folder(folder)
    loaded = load_recipe(recipe, overrides or [])
    checkpoint = None if resume in (None, NEWEST) else Path(resume)
    result = train_recipe(loaded, folder, resume=resume is not None, checkpoint=checkpoint)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes one speaks
    if as_json:
        print_json(result)
        return
    typer.echo(f"finished: {folder} after {result['steps']} steps in {result['seconds']:.0f} s")
    if result["best_step"] is not None:
        shown = _number(result["select"], result["best_development"])
        typer.echo(f"best: step {result['best_step']}, development {shown}")
    if result["average"] is not None:
        shown = _number(result["select"], result["average"]["development"])
        steps = ", ".join(map(str, result["average"]["averaged_steps"]))
        typer.echo(f"average of steps {steps}: development {shown}")
    if result["quarantined"]:
        typer.echo(f"{result['quarantined']} broken files were left out (quarantine.jsonl)")
    typer.echo(f"checkpoint: {result['checkpoint']}")


def _number(select: str, value: float) -> str:
    """``EER 4.58 %``, ``minDCF(0.01) 0.3120``."""
    from glottis.score.results import LABELS, is_rate

    return f"{LABELS[select]} " + (f"{100 * value:.2f} %" if is_rate(select) else f"{value:.4f}")
