"""Two tasks by the public commands: one from the reward, one from an event that the game tells of."""

from __future__ import annotations

import pytest

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.windows import LatentWindows

TASKS = '{catch="event:bounce", play="reward"}'
ASKED = ("--set", f"agent.tasks={TASKS}", "--set", "agent.relevant_reach=3")


def test_recording_says_which_events_there_were(road, ahriuwu) -> None:
    """Every ball that the paddle returned is in the store, in the packed latents, and in what `data info` says."""
    store = EpisodeStore.open(road.folder / "episodes")
    bounces = sum(float(store.read(record.id).events["bounce"].sum()) for record in store.episodes)
    assert bounces > 0
    assert road.said["data record"].data["events"] == {"bounce": bounces}
    said = ahriuwu("data", "info", road.folder / "episodes")
    assert f"event bounce: {bounces:g} in all" in said.out + said.err
    for split in ("train", "heldout"):
        windows = LatentWindows(road.folder / "packed", split, {"catch": "event:bounce"})
        wanted = sum(store.record(id_).events["bounce"] for id_ in store.ids(split))
        found = [windows.read([(i, 0)], each.num_latents).reward.sum() for i, each in enumerate(windows.episodes)]
        assert float(sum(found)) == wanted


def test_two_tasks_are_finetuned_dreamt_of_and_found_sound(ahriuwu, run_dir, cpu_runtime) -> None:
    config = run_dir / "run.toml"
    finetuned = ahriuwu("agent", "finetune", "-c", config, *ASKED, "--overwrite", "--json")
    assert finetuned.code == 0, finetuned.err
    path = run_dir / "agent" / "agent.safetensors"
    header = read_header(path, "agent")
    assert finetuned.data["fingerprint"] == header.fingerprint
    assert header.specs["tasks"] == ["catch", "play"]
    assert header.config["agent"]["relevant_reach"] == 3
    assert load_agent(path, cpu_runtime.device).tasks == {"catch": "event:bounce", "play": "reward"}
    dreamt = ahriuwu("imagine", "train", "-c", config, "--overwrite", "--json")  # the agent's file says what it needs
    assert dreamt.code == 0, dreamt.err
    imagined = read_header(run_dir / "imagination" / "imagination.safetensors", "imagination")
    assert imagined.specs["tasks"] == ["catch", "play"]
    assert imagined.parents["agent"] == header.fingerprint
    checked = ahriuwu("doctor", run_dir, "--json")
    found = {row["area"]: row["status"] for row in checked.data["checks"]}
    assert {"episodes", "packed", "agent", "imagination"} <= found.keys()
    assert not [row for row in checked.data["problems"] if row["area"] != "evaluation"]  # which is that of before


@pytest.mark.parametrize(
    ("tasks", "code", "message", "hint"),
    [
        ('{catch="event:bonce"}', 2, 'the event "bonce"; the packed episodes have the events bounce', 'info["events"]'),
        ('{win="reward"}', 2, 'task "win" takes the reward, but the episodes were recorded under play', "data.task"),
        ('{win="bounce"}', 2, 'task "win" is "bounce"; expected a name with "reward" or "event:NAME"', "agent.tasks"),
        ("{win=1}", 2, "agent.tasks is", "agent.tasks"),
    ],
)
def test_tasks_that_cannot_be_are_refused_before_training(refused, run_dir, tasks, code, message, hint) -> None:
    error, advice = refused(
        code, "agent", "finetune", "-c", run_dir / "run.toml", "--set", f"agent.tasks={tasks}", "--overwrite"
    )
    assert message in error
    assert hint in advice + error
