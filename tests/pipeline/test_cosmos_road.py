"""The whole road with a frozen tokenizer of stride 8, by the public commands, on TorchScript stand-ins."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.latents.windows import LatentWindows

SETTINGS = (
    "data.noise=0.0",
    "data.max_episode_steps=60",
    "imagine.context_length=2",
    "imagine.horizon=2",
    "eval.context_length=2",
    "eval.horizon=2",
)
"""Episodes of 60 steps are 9 latents of 8 frames each: contexts and horizons are short."""

ROAD = (
    "data record",
    "tokenizer train",
    "latents build",
    "latents pack",
    "dynamics train",
    "agent finetune",
    "imagine train",
    "eval rollout",
    "eval offline",
)


@dataclass(frozen=True)
class CosmosRoad:
    """A run with the cosmos tokenizer: its folder, its command line and what each command said."""

    folder: Path
    arguments: list[Any]
    said: dict[str, Any]

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer" / "tokenizer.safetensors"


@pytest.fixture(scope="module")
def cosmos_road(
    ahriuwu: Callable[..., Any],
    minuscule: list[str],
    cosmos_files: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> CosmosRoad:
    """Go the road once with bf16 stand-ins whose outputs are tuples. Read only: copy it to change something."""
    folder = tmp_path_factory.mktemp("cosmos_road") / "run"
    files = cosmos_files(folder.parent / "cosmos", dtype="bfloat16", as_tuple=True, memory=1)
    settings = [*SETTINGS, f'tokenizer.model={{type="cosmos", path="{files}", fold=2}}']
    arguments = [
        "-c",
        folder / "run.toml",
        *minuscule,
        *[part for override in settings for part in ("--set", override)],
    ]
    assert ahriuwu("init", folder, "--preset", "tiny").code == 0
    said = {}
    for command in ROAD:
        said[command] = ahriuwu(*command.split(), *arguments, "--json")
        assert said[command].code == 0, f"{command}: {said[command].err}"
    return CosmosRoad(folder, arguments, said)


@pytest.fixture
def own(cosmos_road: CosmosRoad, tmp_path: Path) -> CosmosRoad:
    """A copy to change; the tokenizer's files stay where they are."""
    shutil.copytree(cosmos_road.folder, tmp_path / "run")
    arguments = ["-c", tmp_path / "run" / "run.toml", *cosmos_road.arguments[2:]]
    return CosmosRoad(tmp_path / "run", arguments, cosmos_road.said)


@pytest.fixture
def moved_files(
    own: CosmosRoad, ahriuwu: Callable[..., Any], cosmos_files: Callable[..., Path], tmp_path: Path
) -> Path:
    """The run's tokenizer made again from files of the test's own."""
    files = cosmos_files(tmp_path / "cosmos", seed=3)
    own.arguments[-1] = f'tokenizer.model={{type="cosmos", path="{files}"}}'
    assert ahriuwu("tokenizer", "train", *own.arguments, "--overwrite").code == 0
    return files


# ---------------------------------------------------------------- what is made


def test_the_tokenizer_is_adopted_not_trained(cosmos_road: CosmosRoad, ahriuwu) -> None:
    """Its artifact names both files by their hashes and holds no weights."""
    header, said = read_header(cosmos_road.tokenizer, "tokenizer"), cosmos_road.said["tokenizer train"].data
    files = Path(header.config["model"]["path"])
    assert header.info["files"] == {name: hash_file(files / name) for name in ("encoder.jit", "decoder.jit")}
    assert read_tensors(cosmos_road.tokenizer) == {}
    assert header.specs["latent"]["stride"] == 8
    assert (said["steps"], said["fingerprint"]) == (0, header.fingerprint)
    assert said["metrics"]["psnr"] > 5
    assert sorted(path.name for path in cosmos_road.tokenizer.parent.iterdir()) == ["tokenizer.safetensors"]


