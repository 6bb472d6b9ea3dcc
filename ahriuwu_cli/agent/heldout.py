"""An agent on held-out play: its policy's likelihood, reward and continue, each beside the best constant guess.

Shapes: B windows, T frames per window, K action logits, N two-hot buckets.

The policy is judged on windows drawn as those it imitates (`relevant_places`, on the held-out split); reward and
continue on these and as many windows from anywhere. All of it is the prediction at distance 0, shown as when the agent
acts: at tau_context with d_min. Losses are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.batches import read_recorded, read_windows, relevant_places, uniform_places
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.distribution import ActionChoices, ActionDistribution, binary_loss
from ahriuwu_cli.agent.model import AgentModel, DistanceHead
from ahriuwu_cli.agent.objective import gather_targets
from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.core.training.stage import Goal
from ahriuwu_cli.dynamics.heldout import HeldoutWorld, draw_noise, fixed_generator
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.episodes.alignment import POLICY_OFFSET, REWARD_OFFSET
from ahriuwu_cli.latents.places import Place, PlaceSampler
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.nn.twohot import TwoHot

GOAL = Goal("heldout_policy")
"""What says how far a cloned policy has come: -ln p of an action, in nats."""
FITTED_WINDOWS = 256
"""Training windows of each kind to which the constant guesses are fitted."""
CHUNK = 32
"""Windows read at once for that."""

Draw = Callable[[AgentSection, PlaceSampler, np.random.Generator, int], list[Place]]


class HeldoutPlay:
    """Fixed windows of held-out play, and what the training split alone says about them.

    Args:
        section: the `[agent]` section: what is relevant, how long windows are, how many.
        train: windows of the training split; only the constant guesses are fitted to them.
        heldout: windows of the held-out split.
        tau_context: signal level at which frames are shown.
        heads: judge reward and continue too.
    """

    def __init__(
        self, section: AgentSection, train: LatentWindows, heldout: LatentWindows, tau_context: float, *, heads: bool
    ) -> None:
        self._section, self._train, self._tau_context, self._heads = section, train, tau_context, heads
        rng = np.random.default_rng(HELDOUT_SEED)
        draws: list[Draw] = [relevant_places, uniform_places] if heads else [relevant_places]
        self._draws = draws
        count = section.train.heldout_examples
        self._windows = [read_recorded(section, heldout, draw(section, heldout.sampler, rng, count)) for draw in draws]
        self._guess: ConstantGuess | None = None

    def judge(self, model: AgentModel, cloning: DistanceHead | None = None) -> dict[str, float]:
        """Metrics of the model; of the policy head `cloning`, when it is not the model's own that imitates."""
        if self._guess is None:
            self._guess = self._fitted(model)
        sums = Sums()
        generator = fixed_generator()
        for index, windows in enumerate(self._windows):
            for batch in _parts(windows, self._section.train.batch_size):
                here = batch.to(model.world.latent_mean.device)
                agent = read_windows(model, here, self._tau_context, draw_noise(here.latents, generator))  # (B, T, D)
                if index == 0:
                    logits = (cloning or model.policy)(agent)[..., 0, :]
                    judge_policy(sums, ActionDistribution(model.choices, logits), here, self._guess.action)
                if self._heads:
                    judge_heads(sums, model, agent, here, self._guess)
        return {f"heldout_{name}": value for name, value in sums.means().items()}

    def _fitted(self, model: AgentModel) -> ConstantGuess:
        rng = np.random.default_rng(HELDOUT_SEED)
        guess = ConstantGuess(model.choices, model.twohot)
        for index, draw in enumerate(self._draws):
            for start in range(0, FITTED_WINDOWS, CHUNK):
                places = draw(self._section, self._train.sampler, rng, min(CHUNK, FITTED_WINDOWS - start))
                guess.see(read_recorded(self._section, self._train, places), imitated=index == 0)
        return guess


class FinetunedJudge:
    """`HeldoutPlay` with all heads, and the agent's own world (see `HeldoutWorld`) on as many windows from anywhere."""

    def __init__(self, section: AgentSection, train: LatentWindows, heldout: LatentWindows, tau_context: float) -> None:
        settings = section.train
        self._play = HeldoutPlay(section, train, heldout, tau_context, heads=True)
        self._world = HeldoutWorld(
            heldout, settings.heldout_examples, section.batch_length, settings.batch_size, tau_context
        )

    def judge(self, model: AgentModel, cloning: DistanceHead | None = None) -> dict[str, float]:
        """Metrics of the heads and of the world; see `HeldoutPlay.judge`."""
        return self._play.judge(model, cloning) | self._world.judge(model.world)

    def flow(self, world: DynamicsModel) -> float:
        """`heldout_flow` of another world on the same windows."""
        return self._world.flow(world)


