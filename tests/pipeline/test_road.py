"""The whole road by the public commands: what each leaves behind, and that it belongs together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.pipeline.config import load_run
from ahriuwu_cli.tokenizer.clips import ClipReader, ClipSampler

WEIGHTS = {
    "tokenizer train": "tokenizer",
    "dynamics train": "dynamics",
    "agent finetune": "agent",
    "imagine train": "imagination",
}
"""Training command -> kind of artifact."""

CHAIN = ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination")
CONTEXT, HORIZON, EPISODES = 4, 4, 3  # as the fixtures set them
SOURCES = {"reconstruction", "dream", "shuffled actions", "persistence"}


def place(folder: Path, kind: str) -> Path:
    return folder / kind if kind in ("episodes", "latents", "packed") else folder / kind / f"{kind}.safetensors"


# ---------------------------------------------------------------- what the commands say and leave


def test_every_command_ends_well_on_the_cpu(road) -> None:
    """Pitfall 26: every command runs on a machine with nothing but a CPU."""
    for command, outcome in road.said.items():
        assert outcome.code == 0, command
        assert isinstance(outcome.data, dict), command
        assert "Traceback" not in outcome.err, command


def test_progress_goes_to_stderr(road) -> None:
    for command, kind in WEIGHTS.items():
        assert f"{kind}: step" in road.said[command].err
    assert f"playing {EPISODES} episodes: imagination" in road.said["eval agent"].err
    for command in ("init", "data record", "latents build", "latents pack", "eval rollout"):
        assert road.said[command].err == "", command  # bars are for terminals


@pytest.mark.parametrize(("command", "kind"), WEIGHTS.items())
def test_training_says_what_its_artifact_says(road, command, kind) -> None:
    said, header = road.said[command].data, read_header(place(road.folder, kind), kind)
    assert (said["kind"], said["fingerprint"]) == (kind, header.fingerprint)
    assert (said["file"], said["steps"]) == (str(place(road.folder, kind)), header.info["steps"])
    assert header.info["finished"]
    assert np.isfinite(said["metrics"]["loss"])
    lines = (place(road.folder, kind).parent / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == said["steps"]


def test_fingerprints_form_a_chain(road) -> None:
    """Every artifact names all that came before it, with the fingerprints that are there."""
    headers = {kind: read_header(place(road.folder, kind), kind) for kind in CHAIN}
    for number, kind in enumerate(CHAIN):
        assert headers[kind].parents == {before: headers[before].fingerprint for before in CHAIN[:number]}


def test_the_same_episodes_are_held_out_all_along(road) -> None:
    """Pitfall 7: the held-out episodes of the store are those of every stage, and nobody trains on them."""
    store = EpisodeStore.open(road.folder / "episodes")
    heldout, train = store.ids("heldout"), store.ids("train")
    assert len(heldout) == 2
    assert not set(heldout) & set(train)
    assert read_header(place(road.folder, "tokenizer"), "tokenizer").info["heldout_episodes"] == heldout
    for kind in ("latents", "packed"):
        listed = read_header(road.folder / kind, kind).info["episodes"]
        assert [entry["id"] for entry in listed if entry["split"] == "heldout"] == heldout
    assert road.said["eval rollout"].data["heldout_episodes"] == heldout
    clips = (
        ClipReader(store, 1).read(ClipSampler(store, 1).draw(np.random.default_rng(0), 200)).numpy()[:, 0]
    )  # (200, H, W, 3)
    seen = {frame.tobytes() for id_ in train for frame in store.read(id_).frames}
    assert {frame.tobytes() for frame in clips} <= seen


def test_evaluation_plays_seeds_that_were_not_recorded(road) -> None:
    """Pitfall 7: nor does `eval agent` replay the episodes that were trained on."""
    recorded = {record.seed for record in EpisodeStore.open(road.folder / "episodes").episodes}
    assert not recorded & set(road.said["eval agent"].data["environment"]["seeds"])


# ---------------------------------------------------------------- evaluation files


def test_rollout_files(road) -> None:
    """Pitfall 10: persistence and the tokenizer's ceiling stand beside every dream."""
    folder, said = road.folder / "evaluation" / "rollout", road.said["eval rollout"].data
    assert json.loads((folder / "rollout.json").read_text()) == said
    assert said["curves"].keys() == SOURCES
    for curve in said["curves"].values():
        assert len(curve["psnr"]) == len(curve["ssim"]) == HORIZON
        assert np.mean(curve["psnr"]) == pytest.approx(curve["psnr_mean"])
    assert said["fingerprint"] == read_header(place(road.folder, "dynamics"), "dynamics").fingerprint
    gif = Image.open(folder / "rollout.gif")
    assert gif.n_frames == CONTEXT + HORIZON
    assert len(iio.imread(folder / "rollout.mp4", plugin="pyav")) == CONTEXT + HORIZON
    for name in ("rollout.png", "sheet.png"):
        assert min(Image.open(folder / name).size) > 100


