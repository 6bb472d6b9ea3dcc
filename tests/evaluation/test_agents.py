"""`eval agent`: the same seeded episodes for every agent, none of them recorded before."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ahriuwu_cli.core.errors import PlayError
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.evaluation import agents, clips
from ahriuwu_cli.evaluation.agents import evaluate_agents, require_all_played, side_by_side_envs
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.seal import seal_fault
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import NoisyExpertPolicy, RandomPolicy, RepeatLastPolicy
from ahriuwu_cli.games.seeds import Stream, fresh_seeds

DATA = DataSection(max_episode_steps=80)


@pytest.fixture(scope="module")
def action_spec():
    env = make_env(DATA)
    yield env.action_spec
    env.close()


@pytest.fixture
def no_videos(monkeypatch):
    """Play without drawing."""
    monkeypatch.setattr(agents, "write_videos", lambda out, name, highlights: None)


# ---------------------------------------------------------------- comparison


@pytest.fixture(scope="module")
def compared(action_spec, tmp_path_factory):
    """The random agent and the expert with some noise on 24 episodes: report and folder."""
    out = tmp_path_factory.mktemp("agents")
    players = {"random": RandomPolicy(action_spec), "expert": NoisyExpertPolicy(action_spec, 0.3)}
    settings = EvalSection(episodes=24)
    report = evaluate_agents(players, DATA, out, settings, seed=3, taken={1}, fingerprints={"expert": "ab"})
    return report, out


def test_the_expert_is_better_and_it_shows(compared) -> None:
    """Pitfall 35: paired seeds and a significance test decide, on agents whose order is known."""
    facts = compared[0].data
    random, expert = facts["agents"]["random"], facts["agents"]["expert"]
    assert expert["mean"] > random["mean"] + 1
    assert expert["low"] > random["high"]
    [comparison] = facts["comparisons"]
    assert (comparison["agent"], comparison["baseline"], comparison["n"]) == ("expert", "random", 24)
    assert comparison["difference"] == pytest.approx(np.mean(np.subtract(expert["returns"], random["returns"])))
    assert 0 < comparison["low"] < comparison["difference"] < comparison["high"]
    assert comparison["p_value"] < 0.001


def test_files(compared) -> None:
    report, out = compared
    assert json.loads((out / "agents.json").read_text()) == report.data
    videos = {f"{name}{end}" for name in ("random", "expert") for end in (".gif", "-best.mp4", "-worst.mp4")}
    assert {path.name for path in out.iterdir()} == {"agents.json", "returns.png", "actions.png", "played", *videos}
    assert seal_fault(report.data) is None
    facts = report.data
    assert facts["fingerprints"] == {"expert": "ab"}
    assert facts["environment"] == {
        "env": "ahriuwu/Bricks-v0", "options": {}, "seeds": fresh_seeds(3, Stream.TUNING, 24, {1}),
        "stream": "tuning", "seeded": True,
    }  # fmt: skip
    for name, agent in facts["agents"].items():
        assert len(agent["returns"]) == len(agent["lengths"]) == 24
        shown = Image.open(out / f"{name}.gif").n_frames - 1
        ranked = sorted(agent["returns"])
        steps = {n for n, value in zip(agent["lengths"], agent["returns"], strict=True) if value == ranked[12]}
        assert shown in steps  # an episode of the median return, from the first frame to the last
        for which, value in (("best", ranked[-1]), ("worst", ranked[0])):
            frames = len(iio.imread(out / f"{name}-{which}.mp4", plugin="pyav"))
            assert frames - 1 in {n for n, got in zip(agent["lengths"], agent["returns"], strict=True) if got == value}
    assert [row[0] for row in report.rows] == ["random", "expert"]
    assert str(out / "returns.png") in report.notes[-1]


def test_actions_are_counted(compared) -> None:
    """Pitfalls 16 and 17: how often each action is taken and how often it is the one before, beside temperature."""
    report, _ = compared
    facts = report.data
    for name, agent in facts["agents"].items():
        counted = facts["actions"][name]
        assert counted["steps"] == sum(agent["lengths"])
        assert list(counted["components"]["action"]["shares"]) == ["noop", "left", "right"]
        assert any(note.startswith(f"actions of {name}: ") for note in report.notes)
    assert facts["actions"]["random"]["repeated"] == pytest.approx(1 / 3, abs=0.08)
    assert (facts["temperature"], facts["task"]) == (1.0, "play")
    assert "learned agents choose at temperature 1" in report.notes


def test_repeat_last_repeats(action_spec, tmp_path, no_videos) -> None:
    """Pitfall 16: the baseline that any policy must beat, played like the others."""
    players = {"repeat-last": RepeatLastPolicy(action_spec)}
    facts = evaluate_agents(players, DATA, tmp_path, EvalSection(episodes=6), seed=0, taken=set()).data
    assert facts["actions"]["repeat-last"]["repeated"] == 1.0
    assert facts["actions"]["repeat-last"]["components"]["action"]["shares"]["noop"] < 1


def test_equal_agents_play_equal_episodes(action_spec, tmp_path, no_videos) -> None:
    """The pairs are pairs: what an agent does in an episode does not depend on who else plays, or when."""
    players = {name: NoisyExpertPolicy(action_spec, 0.5) for name in ("one", "two")}
    told: list[str] = []
    report = evaluate_agents(players, DATA, tmp_path, EvalSection(episodes=5), seed=0, taken=set(), tell=told.append)
    one, two = report.data["agents"].values()
    assert one == two
    assert len(set(one["returns"])) > 1
    assert report.data["comparisons"][0]["p_value"] == 1
    assert told == ["playing 5 episodes: one", "playing 5 episodes: two"]


def test_one_episode_has_no_interval(action_spec, tmp_path) -> None:
    players = {"random": RandomPolicy(action_spec)}
    report = evaluate_agents(players, DATA, tmp_path, EvalSection(episodes=1), seed=0, taken=set())
    assert report.data["agents"]["random"]["low"] is None
    assert (tmp_path / "returns.png").exists()


def test_long_episodes_are_kept_in_part(action_spec, tmp_path, monkeypatch) -> None:
    """The GIF ends early, return and length do not."""
    monkeypatch.setattr(clips, "CLIP_STEPS", 5)
    players = {"expert": NoisyExpertPolicy(action_spec, 0.0)}
    report = evaluate_agents(players, DATA, tmp_path, EvalSection(episodes=3), seed=0, taken=set())
    assert report.data["agents"]["expert"]["lengths"] == [80, 80, 80]
    assert Image.open(tmp_path / "expert.gif").n_frames == 6
    assert len(iio.imread(tmp_path / "expert-best.mp4", plugin="pyav")) == 6


# ---------------------------------------------------------------- memory


def test_running_episodes_stay_within_their_memory() -> None:
    """2,000 steps of 64x64 in 128 environments would be 3 GB."""
    small, long = DataSection(), DataSection(height=64, width=64, max_episode_steps=2000)
    assert side_by_side_envs(small) == agents.MAX_ENVS
    assert 16 < side_by_side_envs(long) < 64
    assert side_by_side_envs(long) * 2001 * 64 * 64 * 3 <= agents.EPISODE_BYTES
    assert side_by_side_envs(DataSection(height=2048, width=2048, max_episode_steps=10**6)) == 1


def test_how_many_play_at_once_changes_nothing(action_spec, tmp_path, monkeypatch, no_videos) -> None:
    players = {"expert": NoisyExpertPolicy(action_spec, 0.5)}

    def play(folder: str) -> dict[str, object]:
        facts = evaluate_agents(players, DATA, tmp_path / folder, EvalSection(episodes=7), seed=0, taken=set()).data
        return {key: value for key, value in facts.items() if key not in ("cpu_minutes", "seal")}

    wide = play("wide")
    monkeypatch.setattr(agents, "EPISODE_BYTES", 2 * 81 * 32 * 32 * 3)
    assert side_by_side_envs(DATA) == 2
    assert play("narrow") == wide


def test_nothing_is_left_when_play_stops(action_spec, tmp_path) -> None:
    """Ctrl-C in the middle: no waiting clips stay behind, but what was played does."""

    class Stopping(RandomPolicy):
        waiting = 0

        def act(self, frames, first, infos):
            self.waiting = len(list(tmp_path.glob("*/*.npz")))
            if self.waiting >= 3:
                raise KeyboardInterrupt
            return super().act(frames, first, infos)

    with pytest.raises(KeyboardInterrupt):
        evaluate_agents({"a": Stopping(action_spec)}, DATA, tmp_path, EvalSection(episodes=8), seed=0, taken=set())
    assert [path.name for path in tmp_path.iterdir()] == ["played"]
    assert len(json.loads((tmp_path / "played" / "a.json").read_text())["episodes"]) >= 3


# ---------------------------------------------------------------- what one agent's end must not lose


class Failing(RandomPolicy):
    """Plays at random until it has been asked so often."""

    name = "failing"

    def __init__(self, spec, patience: int) -> None:
        super().__init__(spec)
        self.patience = patience
        self.asked = 0

    def act(self, frames, first, infos):
        self.asked += 1
        if self.asked > self.patience:
            raise RuntimeError("the game\nbroke")
        return super().act(frames, first, infos)


@pytest.fixture
def play(action_spec, tmp_path, no_videos, monkeypatch):
    """Let players play six episodes, two at a time, and tell what was said."""
    monkeypatch.setattr(agents, "EPISODE_BYTES", 2 * 81 * 32 * 32 * 3)

    def call(players: dict, **options) -> tuple[object, list[str]]:
        told: list[str] = []
        settings = EvalSection(episodes=options.pop("episodes", 6))
        options = {"seed": 0, "taken": set(), **options}
        return evaluate_agents(players, DATA, tmp_path, settings, tell=told.append, **options), told

    return call


def test_one_agents_crash_does_not_lose_the_others(play, action_spec, tmp_path) -> None:
    """Pitfall 42: the table has who played; the rest is played by the same command, and is as without a crash."""
    broken = {
        "random": RandomPolicy(action_spec),
        "bad": Failing(action_spec, 25),
        "repeat": RepeatLastPolicy(action_spec),
    }
    report, told = play(broken)
    assert list(report.data["agents"]) == ["random", "repeat"] == [row[0] for row in report.rows]
    assert json.loads((tmp_path / "agents.json").read_text()) == report.data
    kept = report.data["failed"]["bad"]["episodes"]
    assert 0 < kept < 6
    assert report.data["failed"]["bad"]["error"] == "RuntimeError: the game broke"
    assert f"bad failed after {kept} of 6 episodes: RuntimeError: the game broke" in told
    with pytest.raises(PlayError, match="1 of 3 agents could not play all episodes: bad: RuntimeError") as caught:
        require_all_played(report)
    assert caught.value.exit_code == 1

    mended, told = play({**broken, "bad": Failing(action_spec, 10**6)})
    require_all_played(mended)
    assert told == [
        "random: all 6 episodes were played before with these settings; --overwrite plays them again",
        f"bad: {kept} of 6 episodes were played before; playing the others",
        "repeat: all 6 episodes were played before with these settings; --overwrite plays them again",
    ]
    assert "videos of bad show episodes of this call only" in mended.notes
    whole, told = play({"bad": Failing(action_spec, 10**6)}, overwrite=True)
    assert told == ["playing 6 episodes: bad"]
    assert whole.data["agents"]["bad"] == mended.data["agents"]["bad"]
    assert whole.data["actions"]["bad"] == mended.data["actions"]["bad"]


def test_other_questions_are_played_anew(play, action_spec, tmp_path) -> None:
    player = {"bc": Failing(action_spec, 10**6)}
    play(player, fingerprints={"bc": "ab"})
    for options in ({"fingerprints": {"bc": "cd"}}, {"seed": 1}, {"episodes": 5}, {"stream": Stream.TEST}):
        assert play(player, **options)[1] == [f"playing {options.get('episodes', 6)} episodes: bc"]
    path = tmp_path / "played" / "bc.json"
    facts = json.loads(path.read_text())
    assert play(player, stream=Stream.TEST)[1][0].startswith("bc: all 6")
    facts["episodes"]["0"][0] += 100  # an edited file is no result
    path.write_text(json.dumps(facts))
    assert play(player, stream=Stream.TEST)[1] == ["playing 6 episodes: bc"]


def test_an_agent_that_fails_alone_says_so_itself(play, action_spec) -> None:
    with pytest.raises(RuntimeError, match="broke"):
        play({"bad": Failing(action_spec, 5)})


def test_a_game_that_forgets_its_seed_has_no_pairs(play, action_spec) -> None:
    players = {name: RandomPolicy(action_spec) for name in ("one", "two")}
    paired, apart = (play(players, seeded=seeded)[0] for seeded in (True, False))
    assert paired.data["comparisons"][0]["low"] == 0.0  # the same episodes by equal players
    assert apart.data["comparisons"][0]["low"] < 0.0 < apart.data["comparisons"][0]["high"]
    assert not apart.data["paired"] and not apart.data["environment"]["seeded"]
    assert not any("paired episodes" in note for note in apart.notes)