class Sums:
    """Means over everything that counts of all batches; NaN where nothing does."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, values: Tensor, counted: Tensor) -> None:
        """Values (...) where `counted` (...) is true."""
        total, count = self._sums.get(name, (0.0, 0.0))
        found = torch.where(counted, values.float(), torch.zeros(())).sum().item()
        self._sums[name] = total + found, count + counted.sum().item()

    def means(self) -> dict[str, float]:
        """By name."""
        return {name: total / count if count else float("nan") for name, (total, count) in self._sums.items()}


@dataclass(frozen=True)
class Now:
    """Targets (B, T, ...) of distance 0 and where they are known (B, T)."""

    target: Tensor
    known: Tensor

    @classmethod
    def of(cls, values: Tensor, known: Tensor, valid: Tensor, offset: int) -> Now:
        """From blocks (B, F, ...), those that count being `valid` (B, T)."""
        target, there = gather_targets(values, known, valid.shape[1], 1, offset)
        return cls(target[:, :, 0], there[:, :, 0] & valid)


def judge_policy(sums: Sums, policy: ActionDistribution, batch: LatentBatch, marginal: Tensor) -> None:
    """Add -ln p(a_t | h_t), that of the uniform and the marginal (K,) guess, and how often the likeliest is right."""
    now = Now.of(batch.action, batch.action_valid, batch.valid, POLICY_OFFSET)
    taken = torch.where(now.known[..., None], now.target, torch.zeros_like(now.target))
    choices, length = policy.choices, batch.valid.shape[1]
    sums.add("policy", -policy.log_prob(taken), now.known)
    for name, logits in (("uniform", torch.zeros_like(marginal)), ("marginal", marginal)):
        constant = ActionDistribution(choices, logits.to(taken.device).expand(*taken.shape[:-1], -1))
        sums.add(f"policy_{name}", -constant.log_prob(taken), now.known)
    wanted = choices.quantise(taken)
    sums.add("accuracy", (policy.mode() == wanted).all(dim=-1), now.known)
    before = choices.quantise(batch.action[:, :length])
    sums.add("accuracy_repeat_last", (before == wanted).all(dim=-1), now.known & batch.action_valid[:, :length])


def judge_heads(sums: Sums, model: AgentModel, agent: Tensor, batch: LatentBatch, guess: ConstantGuess) -> None:
    """Add the losses of reward and continue at read-outs agent (B, T, D), and those of the constant guesses."""
    reward = Now.of(batch.reward, batch.reward_valid, batch.valid, REWARD_OFFSET)
    logits = model.reward(agent)[..., 0, :]
    constant = guess.reward.to(logits.device).expand_as(logits)
    sums.add("reward", model.twohot.loss(logits, reward.target), reward.known)
    sums.add("reward_baseline", model.twohot.loss(constant, reward.target), reward.known)
    goes_on = Now.of(~batch.terminal, batch.reward_valid, batch.valid, REWARD_OFFSET)
    logits = model.alive(agent)[..., 0, 0]
    constant = guess.goes_on.to(logits.device).expand_as(logits)
    sums.add("continue", binary_loss(logits, goes_on.target), goes_on.known)
    sums.add("continue_baseline", binary_loss(constant, goes_on.target), goes_on.known)
    sums.add("end_share", ~goes_on.target, goes_on.known)


class ConstantGuess:
    """The best guesses that look at nothing: how often what came in training windows.

    Decision: one example more, spread evenly over all outcomes, so that what never came is not impossible.
    """

    def __init__(self, choices: ActionChoices, twohot: TwoHot) -> None:
        self._choices, self._twohot = choices, twohot
        self._actions = torch.cat([(torch.ones_like(p) / p.shape[-1]).flatten() for p in self._one_of_each()])
        self._rewards = torch.full((twohot.num_buckets,), 1 / twohot.num_buckets)
        self._ends = torch.tensor([0.5, 0.5])  # ended, went on

    def _one_of_each(self) -> Iterator[Tensor]:
        return (part for _, part in self._choices.split(torch.zeros(self._choices.num_logits)))

    def see(self, batch: LatentBatch, *, imitated: bool) -> None:
        """Count what came in a batch; actions only where they are imitated."""
        if imitated:
            now = Now.of(batch.action, batch.action_valid, batch.valid, POLICY_OFFSET)
            self._actions += self._counts(now.target[now.known])
        reward = Now.of(batch.reward, batch.reward_valid, batch.valid, REWARD_OFFSET)
        self._rewards += self._twohot.encode(reward.target[reward.known]).sum(dim=0)
        ended = batch.terminal[:, : batch.valid.shape[1]][reward.known]
        self._ends += torch.stack([ended.sum(), (~ended).sum()])

    def _counts(self, action: Tensor) -> Tensor:
        """How often each choice was made in action rows (rows, A): (K,)."""
        columns, found = self._choices.spec.slices(), []
        for component, part in self._choices.split(torch.zeros(self._choices.num_logits)):
            index = self._choices.to_index(component, action[:, columns[component.name]])  # (rows, dim)
            found.append(torch.nn.functional.one_hot(index, part.shape[-1]).sum(dim=0).flatten())
        return torch.cat(found)

    @property
    def action(self) -> Tensor:
        """Logits (K,) of the marginal action frequencies."""
        return self._actions.log()

    @property
    def reward(self) -> Tensor:
        """Logits (N,) of the mean two-hot target, which no other constant betters in cross-entropy."""
        return self._rewards.log()

    @property
    def goes_on(self) -> Tensor:
        """Logit () of the share of frames after which the game went on."""
        return self._ends[1].log() - self._ends[0].log()


def _parts(batch: LatentBatch, rows: int) -> Iterator[LatentBatch]:
    return (batch.rows(slice(start, start + rows)) for start in range(0, len(batch.valid), rows))
