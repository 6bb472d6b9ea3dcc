"""What commands that carry out a plan share: reading it, trainings that are done once and gone on with, its page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from pydantic import ValidationError

from ahriuwu_cli.core.artifact import Header, Kind, read_header
from ahriuwu_cli.core.config import Section, split_override, validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.core.training.state import differences
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.chain import is_current
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.pipeline.unfinished import has_used_its_time, recording_left

CADENCES = ("log_every", "checkpoint_every", "max_bad_steps")
"""Settings of a training that leave its weights as they are."""
DataKind = Literal["latents", "packed"]
KINDS = get_args(Kind)
"""Results are compared, so no parent may have grown since: what was made from less data is made again."""

S = TypeVar("S", bound=Section)


# ---------------------------------------------------------------- reading a plan


def plan_section(kind: type[S], data: Any, source: str, example: str) -> S:
    """`validate`, with a hint that names the `example` of such a file."""
    try:
        return validate(kind, data, source)
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"see {example}") from error


def require_distinct(path: Path, what: str, values: Sequence[Any], hint: str) -> None:
    """Raise ConfigError when there is none, an empty one, or one twice."""
    if not values or "" in values or len(set(values)) != len(values):
        found = ", ".join(map(str, values)) or "none"
        raise ConfigError(f"{path}: {what} are {found}; expected distinct ones", hint=hint)


def require_within(overrides: Sequence[str], prefixes: str | tuple[str, ...], what: str, rule: str, hint: str) -> None:
    """Raise ConfigError for an override outside the sections that may change: `what` sets KEY; `rule`."""
    for override in overrides:
        key, _ = split_override(override)
        if not key.startswith(prefixes):
            raise ConfigError(f"{what} {key}; {rule}", hint=hint)


@dataclass(frozen=True)
class AgentsRun(Run):
    """A run that shares episodes, tokenizer, latents and dynamics with others and has its own agents in `place`."""

    place: Path = Path()

    @property
    def scratch(self) -> Path:
        """Its baseline from scratch."""
        return self.place / "scratch" / "agent.safetensors"

    @property
    def agent(self) -> Path:
        """Its finetuned agent."""
        return self.place / "agent" / "agent.safetensors"

    @property
    def imagination(self) -> Path:
        """Its agent after imagination training."""
        return self.place / "imagination" / "imagination.safetensors"

    @property
    def evaluation(self) -> Path:
        """Its results (a folder)."""
        return self.place / "evaluation"


# ---------------------------------------------------------------- trainings


@dataclass(frozen=True)
class Training:
    """One training of a plan.

    Attributes:
        run: where its artifact and those it is made from lie.
        kind: of the artifact.
        weights: the artifact.
        sections: what shapes it, by the place in the header's config ("" for the top, `agent`, `dynamics.model`).
        stage: trains it, with `resume` and `overwrite`.
        name: shown when it begins.
        cost: what it took (JSON).
        may_grow: it counts as done, too, when the data it was trained on has grown since.
    """

    run: Run
    kind: Kind
    weights: Path
    sections: Mapping[str, Section]
    stage: Callable[..., Report]
    name: str
    cost: Path
    may_grow: bool = False

    def is_done(self) -> bool:
        """True when the weights are finished, of this config and seed, and of the parents that are here."""
        if not is_current(self.run, self.weights, self.kind, same=() if self.may_grow else KINDS):
            return False
        header = read_header(self.weights, self.kind)
        state = RunFiles(self.weights.parent, self.kind).state
        seed = read_header(state, "state").info["seed"] if state.is_file() else self.run.config.run.seed
        finished: bool = header.info["finished"] and seed == self.run.config.run.seed
        return finished and self._is_of(header) and has_used_its_time(self.run, header)

    def can_resume(self) -> bool:
        """True when there is a saved state that this training can go on from."""
        state = RunFiles(self.weights.parent, self.kind).state
        if not is_current(self.run, state, "state", same=KINDS):
            return False
        header = read_header(state, "state")
        return header.info["seed"] == self.run.config.run.seed and self._is_of(header) and self._is_as_saved(header)

    def finish(self) -> None:
        """Train, or go on, unless it is done; the processor time of all threads is added up in `cost`.

        Raises:
            BusyError: another process is at it.
        """
        if self.is_done():
            return
        with exclusive(self.weights.parent):
            self._finish()

    def _finish(self) -> None:
        resume = self.can_resume()
        say(f"{self.name}: {'going on with its training' if resume else 'training'}")
        before = read_json(self.cost).get("cpu_seconds", 0.0) if resume else 0.0
        started = time.process_time()
        try:
            self.stage(self.run, resume=resume, overwrite=not resume)
        finally:
            write_json(self.cost, {"cpu_seconds": before + time.process_time() - started})

    def cpu_seconds(self) -> float:
        """Processor seconds it took so far, NaN when they were not counted."""
        return float(read_json(self.cost).get("cpu_seconds", float("nan")))

    def _is_of(self, header: Header) -> bool:
        return all(_same(_part(header.config, place), section) for place, section in self.sections.items())

    def _is_as_saved(self, header: Header) -> bool:
        return not any(
            list(differences(_part(header.config, place), json.loads(section.model_dump_json())))
            for place, section in self.sections.items()
        )


def tokenizer_training(run: Run, name: str = "tokenizer") -> Training:
    """The training of a run's tokenizer, its cost counted beside the weights."""
    return _beside(run, "tokenizer", run.tokenizer, {"": run.config.tokenizer}, stages.train_tokenizer, name)


