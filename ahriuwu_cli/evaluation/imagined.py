"""Returns in one dream that several actors play: the same world, contexts and noise for each of them.

Shapes: M contexts, B of them side by side, C context latents, H imagined ones, A action width, K action logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.dynamics.sampler import Dream, noise_from
from ahriuwu_cli.evaluation.acting import Actor, Reader
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.dreaming import DREAM_BATCH
from ahriuwu_cli.imagination.objective import reach_weights
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows


@dataclass(frozen=True)
class Scene:
    """Where all of them act.

    Attributes:
        world: the agent whose dynamics, reward and continue make the dream.
        batch: (M, C + H) held-out windows; their first C latents are shown.
        episodes: (M,) index of the episode of each.
        settings: of the evaluation.
        num_steps: K, Euler steps per imagined latent.
        seed: of all noise.
        uses_ends: the continue head is read; where recordings never end, c = 1.
    """

    world: Reader
    batch: LatentBatch
    episodes: NDArray[np.int64]
    settings: EvalSection
    num_steps: int
    seed: int
    uses_ends: bool

    @classmethod
    def draw(cls, world: Reader, windows: LatentWindows, settings: EvalSection, seed: int, *, uses_ends: bool) -> Scene:
        """The contexts of `eval rollout` with the same seed and settings.

        Raises:
            DataError: held-out episodes are too short.
        """
        length = settings.context_length + settings.horizon
        places = windows.sampler.draw_whole(
            np.random.default_rng(seed), settings.contexts, length, setting="eval.context_length + eval.horizon"
        )
        steps = settings.sampling_steps or world.agent.sampler.steps
        episodes = np.array([place.episode for place in places], np.int64)
        return cls(world, windows.read(places, length), episodes, settings, steps, seed, uses_ends)

    @property
    def is_known(self) -> bool:
        """What was done after the contexts is known at every step."""
        return bool(self.batch.action_valid[:, self.settings.context_length :].all())

    @property
    def recorded_return(self) -> float | None:
        """Mean of what the recordings came to over the same steps; None where that is not known."""
        after = (slice(None), slice(self.settings.context_length, None))
        if not self.batch.reward_valid[after].all():
            return None
        return float(self.batch.reward[after].double().sum(dim=1).mean())

    @property
    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "contexts": self.settings.contexts,
            "context_length": self.settings.context_length,
            "horizon": self.settings.horizon,
            "sampling_steps": self.num_steps,
            "temperature": self.settings.temperature,
            "recorded_return": self.recorded_return,
        }


@torch.no_grad()
def imagined_returns(scene: Scene, actor: Actor | None, runtime: Runtime) -> NDArray[np.float64]:
    """The sum of the rewards that each context leads to, each weighed by the probability that the game still goes on.

    Args:
        scene: where it acts.
        actor: who; None for what was done in the recordings.
        runtime: device and precision.

    Returns:
        (M,), undiscounted.
    """
    parts = range(0, scene.settings.contexts, DREAM_BATCH)
    found = [_played(scene, actor, slice(start, start + DREAM_BATCH), scene.seed + start, runtime) for start in parts]
    return np.concatenate(found)


def _played(scene: Scene, actor: Actor | None, rows: slice, seed: int, runtime: Runtime) -> NDArray[np.float64]:
    """Some of the contexts; all that is random depends on the seed alone, whoever acts."""
    model, length = scene.world.agent.model, scene.settings.context_length
    here = scene.batch.rows(rows).to(runtime.device)
    choices = torch.Generator().manual_seed(seed + 1)
    noise = noise_from(torch.Generator().manual_seed(seed))
    dream = Dream(model.world, scene.world.agent.sampler, noise=noise, task=here.task, num_steps=scene.num_steps)
    look = None if actor is None else actor.begin(here.task, seed + 2)
    context = (slice(None), slice(0, length))
    latents, action, valid = here.latents[context], here.action[context], here.action_valid[context]
    rewards, goes_on = [], []
    with runtime.autocast():
        dream.observe(model.world.normalise(latents), action, valid)
        for t in range(length, length + scene.settings.horizon):
            if look is None or actor is None:
                chosen = here.action[:, t]
            else:
                logits = look(latents, action, valid)[:, -1].float()  # (B, K)
                uniform = torch.rand(logits.shape, generator=choices).to(logits.device)
                chosen = ActionDistribution(actor.choices, logits, scene.settings.temperature).sample(uniform)
            moment = dream.step(chosen)
            assert moment.agent is not None, "a task is given"
            rewards.append(model.reward_now(moment.agent))
            goes_on.append(model.alive_now(moment.agent))
            latents = model.world.denormalise(moment.z)[:, None]
            action, valid = chosen[:, None], torch.ones_like(here.action_valid[:, :1])
    reward, alive = torch.stack(rewards, dim=1).float(), torch.stack(goes_on, dim=1).float()  # (B, H)
    reach = reach_weights(alive) if scene.uses_ends else torch.ones_like(alive)
    returns: NDArray[np.float64] = (reward * reach).sum(dim=1).double().cpu().numpy()
    return returns
