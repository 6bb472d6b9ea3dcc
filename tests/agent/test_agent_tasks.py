"""Several tasks in one agent, on actions of every type: from episodes to a trained file and what is read from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.agent.batches import read_recorded, relevant_places, uniform_places
from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.player import load_player
from ahriuwu_cli.agent.relevance import relevance
from ahriuwu_cli.agent.train import AgentStage, finetune_agent, term_weights
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.training.loop import moved
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.episodes.actions import ActionRange, random_row
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.imagination.train import ImagineStage, train_imagination
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.tokenizer.train import TokenizerStage

CPU = torch.device("cpu")
TASKS = {"jump": "event:jump", "play": "reward"}


@dataclasses.dataclass(frozen=True)
class World:
    """Folder of a small world with an action of every type, its config, and its trained dynamics."""

    folder: Path
    config: object

    @property
    def packed(self) -> Path:
        return self.folder / "packed"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.safetensors"

    @property
    def dynamics(self) -> Path:
        return self.folder / "dynamics" / "dynamics.safetensors"

    def section(self, **changes) -> AgentSection:
        return self.config.agent.model_copy(update={"tasks": TASKS, **changes})


def made_up(toy_specs, seed: int, task: str) -> Episode:
    """25 steps of random actions of every type; a jump at steps 6 and 16, a reward at every fifth step."""
    rng, steps = np.random.default_rng(seed), 25
    return Episode(
        frames=rng.integers(0, 256, (steps + 1, 32, 32, 3), dtype=np.uint8),
        actions=np.stack([random_row(toy_specs.action, rng) for _ in range(steps)]),
        action_valid=np.ones(steps, bool),
        rewards=(np.arange(steps) % 5 == 4).astype(np.float32),
        terminals=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, bool),
        timestamps=np.arange(steps + 1) / toy_specs.frame.fps,
        task=task,
        seed=seed,
        policy="hand",
        events={"jump": (np.arange(steps) % 10 == 6).astype(np.float32)},
    )


@pytest.fixture(scope="module")
def world(packed_run, toy_specs, cpu_runtime, tmp_path_factory, write_tokenizer) -> World:
    """Six episodes, half of them of the task `idle`, encoded, packed, and dynamics of four steps."""
    made, config = World(tmp_path_factory.mktemp("tasks"), packed_run.config), packed_run.config
    episodes, latents = made.folder / "episodes", made.folder / "latents"
    store = EpisodeStore.create(episodes, toy_specs.action, toy_specs.frame, "Some-v0", {}, heldout_fraction=0.34)
    store.append([made_up(toy_specs, seed, ("play", "idle")[seed % 2]) for seed in range(6)])
    torch.manual_seed(0)
    stage = TokenizerStage(config.tokenizer, episodes, cpu_runtime, 0)
    write_tokenizer(stage, made.tokenizer)
    build_latents(episodes, made.tokenizer, latents, config.latents, cpu_runtime)
    pack_latents(episodes, latents, made.packed, config.latents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        train_dynamics(config.dynamics, made.packed, made.dynamics.parent, cpu_runtime, seed=0, resume=False)
    return made


@pytest.fixture(scope="module")
def agent_path(world, cpu_runtime) -> Path:
    """An agent of both tasks after four steps."""
    folder = world.folder / "agent"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        finetune_agent(world.section(), world.dynamics, world.packed, folder, cpu_runtime, seed=0, resume=False)
    return folder / "agent.safetensors"


def stage_of(world, runtime, **changes) -> AgentStage:
    section = world.section(**changes)
    windows = LatentWindows(world.packed, "train", section.tasks)
    torch.manual_seed(0)
    return AgentStage(section, load_world(world.dynamics, CPU), windows, runtime, 0)


# ---------------------------------------------------------------- settings


def read_section(tasks) -> AgentSection:
    train = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    return validate(AgentSection, {"tasks": tasks, "train": train}, "run.toml", ())


def test_sources_are_the_reward_or_an_event():
    assert read_section({}).tasks == {}
    assert list(read_section({"b": "reward", "a": "event:x_1"}).tasks.items()) == [("b", "reward"), ("a", "event:x_1")]


@pytest.mark.parametrize("source", ["", "rewards", "event:", "event:a b", "event: a", "jump", "Reward"])
def test_other_sources_are_refused(source):
    with pytest.raises(ConfigError, match='expected a name with "reward" or "event:NAME"'):
        read_section({"go": source})
    with pytest.raises(ConfigError, match="expected a name"):
        read_section({"": "reward"})


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"win": "reward"}, '"win" takes the reward, but the episodes were recorded under play, idle'),
        ({"win": "event:win"}, 'the event "win"; the packed episodes have the events jump'),
    ],
)
def test_tasks_that_the_episodes_do_not_tell_of_are_refused_before_training(
    world, cpu_runtime, tmp_path, tasks, message
):
    with pytest.raises(ConfigError, match=message):
        finetune_agent(
            world.section(tasks=tasks), world.dynamics, world.packed, tmp_path / "x", cpu_runtime, seed=0, resume=False
        )
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- finetuning


def test_one_step_trains_every_tensor_on_actions_of_every_type(world, cpu_runtime):
    """Pitfalls 2 and 3: categorical, binary and continuous logits, every distance, and each task's embedding."""
    stage = stage_of(world, cpu_runtime)
    before = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    optimiser = torch.optim.SGD(stage.trained().values(), lr=0.1)
    both = next(batch for step in range(20) if len((batch := stage.batch(step, 0)).task.unique()) == 2)
    total, metrics = stage.loss(0, both)
    terms = ("policy", "reward", "continue", "dynamics")
    assert total.item() == pytest.approx(sum(term_weights(world.section())[term] for term in terms), rel=1e-4)
    total.backward()
    optimiser.step()
    after = stage.module.state_dict()
    assert set(stage.trained()) == set(before) == moved(before, after)
    logits = (after["policy.net.out.bias"] - before["policy.net.out.bias"]).reshape(3, -1)  # (L, K)
    assert stage.module.choices.num_logits == 4 + 2 * 2 + 2 * 11
    assert [part.any(dim=1).tolist() for part in logits.split((4, 4, 22), dim=1)] == [[True] * 3] * 3
    rows = after["world.embed_task.weight"] - before["world.embed_task.weight"]
    assert rows.shape[0] == 2 and rows.any(dim=1).all()
    assert metrics["reward_buckets_used"] >= 1  # pitfall 23


