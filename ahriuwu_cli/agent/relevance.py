"""Which windows the settings call relevant, how many of the recorded ones are, and when that is too many or too few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ahriuwu_cli.agent.config import AgentSection, Rule
from ahriuwu_cli.core.training.stage import Opening
from ahriuwu_cli.latents.rewards import ByReturn, ByReward, Relevance, num_starts
from ahriuwu_cli.latents.windows import LatentWindows

MOST = 0.95
"""Share of windows above which the rule says next to nothing: what it leaves out is hardly missed."""
LEAST = 0.001
"""Share below which the same few windows are imitated again and again."""


class AgentData(BaseModel):
    """What an agent's config says of the data it learned from; what older ones do not say is at its default."""

    model_config = ConfigDict(strict=True)

    tasks: dict[str, str] = {}
    batch_length: int = 16
    relevant: Rule = "reward"
    relevant_reach: int = 0
    relevant_quantile: float = 0.75


def relevance(settings: AgentSection | AgentData) -> Relevance:
    """The rule that settings ask for."""
    if settings.relevant == "return":
        return ByReturn(settings.batch_length, settings.relevant_reach, settings.relevant_quantile)
    return ByReward(settings.relevant_reach)


def relevant_shares(windows: LatentWindows, length: int) -> dict[str, float]:
    """By task, the share of all windows of `length` latents of its episodes that are relevant."""
    return {name: _share(windows, task, length) for task, name in enumerate(windows.tasks)}


def _share(windows: LatentWindows, task: int, length: int) -> float:
    chosen: dict[int, list[int]] = {}
    for index, block in windows.sampler.relevant_blocks(task):
        chosen.setdefault(index, []).append(block)
    sizes = {i: e.num_latents for i, e in enumerate(windows.episodes) if task in windows.tasks_of(i)}
    total = sum(num_starts(length, size) for size in sizes.values())
    found = sum(int(windows.sampler.relevance.starts(blocks, length, sizes[i]).sum()) for i, blocks in chosen.items())
    return found / total if total else 0.0


@dataclass(frozen=True)
class Remark:
    """What is odd about a share of relevant windows, and what may be changed."""

    text: str
    hint: str


def opening(shares: Mapping[str, float], settings: AgentSection) -> Opening:
    """What finetuning says of its relevant windows before it begins."""
    found = ", ".join(f"{in_percent(share)}{_of(task, shares)}" for task, share in shares.items())
    what = "a higher return than most" if settings.relevant == "return" else "more than the usual reward"
    line = f'relevant windows, with {what} (agent.relevant = "{settings.relevant}"): {found}'
    remarks = [unusual(task, shares, settings) for task in shares]
    return Opening((line,), tuple(f"{one.text}: {one.hint}" for one in remarks if one is not None))


def unusual(task: str, shares: Mapping[str, float], settings: AgentSection | AgentData) -> Remark | None:
    """What is to be said of a task's share; None where there is nothing."""
    share, by_return, named = shares[task], settings.relevant == "return", _of(task, shares)
    if LEAST <= share <= MOST:
        return None
    if share == 0:
        then = f"none is imitated{named}" if any(shares.values()) else "all are imitated alike"
        hint = DIFFER if by_return else f'set agent.relevant = "return" where rewards only punish, or {MORE}'
        return Remark(f"no window is relevant{named}, so {then}", hint)
    text = f"{in_percent(share)} of the windows are relevant{named}"
    if share < LEAST:
        what = "lower agent.relevant_quantile" if by_return else "raise agent.relevant_reach"
        return Remark(f"{text}, so the same few are imitated over and over", f"{what}, or {MORE}")
    what = "raise agent.relevant_quantile or agent.relevant_reach" if by_return else 'set agent.relevant = "return"'
    lower = ", or lower agent.relevant_reach" if settings.relevant_reach and not by_return else ""
    return Remark(f"{text}, so nearly all play is imitated alike", what + lower)


DIFFER = (
    "lower agent.relevant_reach or agent.batch_length where episodes are shorter than both together, or record "
    "play that differs (data.noise, data.random_episodes)"
)
MORE = "record a player that earns more (data.policy, data.noise)"


def in_percent(share: float) -> str:
    """A share with as many digits as a small one needs."""
    return f"{share:.1%}" if share >= 0.01 or not share else f"{100 * share:.2g}%"


def _of(task: str, shares: Mapping[str, float]) -> str:
    """Which task, where there are several."""
    return f" for task {task}" if len(shares) > 1 else ""
