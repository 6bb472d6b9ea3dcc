"""`data record`, `data info` and `data split`: stores that come out, appends, refusals, Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahriuwu_cli.core.artifact import MANIFEST_NAME
from ahriuwu_cli.core.errors import AhriuwuError, InputError, TrainingInterrupted
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import RepeatLastPolicy, built_in_policy
from ahriuwu_cli.sources.record import episode_seeds, record
from ahriuwu_cli.sources.summary import info, split


def data(**changes: Any) -> DataSection:
    return DataSection(**({"episodes": 6, "policy": "random", "heldout_fraction": 0.2} | changes))


def seeds_of(folder: Path) -> list[int]:
    return [item.seed for item in EpisodeStore.open(folder).episodes]


def contents(store: EpisodeStore) -> dict[int, tuple[bytes, bytes]]:
    episodes = [store.read(item.id) for item in store.episodes]
    return {episode.seed: (episode.frames.tobytes(), episode.actions.tobytes()) for episode in episodes}


def test_record_makes_a_store(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = record(tmp_path / "e", data(episodes=20), 3, progress=lambda ended, steps: told.append((ended, steps)))
    store = EpisodeStore.open(tmp_path / "e")
    assert told == sorted(told)
    assert told[-1] == (20, sum(item.num_steps for item in store.episodes))
    assert len(store.episodes) == 20
    assert (len(store.ids("train")), len(store.ids("heldout"))) == (16, 4)
    assert seeds_of(tmp_path / "e") == episode_seeds(3, 20, set())
    assert store.tasks == ["play"]
    assert (store.env, store.frame_spec.height) == ("ahriuwu/Bricks-v0", 32)
    assert store.header.config["data"]["episodes"] == 20
    assert report.data["fingerprint"] == store.fingerprint
    assert report.data["groups"]["all"]["episodes"] == 20
    for item in store.episodes:
        store.read(item.id).validate(store.action_spec, store.frame_spec)


def test_recording_is_a_function_of_its_settings(tmp_path: Path) -> None:
    prints = [
        record(tmp_path / name, data(policy="noisy-expert", **changes), seed).data["fingerprint"]
        for name, seed, changes in [("a", 1, {}), ("b", 1, {}), ("c", 2, {}), ("d", 1, {"noise": 0.6})]
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_any_policy_can_be_handed_in(tmp_path: Path) -> None:
    policy = RepeatLastPolicy(make_env(data()).action_spec)
    report = record(tmp_path / "e", data(policy="runs/agent.safetensors"), 0, policy)
    assert "by repeat-last" in report.data["groups"]
    with pytest.raises(InputError, match="agent checkpoint"):
        built_in_policy(data(policy="runs/agent.safetensors"), make_env(data()).action_spec)


def test_an_existing_store_is_only_appended_to_when_asked(tmp_path: Path) -> None:
    record(tmp_path / "e", data(), 0)
    before = EpisodeStore.open(tmp_path / "e")
    with pytest.raises(InputError, match="already holds") as caught:
        record(tmp_path / "e", data(), 1)
    assert "--append" in caught.value.hint
    assert EpisodeStore.open(tmp_path / "e").fingerprint == before.fingerprint
    record(tmp_path / "e", data(policy="noisy-expert", task="win"), 0, append=True)
    after = EpisodeStore.open(tmp_path / "e")
    assert after.episodes[:6] == before.episodes
    assert len(after.episodes) == 12
    assert len(set(seeds_of(tmp_path / "e"))) == 12
    assert after.tasks == ["play", "win"]
    assert {item.policy for item in after.episodes} == {"random", "noisy-expert(0.5)"}
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_options": {"sticky": 0.1}}, "data.env_options"),
        ({"height": 16}, "data.height 32; this recording has 16"),
        ({"env": "CartPole-v1"}, "data.env ahriuwu"),
        ({"max_episode_steps": 5}, "data.max_episode_steps 0; this recording has 5"),
        ({"frame_from": "render"}, "data.frame_from observation; this recording has render"),
        ({"fps": 30.0}, "data.fps 15.0; this recording has 30.0"),
    ],
)
def test_append_of_something_else_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    """Pitfalls 12 and 43: the game and the specs of a store are compared before anything is added."""
    record(tmp_path / "e", data(episodes=2), 0)
    before = EpisodeStore.open(tmp_path / "e").fingerprint
    with pytest.raises(InputError, match=message):
        record(tmp_path / "e", data(**changes), 1, append=True)
    assert EpisodeStore.open(tmp_path / "e").fingerprint == before


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "expert"},
        {"env": "CartPole-v1", "policy": "noisy-expert"},
        {"env": "Nowhere-v0"},
        {"env_options": {"size": 3}},
    ],
)
def test_refusals_leave_nothing_behind(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(AhriuwuError) as caught:
        record(tmp_path / "e", data(**changes), 0)
    assert caught.value.hint
    assert not (tmp_path / "e").exists()


def test_other_folders_are_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for append in (False, True):
        with pytest.raises(InputError, match="not empty"):
            record(tmp_path, data(), 0, append=append)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_ctrl_c_before_the_first_episode_leaves_nothing(tmp_path: Path) -> None:
    class Impatient(RepeatLastPolicy):
        def act(self, frames: np.ndarray, first: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match="0 of 6"):
        record(tmp_path / "e", data(), 0, Impatient(make_env(data()).action_spec))
    assert not (tmp_path / "e").exists()


@pytest.mark.skipif(os.name != "posix", reason="kills a process by signal")
def test_kill_during_record_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """Pitfall 21: kill -9 while recording keeps every batch that was listed."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ahriuwu_cli.episodes.config import DataSection\nfrom ahriuwu_cli.sources.record import record\n"
        "record(Path(sys.argv[1]), DataSection(episodes=100000, policy='random'), 0,"
        " progress=lambda done, _: print(done, flush=True))\n"
    )
    folder = tmp_path / "e"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 200:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = EpisodeStore.open(folder)
    assert len(store.episodes) >= 160
    for item in store.episodes:
        store.read(item.id)
    record(folder, data(episodes=3), 0, append=True)
    assert len(EpisodeStore.open(folder).episodes) == len(store.episodes) + 3


