"""An agent in the real game: episodes of their own, memory that ends with them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.agent.checkpoint import LoadedAgent, load_agent
from ahriuwu_cli.agent.player import AgentPolicy, load_player
from ahriuwu_cli.agent.train import finetune_agent
from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.errors import ArtifactError, DataError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.dynamics.shortcut_forcing import corrupt, snap
from ahriuwu_cli.episodes.alignment import to_blocks
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import EPISODE_SEED
from ahriuwu_cli.games.runner import play_episodes
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.protocol import to_pixels

CPU = torch.device("cpu")
SEEDS = [11, 22, 33, 44, 55]


@pytest.fixture(scope="module")
def agent_path(packed_run, dynamics_path, cpu_runtime, awake, tmp_path_factory) -> Path:
    """An agent file with large random weights, so that frames and memory decide what it does."""
    folder = tmp_path_factory.mktemp("agent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        finetune_agent(
            packed_run.config.agent, dynamics_path, packed_run.packed, folder, cpu_runtime, seed=0, resume=False
        )
    path = folder / "agent.safetensors"
    header, _ = read_weights(path, "agent")
    tensors = awake(load_agent(path, CPU).model).state_dict()
    fields = {"config": header.config, "specs": header.specs, "parents": header.parents, "info": header.info}
    write_weights(path, "agent", tensors, **fields)
    return path


@pytest.fixture
def player(packed_run, agent_path, cpu_runtime) -> AgentPolicy:
    return load_player(agent_path, packed_run.tokenizer, cpu_runtime, temperature=1.0)


def play(packed_run, player, seeds=SEEDS, policy_seed=3, num_envs=5):
    return play_episodes(
        lambda: make_env(packed_run.config.data),
        player,
        seeds,
        policy_seed=policy_seed,
        num_envs=num_envs,
        max_steps=12,
    )


def infos(*seeds: int) -> list[dict[str, int]]:
    return [{EPISODE_SEED: seed} for seed in seeds]


def test_an_episode_does_not_depend_on_those_beside_it(packed_run, player):
    """The same five episodes one by one, two at a time and all at once."""
    played = {num_envs: play(packed_run, player, num_envs=num_envs) for num_envs in (1, 2, 5)}
    for num_envs in (1, 2):
        for left, right in zip(played[5], played[num_envs], strict=True):
            assert np.array_equal(left.actions, right.actions)
            assert np.array_equal(left.frames, right.frames)
    alone = play(packed_run, player, seeds=[44])
    assert np.array_equal(alone[0].actions, played[5][3].actions)
    actions = [episode.actions for episode in played[5]]
    assert not any(np.array_equal(actions[0][:8], other[:8]) for other in actions[1:])  # streams of their own
    again = play(packed_run, player, policy_seed=4)
    assert not all(np.array_equal(left.actions, right.actions) for left, right in zip(again, played[5], strict=True))


@pytest.fixture(scope="module")
def frames(packed_run) -> np.ndarray:
    """Two recorded episodes' first frames, (2, 10, H, W, 3)."""
    store = EpisodeStore.open(packed_run.episodes)
    return np.stack([store.read(record.id).frames[:10] for record in store.episodes[:2]])


def test_run_compile_reaches_the_player(packed_run, agent_path, cpu_runtime, frames, backend):
    """What plays with compiled code decides as without."""
    decided = []
    for compiled in (False, True):
        runtime = replace(cpu_runtime, compile=compiled)
        player = load_player(agent_path, packed_run.tokenizer, runtime, temperature=1.0)
        read = Read(player)
        player.reset(2, 3)
        act(player, frames[:, 0], [True, True], 1, 2)
        decided.append(read.logits[0])
        assert bool(backend) == compiled
    np.testing.assert_allclose(decided[0], decided[1], atol=1e-4)


class Read:
    """Records the policy logits that `act` works with."""

    def __init__(self, player: AgentPolicy) -> None:
        self.logits: list[np.ndarray] = []
        player._agent.model.policy.register_forward_hook(lambda m, i, out: self.logits.append(out[:, 0].numpy()))


def act(player: AgentPolicy, frames: np.ndarray, first: list[bool], *seeds: int) -> np.ndarray:
    return player.act(frames, np.array(first), infos(*seeds))


def test_a_new_episode_forgets_the_old_one(player, frames):
    """After `first` a slot is as new, to the logits; the slot beside it remembers."""
    read = Read(player)
    player.reset(2, 3)
    for t in range(6):
        act(player, frames[:, t], [t == 0] * 2, 1, 2)
    went_on = [act(player, frames[:, t], [t == 6, False], 9, 2) for t in range(6, 10)]
    logits = read.logits[-4:]

    read.logits.clear()
    player.reset(2, 3)
    fresh = [act(player, frames[:, t], [t == 6] * 2, 9, 2) for t in range(6, 10)]
    for old, new in zip(went_on, fresh, strict=True):
        assert np.array_equal(old[0], new[0])
    for old, new in zip(logits, read.logits, strict=True):
        np.testing.assert_allclose(old[0], new[0], atol=1e-3)
    assert np.abs(logits[0][1] - read.logits[0][1]).max() > 1e-2

    read.logits.clear()
    player.reset(2, 3)
    for t in range(6):
        act(player, frames[:, t], [t == 0] * 2, 1, 2)
    act(player, frames[:, 6], [False, False], 9, 2)
    assert np.abs(read.logits[-1][0] - logits[0][0]).max() > 1e-2  # it can tell


