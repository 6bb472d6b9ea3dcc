"""Dreams from held-out contexts, and recorded held-out play where the transformer learns too."""

from __future__ import annotations

import numpy as np

from ahriuwu_cli.agent.checkpoint import LoadedAgent
from ahriuwu_cli.agent.heldout import FinetunedJudge
from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.dynamics.shortcut_forcing import snap
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.finetune import agent_section
from ahriuwu_cli.imagination.guard import Outside
from ahriuwu_cli.imagination.losses import imagination_loss
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.rollout import Rollout
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows

REPORTED = (
    "imagined_return", "imagined_reward_per_step", "imagined_end", "value_loss", "value_error", "kl_to_prior",
    "entropy", "outside",
)  # fmt: skip


def heldout_contexts(section: ImagineSection, windows: LatentWindows) -> LatentBatch | None:
    """Where held-out dreams start, always the same; None where every held-out episode is too short.

    Decision: no more of them than a training batch has, so that they take no more memory.
    """
    count = min(section.train.heldout_examples, section.train.batch_size)
    try:
        places = windows.sampler.draw_contexts(np.random.default_rng(HELDOUT_SEED), count, section.context_length)
    except DataError:
        return None
    return windows.read(places, section.context_length)


def heldout_judge(agent: LoadedAgent, train: LatentWindows, heldout: LatentWindows | None) -> FinetunedJudge | None:
    """What judged the agent while it was finetuned, on the same windows: its numbers can be compared."""
    if heldout is None:
        return None
    tau_context = snap(agent.sampler.tau_context, agent.model.world.config.k_max)
    return FinetunedJudge(agent_section(agent), train, heldout, tau_context)


def judge_dreams(
    model: ImaginationModel, rollout: Rollout, settings: ImagineSection, outside: Outside
) -> dict[str, float]:
    """What training logs of its own dreams, of these."""
    _, metrics = imagination_loss(model, rollout, settings, outside)
    return {f"heldout_{name}": metrics[name].item() for name in REPORTED}


def judge_world(judge: FinetunedJudge, model: ImaginationModel) -> dict[str, float]:
    """The agent's metrics on recorded play; of the two policies it is the prior that imitates."""
    found = judge.judge(model.agent, cloning=model.prior)
    return {name.replace("policy", "prior"): value for name, value in found.items()}
