"""Optuna's side of a search: trials in an SQLite file, asked for and told by any number of processes.

Decision: SQLite and not Optuna's journal file: it is what Optuna's own tools open, and no process writes to it but for
the moments of asking and telling. A trial that a process left behind is gone on with (see work.py), so heartbeats of
Optuna, which would call it failed, are off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.experiments.tune.plan import Plan
from ahriuwu_cli.experiments.tune.space import Choices, Key, Value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STORAGE_NAME = "trials.sqlite3"
STUDY_NAME = "tune"
ASKED = "asked"
"""Key of what the trials answer: with other settings they would not be comparable."""
WAIT_SECONDS = 60
"""How long a process waits for another one's write."""

State = Literal["done", "failed", "open"]


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0, in the order of asking.
        values: by key.
        state: `open` until it is told of.
        value: the metric of one that is done.
    """

    number: int
    values: Mapping[str, Value]
    state: State
    value: float | None = None


class Storage:
    """The trials of a search.

    Args:
        plan: the search; its folder is there.

    Raises:
        InputError: Optuna is not installed.
        ArtifactError: the file is damaged or of a version that this Optuna does not read.
    """

    def __init__(self, plan: Plan) -> None:
        require_optuna()
        self._plan = plan
        self._study = _open(plan.folder / STORAGE_NAME, higher=plan.goal.higher)

    def asked(self) -> dict[str, Any]:
        """What was noted by `note`; empty before."""
        found: dict[str, Any] = self._study.user_attrs.get(ASKED, {})
        return found

    def note(self, asked: Mapping[str, Any]) -> None:
        """Keep what all trials answer."""
        self._study.set_user_attr(ASKED, dict(asked))

    def trials(self) -> list[Trial]:
        """All trials that have their values, in order."""
        names = {key.name for key in self._plan.keys}
        return [_trial(found) for found in self._study.get_trials(deepcopy=False) if names <= found.params.keys()]

    def ask(self) -> Trial:
        """A new trial; the first has the run's own values where the search may have them.

        What is drawn depends on the seed and on the trials before: stopped or not, one process makes the same ones.
        Only one process may ask at a time.
        """
        from optuna.samplers import TPESampler

        number = len(self._study.get_trials(deepcopy=False))
        given = self._plan.given()
        if number == 0 and given is not None:
            self._study.enqueue_trial(given)
        seed = np.random.SeedSequence([self._plan.settings.seed, number]).generate_state(1)[0]
        self._study.sampler = TPESampler(seed=int(seed))
        trial = self._study.ask({key.name: _distribution(key) for key in self._plan.keys})
        return Trial(trial.number, trial.params, "open")

    def tell(self, trial: Trial, value: float | None) -> None:
        """The metric of a trial, or None when it has failed; one that another process has told of stays as it is."""
        from optuna.trial import TrialState

        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(trial.number, value, state=state, skip_if_finished=True)


def require_optuna() -> None:
    """Raise InputError where Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "`ahriuwu tune` needs the package 'optuna', which is not installed", hint="pip install 'ahriuwu[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what it says of every trial, the table says


def _open(path: Path, *, higher: bool) -> Study:
    import optuna
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    url = URL.create("sqlite", database=str(path)).render_as_string()
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}),
            study_name=STUDY_NAME,
            direction="maximize" if higher else "minimize",
            load_if_exists=True,
        )
    except (RuntimeError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:  # RuntimeError: other versions
        raise ArtifactError(
            f"{path} cannot be read as Optuna's trials: {' '.join(str(error).split())[:200]}",
            hint="restore it, use the version of Optuna that wrote it, or begin a new search with another --dir",
        ) from error


def _distribution(key: Key) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = key.space
    if isinstance(space, Choices):
        return CategoricalDistribution(space.texts)
    if key.integer:
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=int(space.step or 1))
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _trial(found: FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    states: dict[Any, State] = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed"}
    state = states.get(found.state, "open")
    return Trial(found.number, found.params, state, found.value if state == "done" else None)