def test_the_player_sees_what_training_showed(packed_run, player, agent_path, frames):
    """Pitfalls 16 and 27: block by block the logits of one forward pass over the recorded, encoded, aligned episode."""
    store = EpisodeStore.open(packed_run.episodes)
    episode = store.read(store.episodes[0].id)
    loaded = load_agent(agent_path, CPU)
    model, read, length = loaded.model, Read(player), 4
    noises: list[torch.Tensor] = []
    player.reset(1, 3)
    draw = player._dream._draw
    player._dream._draw = lambda shape: noises.append(draw(shape)) or noises[-1]
    for t in range(length):
        player.act(episode.frames[t][None], np.array([t == 0]), infos(1))
        player._last = episode.actions[t][None]  # what the recorded episode did then
    tokenizer, _ = load_tokenizer(packed_run.tokenizer, CPU)
    blocks = to_blocks(
        actions=episode.actions,
        action_valid=episode.action_valid,
        rewards=episode.rewards,
        terminals=episode.terminals,
    )
    with torch.no_grad():
        z = model.world.normalise(tokenizer.encode(to_pixels(torch.from_numpy(episode.frames[:length]))[None]))
        tau = torch.full((1, length), snap(loaded.sampler.tau_context, 8))
        out = model.world(
            corrupt(z, torch.cat(noises, dim=1), tau),
            tau,
            torch.full_like(tau, 1 / 8),
            torch.from_numpy(blocks.action[None, :length]),
            torch.from_numpy(blocks.action_valid[None, :length]),
            task=torch.zeros(1, dtype=torch.long),
            window=loaded.sampler.context_length,
        )
        expected = model.policy_now(out.agent)[0].numpy()
    np.testing.assert_allclose(np.concatenate(read.logits), expected, atol=1e-3)


def test_temperature_is_what_the_caller_says(packed_run, agent_path, cpu_runtime, frames):
    """Pitfall 17: near zero it is the mode; at a high temperature every action comes."""
    cold = load_player(agent_path, packed_run.tokenizer, cpu_runtime, temperature=1e-4)
    hot = load_player(agent_path, packed_run.tokenizer, cpu_runtime, temperature=1e4)
    read = Read(cold)
    rows = {}
    for name, player in (("cold", cold), ("hot", hot)):
        player.reset(2, 3)
        rows[name] = np.stack([act(player, frames[:, t], [t == 0] * 2, 1, 2) for t in range(10)])
    assert np.array_equal(rows["cold"][..., 0], np.stack(read.logits).argmax(axis=-1))
    assert set(rows["hot"].flatten()) == {0.0, 1.0, 2.0}


def test_another_environment_is_refused(player):
    spec = ActionSpec(components=(ActionComponent(name="paddle", type="continuous", low=0.0, high=1.0),))
    with pytest.raises(ArtifactError, match=r"\(paddle\) are not those of agent .* \(action\)"):
        player.require_spec(spec)
    player.require_spec(player._agent.specs.action)


def test_another_tokenizer_is_refused_naming_both_fingerprints(packed_run, agent_path, cpu_runtime, tmp_path):
    header, tensors = read_weights(packed_run.tokenizer, "tokenizer")
    other = tmp_path / "tokenizer.safetensors"
    tensors = {name: tensor + 1 for name, tensor in tensors.items()}
    written = write_weights(
        other, "tokenizer", tensors, config=header.config, specs=header.specs, parents=header.parents
    )
    with pytest.raises(ArtifactError) as caught:
        load_player(agent_path, other, cpu_runtime, temperature=1.0)
    assert written.fingerprint in caught.value.message
    assert header.fingerprint in caught.value.message
    assert read_header(agent_path, "agent").parents["tokenizer"] == header.fingerprint


def test_tasks_are_named(packed_run, agent_path, cpu_runtime):
    agent: LoadedAgent = load_agent(agent_path, CPU)
    tokenizer, _ = load_tokenizer(packed_run.tokenizer, CPU)
    AgentPolicy("a", agent, tokenizer, cpu_runtime, temperature=1.0, task="play")
    with pytest.raises(InputError, match="knows no task 'fly'; expected one of play"):
        AgentPolicy("a", agent, tokenizer, cpu_runtime, temperature=1.0, task="fly")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_finite_numbers_are_no_choice(packed_run, player, value):
    """Pitfall 15: among NaN the first action is as large as any, and was played."""
    with torch.no_grad():
        player._agent.model.policy.net.out.bias[0] = value
    with pytest.raises(DataError, match="agent agent gives no finite numbers"):
        play(packed_run, player)
