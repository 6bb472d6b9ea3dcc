"""`ahriuwu eval ...`: the dream against held-out truth, agents in the real game."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ahriuwu_cli.cli.options import RUN_TOML, AsJson, ConfigPath, Overrides
from ahriuwu_cli.cli.output import render

app = typer.Typer(help="Measure the dream and the agents.")


@app.command()
def rollout(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A dynamics, agent or imagination checkpoint instead of the run's dynamics.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="eval.sampling_steps: Euler steps per dreamed frame, K.")] = None,
    context: Annotated[
        int | None, typer.Option(help="eval.context_length: true frames before the dream starts.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="eval.horizon: dreamed frames.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results.", show_default="below the run's evaluation/"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Dream on from held-out contexts and compare with what really came.

    Truth, reconstruction, dream and persistence side by side as GIF, MP4 and stills; PSNR and SSIM for each step.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_run

    flags = {"eval.sampling_steps": steps, "eval.context_length": context, "eval.horizon": horizon}
    run = load_run(config, [*(overrides or ()), *as_overrides(flags)])

    from ahriuwu_cli.pipeline import stages

    render(stages.evaluate_rollout(run, checkpoint, out), as_json)


@app.command()
def offline(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    contexts: Annotated[int | None, typer.Option(help="eval.contexts: held-out contexts that are dreamed on.")] = None,
    horizon: Annotated[int | None, typer.Option(help="eval.horizon: imagined latents.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge agents where there is no game to play: by held-out recordings, and in a dream.

    How likely each finds the actions that were taken, and the return it comes to in the dream of the cloned agent's
    world, from the same held-out contexts with the same noise.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_run

    flags = {"eval.contexts": contexts, "eval.horizon": horizon}
    run = load_run(config, [*(overrides or ()), *as_overrides(flags)])

    from ahriuwu_cli.pipeline import stages

    render(stages.evaluate_offline(run), as_json)


@app.command()
def agent(
    config: ConfigPath = RUN_TOML,
    overrides: Overrides = None,
    agents: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Comma-separated names, of random, repeat-last, dataset, expert, scratch, bc, imagination, or paths "
            "of agent and imagination checkpoints (.safetensors).",
            show_default="all that the run has, but expert",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Task that agents of several tasks play.", show_default="their first"),
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="eval.episodes: paired episodes for each agent.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Play again what was played before with the same settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play seeded episodes in the real game and compare the agents' returns.

    Episodes that were played before with the same settings and agents are not played again: a call that was stopped,
    or of which an agent failed, goes on when it is run again.
    """
    from ahriuwu_cli.pipeline.config import as_overrides, load_run

    run = load_run(config, [*(overrides or ()), *as_overrides({"eval.episodes": episodes})])
    names = [name.strip() for name in agents.split(",") if name.strip()] if agents else None

    from ahriuwu_cli.evaluation.agents import require_all_played
    from ahriuwu_cli.pipeline import stages

    report = stages.evaluate_agent(run, names, task, overwrite=overwrite)
    render(report, as_json)
    require_all_played(report)