def test_agent_files(road) -> None:
    folder, said = road.folder / "evaluation" / "agent", road.said["eval agent"].data
    assert json.loads((folder / "agents.json").read_text()) == said
    assert list(said["agents"]) == ["random", "repeat-last", "dataset", "bc", "imagination"]
    for name, agent in said["agents"].items():
        assert len(agent["returns"]) == len(agent["lengths"]) == EPISODES
        assert Image.open(folder / f"{name}.gif").n_frames > 1
        assert all((folder / f"{name}-{which}.mp4").stat().st_size > 0 for which in ("best", "worst"))
        assert said["actions"][name]["steps"] == sum(agent["lengths"])
    assert len(said["comparisons"]) == 10
    assert all(0 <= entry["p_value"] <= 1 and entry["n"] == EPISODES for entry in said["comparisons"])
    assert said["fingerprints"] == {
        name: read_header(place(road.folder, kind), kind).fingerprint
        for name, kind in {"bc": "agent", "imagination": "imagination"}.items()
    }
    assert all(min(Image.open(folder / name).size) > 100 for name in ("returns.png", "actions.png"))


def test_rollout_of_an_agents_world_has_a_folder_of_its_own(ahriuwu, run_dir, tree) -> None:
    before = tree(run_dir / "evaluation" / "rollout")
    outcome = ahriuwu(
        "eval", "rollout", "-c", run_dir / "run.toml", "--checkpoint", place(run_dir, "imagination"), "--json"
    )
    assert outcome.code == 0
    assert (run_dir / "evaluation" / "rollout-imagination" / "rollout.gif").exists()
    assert tree(run_dir / "evaluation" / "rollout") == before


# ---------------------------------------------------------------- again


@pytest.mark.parametrize(("command", "kind"), WEIGHTS.items())
def test_resuming_a_finished_stage_changes_nothing(ahriuwu, run_dir, tree, road, command, kind) -> None:
    before = tree(run_dir)
    outcome = ahriuwu(*command.split(), "-c", run_dir / "run.toml", "--resume")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == kind
    assert road.said[command].data["fingerprint"] in outcome.out
    assert outcome.err == ""
    assert tree(run_dir) == before


@pytest.mark.parametrize("command", ["data record", *WEIGHTS])
def test_a_second_run_is_refused(ahriuwu, run_dir, tree, command) -> None:
    before = tree(run_dir)
    outcome = ahriuwu(*command.split(), "-c", run_dir / "run.toml")
    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert ("--append" if command == "data record" else "--resume") in hint
    assert tree(run_dir) == before


def test_init_leaves_a_run_that_is_there_alone(ahriuwu, run_dir, tree) -> None:
    before = tree(run_dir)
    assert ahriuwu("init", run_dir).code == 2
    assert tree(run_dir) == before


def test_building_and_packing_again_gives_the_same(ahriuwu, run_dir) -> None:
    for command, kind in (("build", "latents"), ("pack", "packed")):
        before = read_header(run_dir / kind, kind).fingerprint
        assert ahriuwu("latents", command, "-c", run_dir / "run.toml").code == 0
        assert read_header(run_dir / kind, kind).fingerprint == before


def test_everything_again_from_the_same_seed_is_the_same(ahriuwu, run_dir, road) -> None:
    for command, kind in WEIGHTS.items():
        again = ahriuwu(*command.split(), "-c", run_dir / "run.toml", "--overwrite", "--json")
        assert again.data["fingerprint"] == read_header(place(road.folder, kind), kind).fingerprint


# ---------------------------------------------------------------- artifacts rule, not run.toml