def test_info_counts_what_is_there(tmp_path: Path) -> None:
    record(tmp_path / "e", data(), 0)
    report = info(tmp_path / "e")
    store = EpisodeStore.open(tmp_path / "e")
    groups = report.data["groups"]
    assert groups["all"]["steps"] == sum(item.num_steps for item in store.episodes)
    assert groups["all"]["episodes"] == groups["train"]["episodes"] + groups["heldout"]["episodes"] == 6
    assert groups["all"]["mean_return"] == pytest.approx(np.mean([item.total_reward for item in store.episodes]))
    assert {len(row) for row in report.rows} == {len(report.columns)}
    assert any(store.fingerprint in note for note in report.notes)
    with pytest.raises(InputError, match="does not exist"):
        info(tmp_path / "nowhere")


def test_split_divides_anew(tmp_path: Path) -> None:
    before = record(tmp_path / "e", data(), 0).data["fingerprint"]
    report = split(tmp_path / "e", 0.5, 9)
    assert report.data["groups"]["heldout"]["episodes"] == 3
    assert report.data["fingerprint"] == EpisodeStore.open(tmp_path / "e").fingerprint != before
    assert any("again" in note for note in report.notes)
    assert not any("again" in note for note in split(tmp_path / "e", 0.5, 9).notes)
    with pytest.raises(InputError, match="fraction"):
        split(tmp_path / "e", 1.0, 0)


def test_episode_seeds_are_different_and_go_on_where_they_stopped() -> None:
    seeds = episode_seeds(0, 500, set())
    assert len(set(seeds)) == 500
    assert seeds[:100] + episode_seeds(0, 400, set(seeds[:100])) == seeds
    assert not set(seeds) & set(episode_seeds(1, 500, set()))
    assert max(seeds) < 2**31


def test_store_of_a_real_game(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    settings = data(env="ALE/Breakout-v5", env_options={"frameskip": 4}, height=64, width=64, max_episode_steps=12)
    record(tmp_path / "e", settings, 0)
    store = EpisodeStore.open(tmp_path / "e")
    assert store.read("000000").frames.shape == (13, 64, 64, 3)
    assert store.action_spec.components[0].labels == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert (tmp_path / "e" / MANIFEST_NAME).exists()