def test_relevant_windows_reach_their_task_s_reward(world):
    """[D4] Sec. 3.3: half of them a jump, half of them a reward of episodes recorded under `play`."""
    section = world.section(relevant_reach=0)
    windows, rng = LatentWindows(world.packed, "train", TASKS), np.random.default_rng(0)
    relevant = read_recorded(section, windows, relevant_places(section, windows.sampler, rng, 200))
    length = section.batch_length
    assert (relevant.reward[:, :length] > 0).any(dim=1).all()
    assert relevant.task.float().mean() == pytest.approx(0.5, abs=0.12)
    gaps = {0: 10, 1: 5}
    for task, gap in gaps.items():
        rows = relevant.reward[relevant.task == task]
        places = [np.flatnonzero(row.numpy() > 0) for row in rows]
        assert {int(step) for found in places for step in np.diff(found)} <= {gap}
    uniform = read_recorded(section, windows, uniform_places(section, windows.sampler, rng, 200))
    assert not (uniform.reward[:, :length] > 0).any(dim=1).all()
    section = world.section(relevant_reach=4)
    further = LatentWindows(world.packed, "train", TASKS, relevance(section))
    far = read_recorded(section, further, relevant_places(section, further.sampler, rng, 200))
    assert not (far.reward[:, :length] > 0).any(dim=1).all()


