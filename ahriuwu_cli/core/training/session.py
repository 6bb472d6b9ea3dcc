"""The live objects of one training run, and what of them a step may change before the optimiser moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.training.average import WeightAverage
from ahriuwu_cli.core.training.budget import UNLIMITED, Budget, Stopwatch
from ahriuwu_cli.core.training.compilation import CompiledBlocks, Tell, compile_blocks
from ahriuwu_cli.core.training.config import TrainSettings
from ahriuwu_cli.core.training.course import Course
from ahriuwu_cli.core.training.generators import generator_states, restore_generators
from ahriuwu_cli.core.training.heldout import Evaluation
from ahriuwu_cli.core.training.loader import Loader
from ahriuwu_cli.core.training.optimizer import Optimizer, hidden_matrices
from ahriuwu_cli.core.training.recompute import learning_parts, set_recompute
from ahriuwu_cli.core.training.sinks import Means
from ahriuwu_cli.core.training.stage import HeldoutStage, PlannedStage, Stage, StageState
from ahriuwu_cli.core.training.trend import Curve, followed, trends
from ahriuwu_cli.core.training.watch import Watch


@dataclass
class Session:
    """The live objects of one training run.

    Attributes:
        step: finished steps, skipped ones included.
        bad_steps: skipped ones.
        bad_in_a_row: of these, the last ones without a good step after them.
        evaluation: the last measurement on held-out data.
        course: what the measurements have come to.
        curves: how the losses have gone, by metric.
        kept: the result as it was at the best of them, on the CPU; None without `keep = "best"`, or before the first.
        stopwatch: the time it has taken.
        means: metrics since the last log point.
        watch: what has been seen of the diseases it knows.
        parameters: what learns, by name.
        average: its moving average; None without `ema_decay`.
        loader: gives batches; whoever takes steps leaves it as a context.
        compiled: what runs compiled code; None for nothing.
    """

    stage: Stage
    settings: TrainSettings
    runtime: Runtime
    seed: int
    budget: Budget = UNLIMITED
    step: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    evaluation: Evaluation = field(default_factory=Evaluation)
    course: Course = field(default_factory=Course)
    curves: dict[str, Curve] = field(default_factory=dict)
    kept: dict[str, Tensor] | None = None
    stopwatch: Stopwatch = field(init=False)
    means: Means = field(init=False, default_factory=Means)
    watch: Watch = field(init=False)
    parameters: dict[str, nn.Parameter] = field(init=False)
    optimizer: Optimizer = field(init=False)
    average: WeightAverage | None = field(init=False)
    scaler: torch.amp.GradScaler | None = field(init=False)
    loader: Loader = field(init=False)
    compiled: CompiledBlocks | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.watch = Watch(self.settings)
        self.stopwatch = Stopwatch(self.budget.clock)
        self.parameters = dict(self.stage.trained())
        everything = {id(parameter) for parameter in self.stage.module.parameters()}
        declared = {id(parameter) for parameter in self.parameters.values()}
        assert declared, "a stage trains at least one parameter"
        assert declared <= everything, "trained() returns parameters of the stage's module"
        for parameter in self.stage.module.parameters():
            parameter.requires_grad_(id(parameter) in declared)
        set_recompute(self.stage.module, self.settings.recompute)
        hidden = hidden_matrices(learning_parts(self.stage.module))
        self.optimizer = Optimizer(self.parameters, self.settings, hidden)
        decay = self.settings.ema_decay
        self.average = WeightAverage(self.parameters, decay) if decay else None
        read, parts = self.stage.batch, self.settings.accumulate
        self.loader = Loader(read, parts, self.runtime.device, self.runtime.loader_workers)
        self.scaler = torch.amp.GradScaler(self.runtime.device.type) if self.runtime.precision == "fp16" else None

    def compile(self, tell: Tell) -> None:
        """Compile the module's blocks; `tell` takes the one line that says why not, now or in a later step."""
        self.compiled = compile_blocks(self.stage.module, tell)

    @property
    def total(self) -> int:
        """Steps there will be, as far as is known now."""
        return self.course.total(self.settings)

    def tell_plan(self) -> None:
        """Let the loader and a stage that must know it know `total`."""
        if isinstance(self.stage, PlannedStage):
            self.stage.plan(self.total)
        self.loader.plan(self.total)

    def judge(self, found: Evaluation) -> bool:
        """Take in a measurement of the weights as they are; True when the end of training has moved."""
        assert isinstance(self.stage, HeldoutStage) and self.stage.goal is not None, "is_judged was asked before"
        before, self.evaluation = self.total, found
        self.course = self.course.measured(found, self.stage.goal, self.settings)
        if self.settings.keep == "best" and self.course.kept.step == self.step:
            self.kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._current().items()}
        return self.total != before

    def follow(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a log point, those measured on held-out data included."""
        stage = self.stage
        goal = stage.goal if isinstance(stage, HeldoutStage) else None
        judged = () if goal is None else goal.names()
        higher = judged if goal is not None and goal.higher else ()
        self.curves = followed(self.curves, self.step, metrics, (*stage.losses, *judged), higher)

    def trends(self) -> dict[str, dict[str, float]]:
        """How the losses went near the end (see trend.py)."""
        return trends(self.curves, self.step, self.total, self.settings)

    def keep_time(self) -> bool:
        """See that what is left of the budget suffices; True when the end of training has moved."""
        minutes, before = self.budget.minutes, self.total
        if minutes:
            lap, left = self.stopwatch.lap(self.step), 60 * minutes - self.stopwatch.seconds
            self.course = self.course.timed(self.step, left, lap, minutes, self.settings)
        return self.total != before

    def result(self) -> dict[str, Tensor]:
        """The tensors that the artifact holds: those that were kept, else the averaged ones where there is an average.

        Decision: the best weights wait on the CPU and not where they are trained, where memory is scarce.
        """
        return self._current() if self.kept is None else self.kept

    def _current(self) -> dict[str, Tensor]:
        module = self.stage.module
        return module.state_dict() if self.average is None else self.average.state_dict(module)

    def measured(self) -> dict[str, float]:
        """What was measured on held-out data after this very step."""
        return self.evaluation.values if self.evaluation.step == self.step else {}

    def untrained(self) -> list[str]:
        """List the declared tensors that never received a non-zero gradient, sorted."""
        return sorted(name for name, one in self.parameters.items() if not self.optimizer.has_moved(one))


class StepStart:
    """What a step may change before its optimiser moves, kept so that the step can be taken anew."""

    def __init__(self, session: Session) -> None:
        self._session = session
        state = session.stage.state()
        self._stage = StageState({name: tensor.clone() for name, tensor in state.tensors.items()}, state.values)
        self._generators = generator_states(session.runtime)
        module = session.stage.module
        fixed = (parameter for parameter in module.parameters() if not parameter.requires_grad)
        self._tensors = [(tensor, tensor.clone()) for tensor in (*module.buffers(), *fixed)]

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to it."""
        self._session.stage.load_state(self._stage)
        restore_generators(self._session.runtime, *self._generators)
        for tensor, before in self._tensors:
            tensor.copy_(before)