def test_later_stages_take_sizes_from_their_parents(ahriuwu, run_dir) -> None:
    """Changing run.toml after a stage is trained does not reach those that stand on its artifact."""
    config = run_dir / "run.toml"

    def train(command: str, *overrides: str) -> None:
        sets = [part for override in overrides for part in ("-s", override)]
        outcome = ahriuwu(*command.split(), "-c", config, *sets, "--overwrite")
        assert outcome.code == 0, outcome.err

    def header(kind: str):
        return read_header(place(run_dir, kind), kind)

    changed = ["tokenizer.model.dim_token=7", "data.height=64", "data.env_options={sticky=0.5}"]
    train("dynamics train", *changed)
    assert header("dynamics").specs["latent"]["dim_token"] == 4
    assert header("dynamics").specs["frame"]["height"] == 32
    changed += ["dynamics.model.dim=64", "dynamics.sampler.context_length=5"]
    train("agent finetune", *changed)
    assert header("agent").config["dynamics"]["model"]["dim"] == 32
    assert header("agent").config["dynamics"]["sampler"]["context_length"] == 4
    changed += ["agent.heads.dim_hidden=8", "agent.heads.num_buckets=21"]
    train("imagine train", *changed)
    assert header("imagination").config["agent"]["heads"]["dim_hidden"] == 16
    sets = [part for override in changed for part in ("-s", override)]
    assert ahriuwu("eval", "rollout", "-c", config, *sets).code == 0
    played = ahriuwu("eval", "agent", "-c", config, *sets, "--json")
    assert played.code == 0
    assert played.data["environment"]["options"] == {}


def test_the_dataset_agent_is_who_recorded(ahriuwu, run_dir, road) -> None:
    outcome = ahriuwu(
        "eval", "agent", "-c", run_dir / "run.toml", "-s", "data.policy=random", "--agents", "dataset", "--json"
    )
    said, before = outcome.data["agents"]["dataset"], road.said["eval agent"].data["agents"]
    assert (said["returns"], said["lengths"]) == (before["dataset"]["returns"], before["dataset"]["lengths"])
    assert said["lengths"] != before["random"]["lengths"]


# ---------------------------------------------------------------- agents as players


def test_an_agent_records_episodes(ahriuwu, run_dir, tmp_path, tree) -> None:
    before, out = tree(run_dir), tmp_path / "other"
    checkpoint = place(run_dir, "imagination")
    flags = ["--policy", checkpoint, "--out", out, "--episodes", "2", "--seed", "5"]
    outcome = ahriuwu("data", "record", "-c", run_dir / "run.toml", *flags, "--json")
    assert outcome.code == 0, outcome.err
    store, own = EpisodeStore.open(out), EpisodeStore.open(run_dir / "episodes")
    assert {record.policy for record in store.episodes} == {"imagination"}
    assert (store.action_spec, store.frame_spec) == (own.action_spec, own.frame_spec)
    assert store.read("000000").frames.shape[1:] == (32, 32, 3)
    assert tree(run_dir) == before


def test_an_agent_brings_its_own_tokenizer(ahriuwu, run_dir, tmp_path, monkeypatch) -> None:
    """Without a run.toml the tokenizer is that of the run the checkpoint lies in."""
    monkeypatch.chdir(tmp_path)
    outcome = ahriuwu(
        "data", "record", "--env", "ahriuwu/Bricks-v0", "--out", "other", "--episodes", "2",
        "--policy", place(run_dir, "agent"), "-s", "data.max_episode_steps=12", "-s", "run.device=cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert {record.policy for record in EpisodeStore.open(tmp_path / "other").episodes} == {"agent"}


def test_checkpoints_of_one_name_stay_apart(ahriuwu, run_dir, road) -> None:
    agents = f"random,imagination,{place(run_dir, 'imagination')},{place(road.folder, 'imagination')},random"
    outcome = ahriuwu("eval", "agent", "-c", run_dir / "run.toml", "--agents", agents, "--json")
    assert outcome.code == 0, outcome.err
    returns = {name: agent["returns"] for name, agent in outcome.data["agents"].items()}
    assert list(returns) == ["random", "imagination", "imagination-2", "imagination-3"]
    assert returns["imagination"] == returns["imagination-2"] == returns["imagination-3"]


def test_only_agents_that_are_there_play_by_default(ahriuwu, run_dir) -> None:
    place(run_dir, "imagination").unlink()
    outcome = ahriuwu("eval", "agent", "-c", run_dir / "run.toml", "--episodes", "2", "--json")
    assert list(outcome.data["agents"]) == ["random", "repeat-last", "dataset", "bc"]
    assert outcome.data["episodes"] == 2


# ---------------------------------------------------------------- as a process


def process(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ahriuwu_cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_a_stage_as_a_process(run_dir, road) -> None:
    answer = process("dynamics", "train", "--overwrite", "--json", cwd=run_dir)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["fingerprint"] == road.said["dynamics train"].data["fingerprint"]
    assert answer.stderr.startswith("dynamics: step 3/3")


def test_a_mistake_as_a_process(tmp_path) -> None:
    answer = process("dynamics", "train", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert [line.partition(":")[0] for line in answer.stderr.splitlines()] == ["error", "hint"]
    assert list(tmp_path.iterdir()) == []


def test_the_run_toml_of_init_is_the_preset(road) -> None:
    assert load_run(road.folder / "run.toml").config.run.name == "tiny"