def test_the_reward_head_learns_the_task_s_reward(world, cpu_runtime):
    """The same frames with the other task have another reward target, and another answer."""
    stage = stage_of(world, cpu_runtime)
    windows = LatentWindows(world.packed, "train", TASKS)
    [play] = [i for i, e in enumerate(windows.episodes) if e.task == 0][:1]
    pair = [windows.read([Place(play, 3, task)], 6, 3) for task in (0, 1)]
    assert torch.equal(pair[0].latents, pair[1].latents) and not torch.equal(pair[0].reward, pair[1].reward)
    stage.module.eval()
    answers = []
    for batch in pair:
        z = stage.module.world.normalise(batch.latents)
        tau = torch.full((1, 6), 0.875)
        out = stage.module.world(
            z, tau, tau * 0 + 0.125, batch.action[:, :6], batch.action_valid[:, :6], task=batch.task
        )
        answers.append(stage.module.reward(out.agent))
    assert not torch.allclose(*answers, atol=1e-6)


# ---------------------------------------------------------------- the file


def test_the_file_knows_its_tasks_and_their_sources(world, agent_path):
    header = read_header(agent_path, "agent")
    assert header.specs["tasks"] == ["jump", "play"]
    assert read_header(world.dynamics, "dynamics").specs["tasks"] == ["play", "idle"]
    agent = load_agent(agent_path, CPU)
    assert agent.specs.tasks == ("jump", "play")
    assert list(agent.tasks.items()) == [("jump", "event:jump"), ("play", "reward")]
    assert agent.model.world.embed_task.weight.shape[0] == 2


def test_a_file_without_sources_takes_the_reward(world, cpu_runtime, no_tensorboard, tmp_path):
    """So do agents whose header knows nothing of sources."""
    finetune_agent(world.section(tasks={}), world.dynamics, world.packed, tmp_path, cpu_runtime, seed=0, resume=False)
    agent = load_agent(tmp_path / "agent.safetensors", CPU)
    assert agent.tasks == {"play": "reward", "idle": "reward"}
    del agent.header.config["agent"]["tasks"]
    assert agent.tasks == {"play": "reward", "idle": "reward"}
    windows = [LatentWindows(world.packed, "train", tasks) for tasks in (agent.tasks, {})]
    batches = [each.read(each.sampler.draw(np.random.default_rng(0), 30, 4, relevant=True), 4) for each in windows]
    assert all(torch.equal(value, vars(batches[1])[name]) for name, value in vars(batches[0]).items())


def test_imagination_dreams_of_the_agent_s_tasks(world, agent_path, cpu_runtime, monkeypatch, tmp_path):
    """The assignment is rebuilt from the agent's file alone: `idle` is no task of it, `jump` applies everywhere."""
    seen = []
    plain = ImagineStage.__init__

    def note(self, section, agent, windows, *rest) -> None:
        seen.append(windows)
        plain(self, section, agent, windows, *rest)

    monkeypatch.setattr(ImagineStage, "__init__", note)
    train_imagination(world.config.imagine, agent_path, world.packed, tmp_path, cpu_runtime, seed=0, resume=False)
    [windows] = seen
    assert windows.tasks == ["jump", "play"]
    batch = windows.read(windows.sampler.draw_contexts(np.random.default_rng(0), 200, 3), 3)
    assert 0.1 < batch.task.float().mean() < 0.5
    assert read_header(tmp_path / "imagination.safetensors", "imagination").specs["tasks"] == ["jump", "play"]
    assert load_agent(tmp_path / "imagination.safetensors", CPU).tasks == TASKS


def test_a_player_plays_the_task_it_is_asked_for(world, agent_path, cpu_runtime):
    """And every chosen action, continuous ones included, is inside its declared range."""
    frames, first = np.zeros((2, 32, 32, 3), np.uint8), np.array([True, True])
    chosen = {}
    for task in (None, "jump", "play"):
        player = load_player(agent_path, world.tokenizer, cpu_runtime, temperature=1.0, task=task)
        player.reset(2, 0)
        assert player._dream.task.tolist() == [1 if task == "play" else 0] * 2
        chosen[task] = player.act(frames, first, [{"episode_seed": 1}, {"episode_seed": 2}])
        assert ActionRange(player._agent.specs.action).inside(chosen[task]).all()
    assert np.array_equal(chosen[None], chosen["jump"])
    with pytest.raises(InputError, match="knows no task 'idle'; expected one of jump, play"):
        load_player(agent_path, world.tokenizer, cpu_runtime, temperature=1.0, task="idle")