def test_latents_and_actions_of_the_road(cosmos_road: CosmosRoad) -> None:
    """Pitfall 34: 60 steps are 1 + ceil(60/8) latents, each after the first with the 8 actions that led to it."""
    store = EpisodeStore.open(cosmos_road.folder / "episodes")
    steps = {record.id: record.num_steps for record in store.episodes}
    assert max(steps.values()) >= 40
    windows = LatentWindows(cosmos_road.folder / "packed", "train")
    assert windows.action_spec == store.action_spec.repeated(8)
    for index, episode in enumerate(windows.episodes):
        whole, length = store.read(episode.id), steps[episode.id]
        assert episode.num_latents == 1 + -(-length // 8)
        batch = windows.read([(index, 0)], episode.num_latents)
        full = length // 8
        assert batch.action_valid[0].tolist() == [False, *[True] * full, *[False] * (episode.num_latents - 1 - full)]
        taken = batch.action[0, 1 : 1 + full].reshape(8 * full, -1).numpy()
        assert (taken == whole.actions[: 8 * full]).all()
        assert batch.reward[0].sum() == whole.rewards.sum()
    for kind in ("dynamics", "agent", "imagination"):
        header = read_header(cosmos_road.folder / kind / f"{kind}.safetensors", kind)
        assert header.specs["latent"]["stride"] == 8
        assert len(header.specs["action"]["components"]) == 8 * len(store.action_spec.components)


def test_the_dream_is_judged_in_frames(cosmos_road: CosmosRoad) -> None:
    curves = cosmos_road.said["eval rollout"].data["curves"]
    assert {len(curve["psnr"]) for curve in curves.values()} == {16}  # 2 latents of 8 frames


def test_agents_are_judged_by_eight_actions_at_once(cosmos_road: CosmosRoad) -> None:
    """A step is a latent: the actions of its 8 frames together."""
    facts = cosmos_road.said["eval offline"].data
    assert facts["agents"]["uniform"]["nats_per_step"]["mean"] == pytest.approx(8 * math.log(3))
    assert list(facts["agents"]) == ["uniform", "frequencies", "bc", "imagination", "recorded play"]


def test_the_doctor_is_content(cosmos_road: CosmosRoad, ahriuwu, own: CosmosRoad) -> None:
    """Also with the config in run.toml, and without LPIPS weights, which a frozen tokenizer does not need."""
    from ahriuwu_cli.pipeline.config import load_run
    from ahriuwu_cli.pipeline.template import render_config

    overrides = [text for text in own.arguments[2:] if text != "--set"]
    config = own.folder / "run.toml"
    config.write_text(render_config(load_run(config, [*overrides, "tokenizer.loss.lpips_weight=0.2"]).config))
    outcome = ahriuwu("doctor", own.folder, "--json")
    assert outcome.data["problems"] == []
    assert outcome.code == 0
    found = {(row["area"], row["check"]): row for row in outcome.data["checks"]}
    assert "frozen" in found["tokenizer", "training"]["found"]
    assert "action" in found["packed", "specs"]["found"]


# ---------------------------------------------------------------- what is refused


def test_playing_is_refused(cosmos_road: CosmosRoad, ahriuwu) -> None:
    outcome = ahriuwu("eval", "agent", *cosmos_road.arguments, "--agents", "bc")
    assert outcome.code == 2
    assert "error: agent bc has latents of 8 frames each; playing needs one latent per frame" in outcome.err
    assert "eval rollout" in outcome.err
    assert "eval offline" in outcome.err


def test_a_second_adoption(own: CosmosRoad, ahriuwu) -> None:
    """As with every training: refused without a flag; --resume finds it finished; --overwrite makes the same again."""
    before = read_header(own.tokenizer, "tokenizer").fingerprint
    outcome = ahriuwu("tokenizer", "train", *own.arguments)
    assert outcome.code == 2
    assert "--overwrite" in outcome.err
    for flag in ("--resume", "--overwrite"):
        outcome = ahriuwu("tokenizer", "train", *own.arguments, flag)
        assert outcome.code == 0, outcome.err
        assert "nothing: the weights stay in your files" in outcome.out
        assert read_header(own.tokenizer, "tokenizer").fingerprint == before
    assert ahriuwu("tokenizer", "train", *own.arguments, "--resume", "--overwrite").code == 2
    outcome = ahriuwu("tokenizer", "train", *own.arguments, "--resume", "--set", "tokenizer.model.fold=1")
    assert outcome.code == 3
    assert "config.model.fold: 2 in the saved state, 1 now" in outcome.err
    own.tokenizer.unlink()
    outcome = ahriuwu("tokenizer", "train", *own.arguments, "--resume")
    assert outcome.code == 2
    assert "nothing to resume" in outcome.err


def test_changed_files_are_refused_with_both_hashes(own: CosmosRoad, moved_files: Path, ahriuwu, cosmos_files) -> None:
    """The artifact stands for these files; others in their place would make other latents."""
    before = hash_file(moved_files / "encoder.jit")
    cosmos_files(moved_files, seed=4)
    after = hash_file(moved_files / "encoder.jit")
    assert before != after
    outcome = ahriuwu("latents", "build", *own.arguments)
    assert outcome.code == 3
    assert before[:16] in outcome.err
    assert after[:16] in outcome.err
    doctor = ahriuwu("doctor", own.folder, "--json")
    assert doctor.code == 3
    assert any(after[:16] in problem["found"] for problem in doctor.data["problems"] if problem["area"] == "tokenizer")


def test_missing_files_are_refused(own: CosmosRoad, moved_files: Path, ahriuwu) -> None:
    (moved_files / "decoder.jit").unlink()
    outcome = ahriuwu("latents", "build", *own.arguments)
    assert outcome.code == 2
    assert "decoder.jit does not exist" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_check_that_fails_leaves_the_earlier_tokenizer(own: CosmosRoad, ahriuwu, cosmos_files, tmp_path) -> None:
    before = own.tokenizer.read_bytes()
    files = cosmos_files(tmp_path / "other", causal=False)
    own.arguments[-1] = f'tokenizer.model={{type="cosmos", path="{files}"}}'
    outcome = ahriuwu("tokenizer", "train", *own.arguments, "--overwrite")
    assert outcome.code == 3
    assert "is not causal" in outcome.err
    assert own.tokenizer.read_bytes() == before


def test_an_image_tokenizer_plays(own: CosmosRoad, ahriuwu, cosmos_files, tmp_path) -> None:
    """With one latent per frame nothing is refused: the agent plays."""
    files = cosmos_files(tmp_path / "image", kind="CI16x16")
    own.arguments[-1] = f'tokenizer.model={{type="cosmos", kind="CI16x16", path="{files}"}}'
    for command in ("tokenizer train", "latents build", "latents pack", "dynamics train", "agent finetune"):
        flags = ["--overwrite"] if command.split()[1] in ("train", "finetune") else []
        outcome = ahriuwu(*command.split(), *own.arguments, *flags)
        assert outcome.code == 0, f"{command}: {outcome.err}"
    outcome = ahriuwu("eval", "agent", *own.arguments, "--agents", "bc", "--episodes", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.data["agents"]["bc"]["returns"]) == 2
