"""`imagine train`: policy and value heads learn from dreams, the transformer too if wanted ([D4] Sec. 3.3).

Shapes: B rollouts, C context frames, H horizon, R rows compared.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import LoadedAgent, load_agent, require_world
from ahriuwu_cli.agent.rewards import require_reward_range
from ahriuwu_cli.core.artifact import Kind
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.training.batches import Batch, batch_generator
from ahriuwu_cli.core.training.compilation import as_written
from ahriuwu_cli.core.training.loop import TrainResult, train
from ahriuwu_cli.core.training.stage import ArtifactFields, Goal, StageState
from ahriuwu_cli.dynamics.sampler import Dream
from ahriuwu_cli.imagination.check import GameCheck, RealGame
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.disagreement import step_disagreement
from ahriuwu_cli.imagination.finetune import Finetuning
from ahriuwu_cli.imagination.guard import Guard
from ahriuwu_cli.imagination.heldout import heldout_contexts, heldout_judge, judge_dreams, judge_world
from ahriuwu_cli.imagination.losses import imagination_loss
from ahriuwu_cli.imagination.memory import check_imagination_memory
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.rollout import KeptNoise, Rollout, imagine
from ahriuwu_cli.latents.heldout import heldout_windows
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows


@dataclass(frozen=True)
class ImaginationBatch(Batch):
    """What a step of imagination reads of the recordings.

    Attributes:
        context: where dreams start; None in steps that learn from the rollouts of an earlier one.
        recorded: a mixed batch; None where the transformer stays as it is.
    """

    context: LatentBatch | None
    recorded: LatentBatch | None


class ImagineStage:
    """Training of the policy and value heads of one agent inside its dream; with `transformer` of all of it."""

    kind: Kind = "imagination"
    losses: tuple[str, ...] = ()  # of what is learned in dreams only returns tell, see `goal`

    def __init__(
        self,
        section: ImagineSection,
        agent: LoadedAgent,
        windows: LatentWindows,
        runtime: Runtime,
        seed: int,
        check: GameCheck | None = None,
        heldout: LatentWindows | None = None,
    ) -> None:
        self._section, self._agent, self._windows, self._runtime = section, agent, windows, runtime
        self.module = ImaginationModel(agent.model).to(runtime.device)
        self._seed = seed
        self._rollout: Rollout | None = None
        self._uses_ends = bool(windows.sampler.ended)
        world, length = agent.model.world, section.context_length
        self._guard = Guard.of(section.guard, windows, world, length, seed=seed)
        self._learns_all = section.transformer == "finetuned"
        self._finetuning = Finetuning(agent, windows) if self._learns_all else None
        self._check = check
        self._contexts = None if heldout is None else heldout_contexts(section, heldout)
        self._judge = heldout_judge(agent, windows, heldout) if self._learns_all else None

    @property
    def goal(self) -> Goal | None:
        """What is earned in dreams from contexts that were never dreamed from, once the policy learns."""
        if self._contexts is None:
            return None
        return Goal("heldout_imagined_return", higher=True, after=self._section.value_only_steps)

    def heldout(self) -> dict[str, float]:
        """Dreams from the same held-out contexts every time; with the transformer also its prior, heads and world."""
        assert self._contexts is not None
        rollout = self._imagine(self._contexts.to(self._runtime.device), KeptNoise())
        metrics = judge_dreams(self.module, rollout, self._section, self._guard.judge(rollout))
        return metrics if self._judge is None else metrics | judge_world(self._judge, self.module)

    def trained(self) -> dict[str, nn.Parameter]:
        """The policy's and the value's tensors, nothing else; with the transformer all but the slow value's."""
        return self.module.trained(transformer=self._learns_all)

    def batch(self, step: int, part: int) -> ImaginationBatch:
        """Contexts in steps that dream; with the transformer recorded windows in all of them."""
        settings, rng = self._section, batch_generator(self._seed, step, part)
        context = None
        if step % settings.updates_per_rollout == 0:
            # [D4] Sec. 3.3: the mixture of finetuning also says where dreams start
            count, length = settings.train.batch_size, settings.context_length
            relevant = round(settings.relevant_fraction * count)
            sampler = self._windows.sampler
            places = sampler.draw_contexts(rng, count, length, num_relevant=relevant, reach=settings.horizon)
            context = self._windows.read(places, length)
        return ImaginationBatch(context, None if self._finetuning is None else self._finetuning.batch(rng))

    def loss(self, step: int, batch: ImaginationBatch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """PMPO and value loss on a batch of rollouts, drawn anew every `updates_per_rollout` steps.

        With the transformer also the losses on recorded data (see imagination/finetune.py).

        Decision: in the first `value_only_steps` PMPO has no say. The value starts near zero, so where rewards are
        positive nearly every advantage is too, and half of PMPO's weight lies on the few decisions that are not,
        whatever they are. Decision: with `policy_updates` neither has it in the later updates on a batch of rollouts.
        In Freeway (one seed, 256 dreams a batch) the entropy swung from 0.26 to 0.72 within six batches where all of 7
        updates trained the policy; with 2 of 7 the KL to the prior stayed below 0.06, the return was not higher.
        """
        settings = self._section
        number, update = divmod(step, settings.updates_per_rollout)
        if batch.context is not None:
            self._rollout = self._dream(number, batch.context)
        assert self._rollout is not None, "a training begins with dreams"
        if step:
            self.module.follow(settings.value_ema)
        outside = self._guard.judge(self._rollout)
        value_only = step < settings.value_only_steps or update >= (settings.policy_updates or math.inf)
        if self._finetuning is None:
            loss, found = imagination_loss(self.module, self._rollout, settings, outside, value_only=value_only)
        else:
            assert batch.recorded is not None, "`batch` reads them"
            loss, found = self._finetuning.loss(
                self.module, self._rollout, settings, outside, batch.recorded, value_only=value_only
            )
        metrics: dict[str, Tensor | float] = dict(found)
        if self._check is not None and self._check.due(step):
            with self._uncompiled():
                metrics |= self._check.play()
            if self._check.comparable:
                metrics["reward_gap"] = metrics["imagined_reward_per_step"] - metrics["real_reward_per_step"]
        return loss, metrics

    def _dream(self, number: int, context: LatentBatch) -> Rollout:
        """Batch `number` of rollouts (from 0)."""
        guard = self._section.guard
        compared = guard.disagreement_every > 0 and number % guard.disagreement_every == 0
        noise = KeptNoise(guard.disagreement_rows if compared else 0)
        rollout = self._imagine(context, noise, keep=self._learns_all)
        return self._compared(rollout, context, noise) if compared else rollout

    def _imagine(self, context: LatentBatch, noise: KeptNoise, *, keep: bool = False) -> Rollout:
        """Dreams that start from contexts on the runtime's device; `keep` their blocks to be read again."""
        settings, agent = self._section, self.module.agent
        dream = Dream(
            agent.world, self._agent.sampler, noise=noise, task=context.task, num_steps=settings.sampling_steps
        )
        return imagine(
            agent,
            dream,
            context,
            settings.horizon,
            settings.temperature,
            uses_ends=self._uses_ends,
            noise=noise if keep else None,
        )

    def _compared(self, rollout: Rollout, context: LatentBatch, noise: KeptNoise) -> Rollout:
        """The rollout with the disagreement of its first rows between K and 2 K Euler steps."""
        action = rollout.action[: noise.rows]
        with self._uncompiled():
            found = step_disagreement(
                self.module.agent.world, self._agent.sampler, self._section.sampling_steps, context, action, noise.draws
            )
        disagreement = torch.full_like(rollout.reward, float("nan"))
        disagreement[: len(found)] = found
        return replace(rollout, disagreement=disagreement)

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Context in which compiled blocks run as they are written: for few dreams, in a batch of their own size."""
        if not self._runtime.compile:
            return nullcontext()
        return as_written()

    def describe(self) -> ArtifactFields:
        """The three sections of the heads' making and the specs; parents up to the agent, latents as trained on."""
        parent, data = self._agent.header, self._windows.header
        return ArtifactFields(
            config=parent.config | {"imagine": self._section.model_dump()},
            specs=parent.specs,
            parents=parent.parents | data.parents | {"packed": data.fingerprint, "agent": parent.fingerprint},
        )

    def state(self) -> StageState:
        """The rollouts in use, and with the transformer the running averages."""
        tensors = {} if self._rollout is None else self._rollout.tensors()
        if self._finetuning is not None:
            tensors |= self._finetuning.state()
        return StageState(tensors)

    def load_state(self, state: StageState) -> None:
        """Restore `state`."""
        names = {field.name for field in fields(Rollout)} & state.tensors.keys()
        if names:
            self._rollout = Rollout(**{name: state.tensors[name].to(self._runtime.device) for name in names})
        if self._finetuning is not None:
            self._finetuning.load_state(state.tensors)


def check_sampling(section: ImagineSection, agent: LoadedAgent) -> None:
    """Raise ConfigError for step counts that the dynamics does not know."""
    k_max, steps = agent.model.world.config.k_max, section.sampling_steps
    if steps > k_max or steps & (steps - 1):
        raise ConfigError(
            f"imagine.sampling_steps is {steps}; expected a power of two up to the dynamics' k_max {k_max}",
            hint="correct imagine.sampling_steps",
        )
    if section.guard.disagreement_every and 2 * steps > k_max:
        raise ConfigError(
            f"imagine.guard compares {steps} with {2 * steps} Euler steps; the dynamics' k_max is {k_max}",
            hint="lower imagine.sampling_steps, or set imagine.guard.disagreement_every = 0",
        )


def check_contexts(section: ImagineSection, agent: LoadedAgent, windows: LatentWindows) -> None:
    """Refuse contexts that the world model does not attend to or that no episode has, before training.

    Raises:
        ConfigError: the contexts are longer than the model's.
        DataError: every episode is too short.
    """
    limit = agent.sampler.context_length
    if section.context_length > limit:
        raise ConfigError(
            f"imagine.context_length is {section.context_length}; the model attends to {limit} past frames",
            hint="lower imagine.context_length",
        )
    windows.sampler.draw_contexts(np.random.default_rng(0), 1, section.context_length, setting="imagine.context_length")


def train_imagination(
    section: ImagineSection,
    agent_path: Path,
    packed: Path,
    folder: Path,
    runtime: Runtime,
    *,
    seed: int,
    game: RealGame | None = None,
    **options: Any,
) -> TrainResult:
    """Train the agent at `agent_path` in dreams that start from the training split of `packed`.

    Args:
        section: the `[imagine]` section.
        agent_path: a finetuned agent.
        packed: the packed latents its dynamics were trained on.
        folder: where the artifact, its state and the metrics go.
        runtime: device and precision.
        seed: seed of the value head, contexts and dreams.
        game: where the policy is checked every `section.check.every` steps; needed when that is not 0.
        options: `resume`, `overwrite` and `budget` of the loop.

    Raises:
        ArtifactError: agent and latents do not belong together, the agent has no world model, or it acts in another
            game.
        ConfigError: the section asks for what the world model cannot do.
        DataError: every episode is too short.
        DeviceError: a step does not fit into the memory that is free.
        InputError: the environment of `game` cannot be made.
    """
    agent = load_agent(agent_path, runtime.device)
    require_world(agent_path, agent.header)
    windows = LatentWindows(packed, "train", agent.tasks, agent.relevance)
    require_parent(agent_path, agent.header, packed, windows.header)
    check_sampling(section, agent)
    check_contexts(section, agent, windows)
    require_reward_range(agent.model.heads_config, windows, section.gamma)
    check_imagination_memory(section, agent, runtime)
    check = None
    if section.check.every:
        assert game is not None, "a check needs a game"
        check = GameCheck(section.check, game, agent, runtime, temperature=section.temperature, seed=seed)
    torch.manual_seed(seed)
    heldout = heldout_windows(packed, agent.tasks, agent.relevance) if section.train.heldout_every else None
    stage = ImagineStage(section, agent, windows, runtime, seed, check, heldout)
    return train(stage, section.train, runtime, folder, seed=seed, **options)
