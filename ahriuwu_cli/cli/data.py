"""`ahriuwu data ...`: record episodes or import them, look at them, measure their lag, split them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import AsJson, Overrides
from ahriuwu_cli.cli.output import render
from ahriuwu_cli.core.errors import EXIT_CHECK

app = typer.Typer(help="Record play as episodes, or import it; look at a store, merge stores, split one.")

MaybeConfig = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The run's config.", show_default="run.toml"),
]
Seed = Annotated[int | None, typer.Option(help="run.seed: seed of every random choice.")]


@app.command()
def record(
    config: MaybeConfig = None,
    overrides: Overrides = None,
    env: Annotated[str | None, typer.Option(help="data.env: Gymnasium environment id.")] = None,
    episodes: Annotated[int | None, typer.Option(help="data.episodes: how many.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="data.policy: random, noisy-expert, auto, or an agent's checkpoint.")
    ] = None,
    noise: Annotated[float | None, typer.Option(help="data.noise: share of random actions of noisy-expert.")] = None,
    seed: Seed = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the store that is there.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the store, instead of `episodes` beside run.toml.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a Gymnasium environment and keep the episodes, each as soon as it ends.

    Without a run.toml, --env and --out are enough: all else is as in the preset tiny, but that the
    policy is random where the environment offers no expert. Exits with 3 when an episode was skipped
    because its values cannot be used.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_data_run

    flags = {"env": env, "episodes": episodes, "policy": policy, "noise": noise}
    values = as_overrides({f"data.{name}": value for name, value in flags.items()} | {"run.seed": seed})
    run = load_data_run(config, [*(overrides or ()), *values], out, preset=env is not None)

    from ahriuwu_cli.pipeline import stages

    report = stages.record(run, append=append)
    render(report, as_json)
    if report.data.get("skipped"):
        raise typer.Exit(EXIT_CHECK)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Kind of recordings, or auto.")],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="Folder or file; data.source.path by default.")
    ] = None,
    config: MaybeConfig = None,
    overrides: Overrides = None,
    mapping: Annotated[
        str | None, typer.Option("--map", metavar="FILE", help="data.source.mapping: what columns and keys are.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="data.fps: frames per second of the run.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="data.height and data.width.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="data.source.options.KEY; several may be given.")
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the store, instead of `episodes` beside run.toml.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import recordings as episodes. The same command again adds what is missing.

    Without a run.toml, SOURCE and --out are enough: all else is as in the preset tiny. Exits with 3
    when a recording was left out because something is wrong with it.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_data_run, size_overrides

    flags = {"kind": kind, "path": None if source is None else str(source), "mapping": mapping}
    values = ["data.env="] if config is None and not Path("run.toml").exists() else []
    values += as_overrides({f"data.source.{name}": value for name, value in flags.items()})
    values += as_overrides({"data.fps": fps, "run.seed": seed}) + size_overrides(size)
    values += [f"data.source.options.{item}" for item in option or ()]
    run = load_data_run(config, [*values, *(overrides or ())], out, preset=True)

    from ahriuwu_cli.pipeline import stages

    report = stages.import_recordings(run)
    render(report, as_json)
    if report.data["import"]["defects"]:
        raise typer.Exit(EXIT_CHECK)


@app.command()
def merge(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE STORE...", help="Folders of episode stores.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for all of them.")],
    as_json: AsJson = False,
) -> None:
    """Put stores together as one, which appears whole or not at all; frames are copied bit for bit.

    Actions come together by the names of their components. An episode whose store lacks one of them
    is unlabelled: an action is known as a whole or not at all. The split is drawn anew, and
    recordings stay on one side of it.
    """
    from ahriuwu_cli.sources.merge import merge as merge_stores

    render(merge_stores(stores, out), as_json)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of an episode store.")],
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it as one picture into this PNG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an episode store holds: hours, actions, rewards, lengths, and episodes that look odd.

    All actions and rewards are counted; of the frames of each episode eight are looked at.
    """
    from ahriuwu_cli.sources import summary

    render(summary.info(path, png), as_json)


@app.command()
def lag(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of an episode store.")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Write what was measured into data.source.lag of the config.")
    ] = False,
    config: Annotated[Path, typer.Option("--config", "-c", help="The config that --apply writes into.")] = Path(
        "run.toml"
    ),
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it as a picture into this PNG file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn, of the fit and of the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how many steps actions are noted before or after they are taken.

    A small network guesses from two frames that follow on each other which action was noted 10 steps
    before to 10 steps after the first: it guesses best where the actions belong. Takes about a minute.
    Exits with 3 when --apply has nothing to write because it cannot be told.
    """
    from ahriuwu_cli.sources.lag import measure

    report = measure.lag(store, config if apply else None, png, seed)
    render(report, as_json)
    if apply and report.data["applied"] is None:
        raise typer.Exit(EXIT_CHECK)


@app.command()
def view(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of an episode store.")],
    episodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EPISODE]...", help="Ids of episodes; without any, some of the whole store."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the pictures; by default STORE-view beside the store."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many episodes, where none is named.")] = 6,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Only those in train, or in heldout.")] = None,
    start: Annotated[int, typer.Option(help="First frame shown of each episode.")] = 0,
    steps: Annotated[int, typer.Option(help="How many steps are shown from there, at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Draw episodes: a contact sheet, and a clip of each with actions, rewards and events written on it.

    At each frame stand the action that was taken on seeing it, and the reward and events that arrived
    with it: labels that are shifted against the frames are seen by eye.
    """
    from ahriuwu_cli.sources import viewing

    report = viewing.view(store, episodes or (), out, count=count, split=split, start=start, steps=steps)
    render(report, as_json)


@app.command()
def split(
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", help="Folder of an episode store.")] = None,
    config: MaybeConfig = None,
    overrides: Overrides = None,
    heldout_fraction: Annotated[
        float | None, typer.Option(help="data.heldout_fraction: share of whole episodes held out.")
    ] = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Draw the train / held-out split of a store anew, by whole episodes.

    PATH is the run's own store unless given. With a PATH and without a run.toml, all else is as in
    the preset tiny.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_data_run

    values = as_overrides({"data.heldout_fraction": heldout_fraction, "run.seed": seed})
    run = load_data_run(config, [*(overrides or ()), *values], path, preset=True)

    from ahriuwu_cli.pipeline import stages

    render(stages.split(run), as_json)
