"""How many windows are relevant: counted, said, kept in the header, warned of; games in which rewards only punish."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ahriuwu_cli.agent.batches import read_recorded, relevant_places
from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.agent.config import AgentSection
from ahriuwu_cli.agent.relevance import opening, relevance, relevant_shares
from ahriuwu_cli.agent.scratch import train_scratch
from ahriuwu_cli.agent.train import finetune_agent
from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ConfigError, TrainingInterrupted
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.dynamics.train import train_dynamics
from ahriuwu_cli.episodes.actions import random_row
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.imagination.train import train_imagination
from ahriuwu_cli.latents.build import build_latents
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.places import PlaceSampler
from ahriuwu_cli.latents.rewards import ByReturn
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.tokenizer.train import TokenizerStage

CPU = torch.device("cpu")
STEPS = 25


@dataclasses.dataclass(frozen=True)
class Punishing:
    """A store in which all rewards are penalties, and dynamics of it."""

    packed: Path
    dynamics: Path


def punished(toy_specs, seed: int) -> Episode:
    """25 random actions: the careless hit something in every third step, the careful in none of the first 20."""
    rng = np.random.default_rng(seed)
    hit = np.arange(STEPS) % 3 == 2 if seed % 2 else np.arange(STEPS) >= 20
    return Episode(
        frames=rng.integers(0, 256, (STEPS + 1, 32, 32, 3), dtype=np.uint8),
        actions=np.stack([random_row(toy_specs.action, rng) for _ in range(STEPS)]),
        action_valid=np.ones(STEPS, bool),
        rewards=-hit.astype(np.float32),
        terminals=np.zeros(STEPS, bool),
        truncations=np.arange(STEPS) == STEPS - 1,
        timestamps=np.arange(STEPS + 1) / toy_specs.frame.fps,
        task="drive",
        seed=seed,
        policy="hand",
    )


@pytest.fixture(scope="module")
def punishing(packed_run, toy_specs, cpu_runtime, tmp_path_factory, write_tokenizer) -> Punishing:
    folder, config = tmp_path_factory.mktemp("punishing"), packed_run.config
    store = EpisodeStore.create(folder / "episodes", toy_specs.action, toy_specs.frame, "Some-v0", {})
    store.append([punished(toy_specs, seed) for seed in range(10)])
    torch.manual_seed(0)
    write_tokenizer(TokenizerStage(config.tokenizer, folder / "episodes", cpu_runtime, 0), folder / "t.safetensors")
    build_latents(folder / "episodes", folder / "t.safetensors", folder / "latents", config.latents, cpu_runtime)
    pack_latents(folder / "episodes", folder / "latents", folder / "packed", config.latents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)
        train_dynamics(config.dynamics, folder / "packed", folder / "dynamics", cpu_runtime, seed=0, resume=False)
    return Punishing(folder / "packed", folder / "dynamics" / "dynamics.safetensors")


def warnings(folder: Path) -> list[str]:
    return [line["warning"] for line in read_metrics(folder / "metrics.jsonl") if "warning" in line]


# ---------------------------------------------------------------- settings


def section(**changes) -> AgentSection:
    train = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    return validate(AgentSection, {"train": train, **changes}, "run.toml", ())


@pytest.mark.parametrize(
    "wrong", [{"relevant": "advantage"}, {"relevant_quantile": 0.49}, {"relevant_quantile": 1.0}], ids=str
)
def test_rules_and_quantiles_that_there_are_not(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        section(**wrong)


def test_the_rule_is_that_of_the_section():
    asked = section(relevant="return", relevant_quantile=0.9, relevant_reach=7, batch_length=5)
    assert relevance(asked) == ByReturn(length=5, reach=7, quantile=0.9)
    assert relevance(section(relevant_reach=3)).reach == 3


# ---------------------------------------------------------------- how many there are


@pytest.mark.parametrize("changes", [{"relevant_reach": 2}, {"relevant": "return", "relevant_reach": 3}], ids=str)
def test_the_share_is_that_of_all_windows_there_are(packed_run, changes):
    """Counted by reading every window and asking whether it has what the rule wants."""
    asked = packed_run.config.agent.model_copy(update=changes)
    windows = LatentWindows(packed_run.packed, "train", relevance=relevance(asked))
    length, reach = asked.batch_length, asked.relevant_reach
    places = [(i, s) for i, e in enumerate(windows.episodes) for s in range(e.num_latents - length + 1)]
    batch = windows.read(places, length, reach)
    if asked.relevant == "reward":
        hits = (batch.reward > 0).any(dim=1)
    else:
        whole = [s + length + reach <= windows.episodes[i].num_latents or windows.is_ended(i) for i, s in places]
        returns, known = batch.reward[:, 1:].sum(dim=1), torch.tensor(whole)
        limit = returns[known].double().quantile(asked.relevant_quantile)
        hits = known & (returns > limit if (returns[known] > limit).any() else returns == returns[known].max())
    assert 0 < hits.sum() < len(hits)
    assert relevant_shares(windows, length) == {windows.tasks[0]: pytest.approx(hits.float().mean().item())}


@pytest.mark.parametrize(
    ("share", "changes", "said"),
    [
        (0.5, {}, ()),
        (0.001, {}, ()),
        (0.95, {}, ()),
        (0.0004, {}, ("0.04% of the windows are relevant, so the same few are", "raise agent.relevant_reach")),
        (0.0004, {"relevant": "return"}, ("0.04% of the windows", "lower agent.relevant_quantile")),
        (0.0, {}, ("no window is relevant, so all are imitated alike", 'agent.relevant = "return"')),
        (0.0, {"relevant": "return"}, ("no window is relevant", "agent.batch_length")),
        (0.96, {}, ("96.0% of the windows are relevant, so nearly all play", 'agent.relevant = "return"')),
        (0.96, {"relevant_reach": 9}, ("96.0%", "or lower agent.relevant_reach")),
        (0.96, {"relevant": "return"}, ("96.0%", "raise agent.relevant_quantile")),
    ],
)
def test_what_is_said_of_a_share(share, changes, said):
    found = opening({"play": share}, section(**changes))
    [line] = found.lines
    assert f'(agent.relevant = "{changes.get("relevant", "reward")}"): ' in line
    assert len(found.warnings) == bool(said)
    assert all(part in found.warnings[0] for part in said)


def test_tasks_are_told_apart():
    found = opening({"jump": 0.2, "play": 0.0}, section())
    assert found.lines[0].endswith(": 20.0% for task jump, 0.0% for task play")
    assert found.warnings[0].startswith("no window is relevant for task play, so none is imitated for task play: ")


# ---------------------------------------------------------------- games in which rewards only punish


def test_penalties_alone_leave_nothing_relevant_by_reward(
    packed_run, punishing, cpu_runtime, no_tensorboard, tmp_path, capfd
):
    """It is said at the start, once, and in the header."""
    asked = packed_run.config.agent
    result = finetune_agent(asked, punishing.dynamics, punishing.packed, tmp_path, cpu_runtime, seed=0, resume=False)
    assert result.header.info["relevant"] == {"drive": 0.0}
    [warning] = warnings(tmp_path)
    assert warning.startswith("no window is relevant, so all are imitated alike: set agent.relevant = ")
    told = capfd.readouterr().err
    assert told.count(f"warning: agent: {warning}") == 1
    assert told.count('agent: relevant windows, with more than the usual reward (agent.relevant = "reward"): 0.0%') == 1


def test_by_return_the_careful_are_imitated(packed_run, punishing, cpu_runtime, no_tensorboard, tmp_path, capfd):
    asked = packed_run.config.agent.model_copy(update={"relevant": "return"})
    windows = LatentWindows(punishing.packed, "train", relevance=relevance(asked))
    batch = read_recorded(asked, windows, relevant_places(asked, windows.sampler, np.random.default_rng(0), 100))
    assert not batch.reward[:, 1 : asked.batch_length].any()
    careful = [index for index, values in windows.task_rewards(0).items() if not values[:21].any()]
    assert {index for index, _ in windows.sampler.relevant_blocks(0)} == set(careful)

    result = finetune_agent(asked, punishing.dynamics, punishing.packed, tmp_path, cpu_runtime, seed=0, resume=False)
    share = len(windows.sampler.relevant_blocks(0)) / sum(
        e.num_latents - asked.batch_length + 1 for e in windows.episodes
    )
    assert result.header.info["relevant"] == {"drive": share}
    assert (result.header.info["untrained"], result.header.info["finished"], warnings(tmp_path)) == ([], True, [])
    assert f"{share:.1%}" in capfd.readouterr().err


def test_all_that_follows_knows_the_rule(packed_run, punishing, cpu_runtime, no_tensorboard, tmp_path, stop_at):
    """The baseline imitates the same windows; imagination has the rule from the agent's file and dreams before them."""
    asked = packed_run.config.agent.model_copy(update={"relevant": "return", "relevant_reach": 2})
    given = punishing.dynamics, punishing.packed
    made = finetune_agent(asked, *given, tmp_path / "agent", cpu_runtime, seed=0, resume=False)
    baseline = train_scratch(
        asked, packed_run.config.dynamics, punishing.packed, tmp_path / "scratch", cpu_runtime, seed=0, resume=False
    )
    assert baseline.header.info["relevant"] == made.header.info["relevant"]
    agent = load_agent(tmp_path / "agent" / "agent.safetensors", CPU)
    assert agent.relevance == ByReturn(asked.batch_length, 2, asked.relevant_quantile)

    seen = []
    draw = PlaceSampler.draw_contexts

    def note(self, *rest, num_relevant=0, **more):
        seen.append((self.relevance, num_relevant, bool(self.relevant_blocks(0))))
        return draw(self, *rest, num_relevant=num_relevant, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlaceSampler, "draw_contexts", note)
        path = tmp_path / "agent" / "agent.safetensors"
        result = train_imagination(
            packed_run.config.imagine, path, punishing.packed, tmp_path / "i", cpu_runtime, seed=0, resume=False
        )
    assert result.header.info["finished"]
    assert all(rule == agent.relevance and some for rule, _, some in seen)
    assert any(count for _, count, _ in seen)


def test_a_resumed_training_says_it_no_second_time(
    packed_run, punishing, cpu_runtime, no_tensorboard, tmp_path, stop_at, capfd
):
    from ahriuwu_cli.agent.train import AgentStage

    arguments = packed_run.config.agent, punishing.dynamics, punishing.packed, tmp_path, cpu_runtime
    stop_at(AgentStage, 2)
    with pytest.raises(TrainingInterrupted):
        finetune_agent(*arguments, seed=0, resume=False)
    stop_at(AgentStage, 0)
    finetune_agent(*arguments, seed=0, resume=True)
    assert capfd.readouterr().err.count("agent: relevant windows") == 1
    assert len(warnings(tmp_path)) == 1
