"""Whether two-hot heads can say the rewards and returns that were recorded, asked before training."""

from __future__ import annotations

import math

from ahriuwu_cli.agent.config import HeadsConfig
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.latents.rewards import largest_return
from ahriuwu_cli.latents.windows import LatentWindows


def require_reward_range(heads: HeadsConfig, windows: LatentWindows, gamma: float = 0.0) -> None:
    """Refuse heads whose buckets end before the largest recorded reward or, with `gamma`, discounted return.

    Beyond the last bucket targets are clamped: the head would learn a game that pays less than the recorded one.

    Raises:
        ConfigError: with the number that was found and the limit that would do.
    """
    found = max(largest_return(windows.task_rewards(task).values(), gamma) for task in range(len(windows.tasks)))
    needed = math.log1p(found)
    if needed <= heads.bucket_limit:
        return
    what = f"discounted return (gamma {gamma:g})" if gamma else "reward"
    raise ConfigError(
        f"the largest recorded {what} is {found:.6g}; agent.heads.bucket_limit = {heads.bucket_limit:g} reaches "
        f"{math.expm1(heads.bucket_limit):.6g}",
        hint=f"set agent.heads.bucket_limit = {math.ceil(needed * 10) / 10:g} or more"
        + (", and finetune the agent again" if gamma else ""),
    )
