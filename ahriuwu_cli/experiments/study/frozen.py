"""Settings are frozen when the first test seed starts: a study's results are all of the same ones (pitfall 38)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ahriuwu_cli.core.artifact import canonical
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.experiments.plans import CADENCES, read_json, say
from ahriuwu_cli.experiments.settings import differences, flat, in_words
from ahriuwu_cli.experiments.study.plan import Plan

FROZEN_NAME = "frozen.json"
FREE = {"run.seed", "run.name", "run.device", "run.threads", "run.loader_workers", "run.compile"}
"""Keys that every seed sets, or that say where it runs."""


def freeze(plan: Plan, *, thaw: bool) -> None:
    """Note the settings before the first test seed starts; later ones must be the same.

    Args:
        plan: the study, with the learning rates that were searched.
        thaw: accept other settings than those of before. That is noted, and told under every table: whoever has seen
            test returns and then changes settings has tuned on them.

    Raises:
        ConfigError: the settings are others than when the study's first seed started.
    """
    path, now = plan.base.folder / FROZEN_NAME, _settings(plan)
    before = read_json(path)
    if not before:
        write_json(path, {"fingerprint": _fingerprint(now), "settings": now, "changes": []})
        return
    changed = differences(before["settings"], now)
    if not changed:
        return
    words = in_words(changed)
    if not thaw:
        raise ConfigError(
            f"{plan.path} has other settings than when the first seed in {plan.base.folder} started: {words}",
            hint="change them back, begin a new study with another --dir, or give --thaw: the table will say so",
        )
    say(f"settings changed after they were frozen: {words}")
    changes = [*before["changes"], {key: [old, new] for key, old, new in changed}]
    write_json(path, {"fingerprint": _fingerprint(now), "settings": now, "changes": changes})


def frozen_facts(plan: Plan) -> dict[str, Any] | None:
    """`fingerprint` of the frozen settings, their `changes` since, and whether they are those of now (`current`)."""
    found = read_json(plan.base.folder / FROZEN_NAME)
    if not found:
        return None
    current = found["fingerprint"] == _fingerprint(_settings(plan))
    return {"fingerprint": found["fingerprint"], "changes": found["changes"], "current": current}


def _settings(plan: Plan) -> dict[str, Any]:
    """Everything that results depend on, by dotted key."""
    study = plan.settings.model_dump(mode="json", exclude={"run", "preset"})
    run = plan.base.config.model_dump(mode="json")
    found = {key: value for key, value in flat(run) if key not in FREE and key.rpartition(".")[2] not in CADENCES}
    return found | {f"study.{key}": value for key, value in flat({**study, "rates": dict(plan.rates)})}


def _fingerprint(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]