def dynamics_training(run: Run, name: str = "dynamics") -> Training:
    """The training of a run's dynamics; see `tokenizer_training`."""
    return _beside(run, "dynamics", run.dynamics, {"": run.config.dynamics}, stages.train_dynamics, name)


def scratch_training(run: Run, name: str = "scratch") -> Training:
    """The training of a run's baseline from scratch, whose transformer has the dynamics' sizes."""
    dynamics = run.config.dynamics
    sections = {"agent": run.config.agent, "dynamics.model": dynamics.model, "dynamics.sampler": dynamics.sampler}
    return _beside(run, "agent", run.scratch, sections, stages.train_scratch, name)


def agent_training(run: Run, name: str = "agent") -> Training:
    """The finetuning of a run's agent."""
    return _beside(run, "agent", run.agent, {"agent": run.config.agent}, stages.finetune_agent, name)


def imagination_training(run: Run, name: str = "imagination") -> Training:
    """The imagination training of a run's agent."""
    sections = {"imagine": run.config.imagine}
    return _beside(run, "imagination", run.imagination, sections, stages.train_imagination, name)


def _beside(
    run: Run, kind: Kind, weights: Path, sections: Mapping[str, Section], stage: Callable[..., Report], name: str
) -> Training:
    """A training whose cost lies beside its weights."""
    return Training(run, kind, weights, sections, stage, name, weights.parent / "cost.json")


def prepare_episodes(run: Run, name: str = "") -> None:
    """Record the episodes that are not there yet; `name` stands before what is said."""
    for stage in recording_left(run):
        with _counted(run, "episodes"):
            say(f"{name}{stage().title}")


def prepare_data(run: Run, name: str = "") -> None:
    """Record, train the tokenizer, encode and pack, as far as that is not done; `name` stands before what is said."""
    prepare_episodes(run, name)
    tokenizer_training(run, f"{name}tokenizer").finish()
    made: tuple[tuple[DataKind, Callable[[Run], Report]], ...] = (
        ("latents", stages.build_latents),
        ("packed", stages.pack_latents),
    )
    for kind, make in made:
        if not _is_made(run, kind):
            with _counted(run, kind):
                say(f"{name}{make(run).title}")


def data_is_there(run: Run) -> bool:
    """True when `prepare_data` has nothing to do."""
    return (
        not list(recording_left(run))
        and tokenizer_training(run).is_done()
        and all(_is_made(run, kind) for kind in get_args(DataKind))
    )


def _is_made(run: Run, kind: DataKind) -> bool:
    return is_current(run, getattr(run, kind), kind, same=KINDS)


DATA_COST = "data-cost.json"


def data_minutes(run: Run) -> dict[str, float | None]:
    """Processor minutes of recording, encoding and packing in a run, None where they were not counted."""
    seconds = read_json(run.folder / DATA_COST)
    return {kind: seconds[kind] / 60 if kind in seconds else None for kind in ("episodes", "latents", "packed")}


@contextmanager
def _counted(run: Run, kind: Kind) -> Iterator[None]:
    """Add the processor time of what is done to what this kind took before."""
    path, started = run.folder / DATA_COST, time.process_time()
    try:
        yield
    finally:
        before = read_json(path)
        write_json(path, before | {kind: before.get(kind, 0.0) + time.process_time() - started})


def _part(config: Mapping[str, Any], place: str) -> Any:
    """The table of a header's config at a dotted path; None when there is none."""
    part: Any = config
    for key in place.split(".") if place else ():
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _same(saved: Any, section: Section) -> bool:
    """True when a saved config means the same training; what it does not say is at its default."""
    try:
        before = type(section).model_validate(saved).model_dump()
    except ValidationError:
        return False
    now = section.model_dump()
    for settings in (before, now):
        for name in CADENCES:
            settings.get("train", {}).pop(name, None)
    return before == now


# ---------------------------------------------------------------- files and words


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when it is not there or not whole."""
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def as_markdown(report: Report, command: str) -> str:
    """The report as a Markdown page, with the command that made it."""
    lines = [f"# {report.title}", "", f"Made by `{command}`.", ""]
    lines += [_line(report.columns), _line(["---"] * len(report.columns)), *map(_line, report.rows), ""]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def say(text: str) -> None:
    """One line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
