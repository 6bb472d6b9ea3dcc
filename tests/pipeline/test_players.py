"""Who plays: the names of `eval agent --agents`, the usual players, and the errors of those that cannot."""

from __future__ import annotations

import shutil
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ahriuwu_cli.core.artifact import read_header, read_weights, write_manifest, write_weights
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.device import resolve_runtime
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.pipeline import players
from ahriuwu_cli.pipeline.config import Run, load_run
from ahriuwu_cli.pipeline.players import AGENTS, UNASKED, Player, named_players, played_environment


def named(run: Run, *names: str, task: str | None = None) -> dict[str, Player]:
    return named_players(
        run, list(names) or None, EpisodeStore.open(run.episodes), resolve_runtime(run.config.run), task
    )


@pytest.fixture
def run(run_dir) -> Run:
    return load_run(run_dir / "run.toml")


def test_names_are_in_the_order_of_the_road() -> None:
    assert AGENTS == ("random", "repeat-last", "dataset", "expert", "scratch", "bc", "imagination")
    assert [name for name in AGENTS if name != "expert"] == list(UNASKED)


def test_the_baseline_plays_where_the_run_has_it(run) -> None:
    assert list(named(run)) == ["random", "repeat-last", "dataset", "bc", "imagination"]
    shutil.copytree(run.agent.parent, run.scratch.parent)
    found = named(run)
    assert list(found) == list(UNASKED)
    assert found["scratch"].policy.name == "scratch"
    fingerprints = {name: player.fingerprint for name, player in found.items() if player.fingerprint}
    agent, imagination = read_header(run.agent, "agent"), read_header(run.imagination, "imagination")
    assert fingerprints == {
        "scratch": agent.fingerprint, "bc": agent.fingerprint, "imagination": imagination.fingerprint
    }  # fmt: skip


def test_the_expert_makes_no_mistake(run) -> None:
    """Every step of `expert` is what the environment's expert would do."""
    policy = named(run, "expert")["expert"].policy
    policy.reset(3, 0)
    infos = [{"episode_seed": seed, "expert_action": np.array([seed], np.float32)} for seed in range(3)]
    for _ in range(20):
        rows = policy.act(np.zeros((3, 32, 32, 3), np.uint8), np.zeros(3, bool), infos)
        assert rows.tolist() == [[0.0], [1.0], [2.0]]


class Silent(gymnasium.Env):
    """An environment that offers no expert."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros((16, 16, 3), np.uint8), {}


def test_an_expert_that_is_not_offered_is_refused(run, monkeypatch) -> None:
    gymnasium.register("tests/Silent-v0", entry_point=Silent)
    data = DataSection(env="tests/Silent-v0", height=16, width=16)
    monkeypatch.setattr(players, "played_environment", lambda run, store: data)
    with pytest.raises(InputError, match="tests/Silent-v0 offers no expert") as caught:
        named(run, "expert")
    assert "--agents" in caught.value.hint


def test_an_unknown_name_or_task_is_refused(run) -> None:
    with pytest.raises(InputError, match="'imagine' is not known; expected some of random, repeat-last"):
        named(run, "imagine")
    with pytest.raises(InputError, match="no task 'catch'"):
        named(run, "bc", task="catch")
    assert list(named(run, "bc", task="play")) == ["bc"]


def test_the_environment_is_that_of_the_episodes(run) -> None:
    store = EpisodeStore.open(run.episodes)
    changed = Run(_with(run.config, data=_with(run.config.data, env="other", height=64)), run.folder)
    data = played_environment(changed, store, "catch")
    assert (data.env, data.height, data.task) == (store.env, 32, "catch")
    assert played_environment(changed, store).task == run.config.data.task


def test_a_store_has_no_module_imported_that_the_run_does_not_name(run, tmp_path, monkeypatch) -> None:
    """Pitfall 45: the environment of a manifest had any module imported."""
    (tmp_path / "planted_env.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    header = read_header(run.episodes, "episodes")
    fields = header.model_dump(include={"config", "specs", "parents", "info"})
    fields["info"]["env"] = "planted_env:Game-v0"
    write_manifest(run.episodes, "episodes", **fields)
    store = EpisodeStore.open(run.episodes)
    with pytest.raises(ArtifactError, match=r"'planted_env:Game-v0', which has a module imported") as caught:
        played_environment(run, store)
    assert 'data.env = "planted_env:Game-v0"' in caught.value.hint
    assert "planted_env" not in sys.modules
    named_there = Run(_with(run.config, data=_with(run.config.data, env="planted_env:Game-v0")), run.folder)
    assert played_environment(named_there, store).env == "planted_env:Game-v0"


def _with(section: Section, **changes: object) -> Section:
    return section.model_copy(update=changes)


# ---------------------------------------------------------------- temperature


@pytest.fixture
def leaning(run) -> Run:
    """The run with an agent that leans to the left whatever it sees: logits 0, 1 and 0."""
    header, tensors = read_weights(run.agent, "agent")
    head = {name: tensor for name, tensor in tensors.items() if name.startswith("policy.")}
    last = max(name for name in head if name.endswith(".weight") and head[name].ndim == 2)
    tensors[last].zero_()
    bias = tensors[last.removesuffix("weight") + "bias"]
    bias.zero_()
    bias.view(-1, 3)[:, 1] = 1.0
    fields = {name: getattr(header, name) for name in ("config", "specs", "parents", "info")}
    write_weights(run.agent, "agent", tensors, **fields)
    return run


@pytest.mark.parametrize(("temperature", "least", "most"), [(0.1, 0.98, 1.0), (1.0, 0.45, 0.7), (10.0, 0.25, 0.45)])
def test_the_temperature_reaches_the_policy(ahriuwu, leaning, temperature, least, most) -> None:
    """Pitfall 17: `eval.temperature` is what an agent chooses by. exp(1 / T) over 2 + exp(1 / T): 1.00, 0.58, 0.36."""
    arguments = "--agents", "bc", "--episodes", "8", "-s", f"eval.temperature={temperature}", "--json"
    played = ahriuwu("eval", "agent", "-c", leaning.folder / "run.toml", *arguments)
    assert played.code == 0, played.err
    share = played.data["actions"]["bc"]["components"]["action"]["shares"]["left"]
    assert least <= share <= most
    assert played.data["temperature"] == temperature
