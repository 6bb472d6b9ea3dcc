"""The built-in policies: their streams, the share of noise, and what they say when there is no expert."""

from typing import Any

import numpy as np
import pytest

from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.games.policies import EPISODE_SEED, NoisyExpertPolicy, Policy, RandomPolicy, RepeatLastPolicy

SPEC = ActionSpec(components=(ActionComponent(name="action", type="categorical", num_classes=1000),))


def act(policy: Policy, first: list[bool], infos: list[dict[str, Any]]) -> np.ndarray:
    return policy.act(np.zeros((len(first), 8, 8, 3), np.uint8), np.array(first), infos)


def infos_of(*seeds: int, expert: Any = 7) -> list[dict[str, Any]]:
    return [{EPISODE_SEED: seed, "expert_action": expert} for seed in seeds]


def test_an_episode_draws_from_its_own_stream() -> None:
    """What a policy draws depends on the policy's and the episode's seed, not on the slot or the others."""
    alone, beside = RandomPolicy(SPEC), RandomPolicy(SPEC)
    alone.reset(1, seed=5)
    beside.reset(3, seed=5)
    rows = [act(alone, [t == 0], infos_of(42))[0, 0] for t in range(6)]
    others = [act(beside, [t == 0, t == 3, t == 0], infos_of(1, 2, 42)) for t in range(6)]
    assert rows == [row[2, 0] for row in others]
    assert len(set(rows)) > 3
    again = RandomPolicy(SPEC)
    again.reset(1, seed=6)
    assert rows != [act(again, [t == 0], infos_of(42))[0, 0] for t in range(6)]


def test_rows_have_the_right_type_and_width(action_spec: ActionSpec) -> None:
    for policy in (RandomPolicy(action_spec), RepeatLastPolicy(action_spec), NoisyExpertPolicy(action_spec, 0.5)):
        policy.reset(2, seed=0)
        rows = act(policy, [True, True], infos_of(0, 1, expert=np.zeros(4)))
        assert rows.shape == (2, 4)
        assert rows.dtype == np.float32


def test_noise_is_the_share_of_random_actions() -> None:
    for noise in (0.0, 0.3, 1.0):
        policy = NoisyExpertPolicy(SPEC, noise)
        policy.reset(4, seed=0)
        rows = np.stack([act(policy, [t == 0] * 4, infos_of(0, 1, 2, 3)) for t in range(500)])
        assert abs((rows != 7).mean() - noise) < 0.04
    assert NoisyExpertPolicy(SPEC, 0.3).name == "noisy-expert(0.3)"


def test_some_episodes_are_random_from_end_to_end() -> None:
    seeds = range(400)
    policy = NoisyExpertPolicy(SPEC, 0.2, random_episodes=0.25)
    policy.reset(len(seeds), seed=0)
    rows = np.stack([act(policy, [t == 0] * len(seeds), infos_of(*seeds))[:, 0] for t in range(60)])
    shares = (rows != 7).mean(axis=0)  # of random actions, one per episode
    assert abs((shares > 0.9).mean() - 0.25) < 0.06
    assert abs(shares[shares < 0.9].mean() - 0.2) < 0.02
    assert policy.name == "noisy-expert(0.2, 0.25 of the episodes random)"
    beside = NoisyExpertPolicy(SPEC, 0.2, random_episodes=0.25)
    beside.reset(2, seed=0)  # the kind is the episode's own, whatever slot plays it
    for t in range(60):
        assert act(beside, [t == 0] * 2, infos_of(17, 3))[:, 0].tolist() == rows[t, [17, 3]].tolist()


def test_noisy_expert_without_an_expert_says_so() -> None:
    policy = NoisyExpertPolicy(SPEC, 0.5)
    policy.reset(1, seed=0)
    with pytest.raises(InputError, match="expert_action") as caught:
        act(policy, [True], [{EPISODE_SEED: 0}])
    assert "random" in caught.value.hint
    for wrong in ("left", [1, 2]):
        with pytest.raises(InputError, match="width 1"):
            act(policy, [True], infos_of(0, expert=wrong))


@pytest.mark.parametrize("noise", [-0.1, 1.1])
def test_noise_outside_its_range_is_refused(noise: float) -> None:
    with pytest.raises(ConfigError, match="noise"):
        NoisyExpertPolicy(SPEC, noise)
    with pytest.raises(ConfigError, match="random_episodes"):
        NoisyExpertPolicy(SPEC, 0.5, noise)


def test_repeat_last_repeats_within_an_episode() -> None:
    policy = RepeatLastPolicy(SPEC)
    policy.reset(2, seed=0)
    rows = [act(policy, [t in (0, 4), t == 0], infos_of(10 + t // 4, 5))[:, 0].tolist() for t in range(8)]
    assert len({row[1] for row in rows}) == 1
    assert len({row[0] for row in rows[:4]}) == len({row[0] for row in rows[4:]}) == 1
    assert rows[0][0] != rows[4][0]
