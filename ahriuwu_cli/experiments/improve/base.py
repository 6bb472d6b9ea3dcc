"""The base run's artifacts, brought into the folder of the improvement: linked or copied, never changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ahriuwu_cli.core.files import write_text
from ahriuwu_cli.experiments.improve.plan import Plan
from ahriuwu_cli.experiments.plans import say
from ahriuwu_cli.pipeline.config import CONFIG_NAME
from ahriuwu_cli.pipeline.template import render_config

KINDS = ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination")


def bring_base(plan: Plan) -> None:
    """Bring what the base run has and the improvement lacks; round 0 makes the rest.

    A folder appears whole or not at all, so that what was interrupted is brought again.
    """
    first = plan.rounds[0].run
    for kind in KINDS:
        source, target = (_folder(getattr(run, kind)) for run in (plan.base, first))
        if target.exists() or not source.is_dir():
            continue
        say(f"bringing {source}")
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, partial, copy_function=_take, ignore=shutil.ignore_patterns(".*"))
        partial.rename(target)


def write_config(plan: Plan) -> None:
    """Write the config of round 0 as run.toml, so that other commands know the folder as a run."""
    run = plan.rounds[0].run
    path, text = run.folder / CONFIG_NAME, render_config(run.config)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _folder(artifact: Path) -> Path:
    return artifact.parent if artifact.suffix else artifact


def _take(source: str, target: str) -> str:
    """Link a safetensors file, which is only ever replaced as a whole; copy any other, and where links cannot be."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
        except OSError:
            pass  # another disk, or one without links
        else:
            return target
    return str(shutil.copy2(source, target))
