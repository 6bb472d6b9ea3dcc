"""The run's config: readable, servable by this machine, and still what the artifacts were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.artifact import Header, canonical
from ahriuwu_cli.core.device import resolve_runtime
from ahriuwu_cli.core.errors import ForeignError, InputError
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, first_few
from ahriuwu_cli.episodes.config import NOT_RECORDED
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.latents.config import NOT_CONTENT
from ahriuwu_cli.pipeline.config import CONFIG_NAME, RunConfig, load_run
from ahriuwu_cli.sources.game import is_open
from ahriuwu_cli.tokenizer.frozen import FrozenTokenizer
from ahriuwu_cli.tokenizer.perceptual import load_lpips
from ahriuwu_cli.tokenizer.registry import module_class

SECTIONS: dict[str, tuple[str, str | None, set[str]]] = {
    "episodes": ("data", "data", {"episodes", *NOT_RECORDED}),  # their number is no setting
    "tokenizer": ("tokenizer", None, set()),
    "latents": ("latents", None, {"shard_frames", *NOT_CONTENT}),
    "packed": ("latents", None, NOT_CONTENT),
    "dynamics": ("dynamics", None, set()),
    "agent": ("agent", "agent", set()),
    "imagination": ("imagine", "imagine", set()),
}
"""By kind: its section of run.toml, the key of `Header.config` it lies under, and keys that do not shape it."""


def examine_config(area: Area, folder: Path) -> RunConfig | None:
    """Read `run.toml` and check what it asks of this machine; None when it cannot be used."""
    config = None
    with area.guard(CONFIG_NAME):
        config = load_run(folder / CONFIG_NAME).config
        area.ok(CONFIG_NAME, f"valid; name {config.run.name}, seed {config.run.seed}")
    if config is None:
        return None
    with area.guard("device"):
        runtime = resolve_runtime(config.run)
        area.ok("device", f"{runtime.device}, precision {runtime.precision}")
    with area.guard("environment"):
        _examine_environment(area, config)
    trained = not issubclass(module_class(config.tokenizer.model.type), FrozenTokenizer)
    if config.tokenizer.loss.lpips_weight and trained:
        with area.guard("lpips"):
            load_lpips(config.tokenizer.loss.lpips_weights_path)
            area.ok("lpips", "VGG weights loaded")
    return config


def _examine_environment(area: Area, config: RunConfig) -> None:
    """The game is needed to record and for `eval agent` only, so its absence is no fault of the run."""
    name = config.data.env
    if not name:
        area.ok("environment", "none: recordings without a game; `ahriuwu eval offline` judges the agents")
        return
    try:
        env = make_env(config.data)
    except (ForeignError, InputError) as error:
        area.note("environment", f"{error.message} (needed to record and for `eval agent`; {error.hint})")
        return
    actions = ", ".join(f"{part.name} ({part.type})" for part in env.action_spec.components)
    frame = env.frame_spec
    env.close()
    area.ok("environment", f"{name}: {frame.height}x{frame.width} at {frame.fps:g} per second; actions {actions}")


# ---------------------------------------------------------------- drift


def examine_drift(area: Area, subject: Subject) -> None:
    """Name the keys of `run.toml` that are no longer what the artifact was made with."""
    if subject.config is None:
        return
    section, embedded, now = _sections(subject.header, subject.config)
    if embedded is None:
        area.note("config", f"written by something else than this program: it names no settings of [{section}]")
        return
    if section == "data":
        embedded, now = _without_open(embedded, now)
    keys = [f"{section}.{key}" for key in differing(embedded, json.loads(canonical(now)))]
    if keys:
        area.note("config", f"made with other values than {CONFIG_NAME} has now: {first_few(keys)}")
    else:
        area.ok("config", f"[{section}] as in {CONFIG_NAME}")


def _sections(header: Header, config: RunConfig) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]:
    """Name of the section an artifact was made by, its content then (None where an importer wrote none) and now."""
    name, own, unused = SECTIONS[header.kind]
    then = header.config if own is None else header.config.get(own)
    now = getattr(config, name).model_dump(exclude=unused)
    return name, then and {key: value for key, value in then.items() if key not in unused}, now


def _without_open(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both without the keys that `now` leaves to the environment, or that were not known then."""
    keys = [key for key, value in now.items() if key in then and not is_open(key, value)]
    return {key: then[key] for key in keys}, {key: now[key] for key in keys}


def differing(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """Key paths at which two nested dicts have different values, or only one of them has any."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted(then.keys() | now.keys()):
            yield from differing(then.get(key, _ABSENT), now.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif then != now:
        yield path


_ABSENT = object()
