"""Defects that were sealed: hashes, fingerprints and counts are right, only the content is not what it says it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.artifact import hash_tensors, read_header
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.tensorfile import metadata_of, read_tensors, write_tensors
from ahriuwu_cli.doctor.reencoding import sampled_pair
from ahriuwu_cli.latents.encoded import MADE_FROM
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.tokenizer.coding import encode_episode
from ahriuwu_cli.tokenizer.registry import config_class, module_class

Arrays = dict[str, torch.Tensor]


@pytest.fixture
def reseal(sign: Any) -> Callable[..., None]:
    """Change tensor files of a folder, and sign its manifest with their new hashes; `more` changes the manifest too."""

    def change(folder: Path, files: dict[str, Callable[[Arrays], object]], more: Any = None) -> None:
        for name, edit in files.items():
            tensors, metadata = read_tensors(folder / name), metadata_of(folder / name)
            edit(tensors)
            if MADE_FROM in metadata:  # forged too
                content = {"content": hash_tensors({"latents": tensors["latents"]})}
                metadata = {MADE_FROM: json.dumps(json.loads(metadata[MADE_FROM]) | content)}
            write_tensors(folder / name, tensors, metadata)

        def header(fields: dict[str, Any]) -> None:
            info = fields["info"]
            for entry in [*info["episodes"], *info.get("shards", [])]:
                if entry.get("file") in files:
                    entry["sha256"] = hash_file(folder / entry["file"])
            if more is not None:
                more(fields)

        sign(folder, header=header)

    return change


def entries(run: Run, kind: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_header(getattr(run, kind), kind).info["episodes"]
    return found


def alike(run: Run, *, split: bool) -> tuple[str, str]:
    """Two episodes of the same length, of both splits or of train alone."""
    found = entries(run, "episodes")
    for first in found:
        for second in found:
            same = first["num_steps"] == second["num_steps"] and first["id"] < second["id"]
            if same and (first["split"] != second["split"]) == split:
                return first["id"], second["id"]
    raise AssertionError("no two episodes of one length")


# ---------------------------------------------------------------- latents


def test_latents_that_were_scaled(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    """Pitfall 11: every file, with the statistics, and what the files say of themselves."""
    keep_until(run, "latents")

    def statistics(fields: dict[str, Any]) -> None:
        spec = fields["specs"]["latent"]
        spec.update({name: [1.5 * value for value in spec[name]] for name in ("mean", "std")})

    files = {entry["file"]: lambda arrays: arrays["latents"].mul_(1.5) for entry in entries(run, "latents")}
    reseal(run.latents, files, statistics)
    [problem] = doctor(run).problems
    assert problem[:2] == ("latents", "encoding")
    assert "1.5 times as large: the latents are not of these frames" in problem.found


def test_latents_of_another_episode(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    """Exchanged whole, and with the content alone, what they say of themselves being forged."""
    keep_until(run, "latents")
    first, second = (run.latents / f"{name}.safetensors" for name in alike(run, split=False))
    files = {first: read_tensors(second), second: read_tensors(first)}

    def whole(fields: dict[str, Any]) -> None:
        metadata = {path: metadata_of(path) for path in files}
        for path, other in ((first, second), (second, first)):
            write_tensors(path, files[path], metadata[other])
        for entry in fields["info"]["episodes"]:
            entry["sha256"] = hash_file(run.latents / entry["file"])

    reseal(run.latents, {}, whole)
    found = {problem.check: problem.found for problem in doctor(run).problems}
    assert found.keys() == {"origins", "encoding"}
    assert f"{first.name} says that it was made from another episode" in found["origins"]


def test_latents_of_another_episode_with_a_forged_origin(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    keep_until(run, "latents")
    first, second = (f"{name}.safetensors" for name in alike(run, split=False))
    other = read_tensors(run.latents / second)["latents"]
    reseal(run.latents, {first: lambda arrays: arrays["latents"].copy_(other)})
    assert "encoding" in {problem.check for problem in doctor(run).problems}


# ---------------------------------------------------------------- packed


def shard_of(run: Run, entry: dict[str, Any]) -> tuple[str, slice]:
    shard = read_header(run.packed, "packed").info["shards"][entry["shard"]]
    return shard["file"], slice(entry["start"] + 1, entry["start"] + entry["num_latents"])


def test_actions_that_were_permuted(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    """Pitfall 12: other actions than those that were taken, each of them a proper one."""
    keep_until(run, "packed")
    entry = entries(run, "packed")[1]
    file, rows = shard_of(run, entry)
    reseal(run.packed, {file: lambda arrays: arrays["action"][rows].copy_(arrays["action"][rows].flip(0))})
    [problem] = doctor(run).problems
    assert problem[:2] == ("packed", "blocks")
    assert problem.found.startswith(f"episode {entry['id']}: action of block ")
    assert problem.hint == "run `ahriuwu latents pack` again"


def test_rewards_that_came_a_step_later(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    """Pitfall 13: the same rewards, shifted by one block."""
    keep_until(run, "packed")
    paid = next(entry for entry in entries(run, "episodes") if entry["total_reward"])
    entry = next(entry for entry in entries(run, "packed") if entry["id"] == paid["id"])
    file, rows = shard_of(run, entry)
    reseal(run.packed, {file: lambda arrays: arrays["reward"][rows].copy_(arrays["reward"][rows].roll(1))})
    [problem] = doctor(run).problems
    assert problem[:2] == ("packed", "blocks")
    assert f"episode {entry['id']}: reward of block " in problem.found


def test_packed_latents_of_another_episode(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    keep_until(run, "packed")
    entry = entries(run, "packed")[0]
    file, rows = shard_of(run, entry)
    reseal(run.packed, {file: lambda arrays: arrays["latents"][rows].copy_(arrays["latents"][rows].flip(0))})
    [problem] = doctor(run).problems
    assert problem.found.startswith(f"episode {entry['id']}: latents of block 1 differ from those that were built")


# ---------------------------------------------------------------- episodes


def copy_play(run: Run, reseal: Any, source: str, target: str, change: Callable[[Arrays], object]) -> None:
    """Put the arrays of one episode, changed, in the place of another."""
    arrays = read_tensors(run.episodes / f"{source}.safetensors")
    own = read_tensors(run.episodes / f"{target}.safetensors")
    change(arrays)

    def replace(tensors: Arrays) -> None:
        tensors.update(arrays)
        tensors["timestamps"] = own["timestamps"]

    record = next(entry for entry in entries(run, "episodes") if entry["id"] == source)

    def listed(fields: dict[str, Any]) -> None:
        [entry] = [entry for entry in fields["info"]["episodes"] if entry["id"] == target]
        entry.update({name: record[name] for name in ("total_reward", "events") if name in record})

    reseal(run.episodes, {f"{target}.safetensors": replace}, listed)


@pytest.mark.parametrize("frames", [slice(5, 6), slice(None)], ids=["one frame", "every frame"])
def test_a_held_out_play_in_train_but_for_a_pixel(
    run: Run, doctor: Any, keep_until: Any, reseal: Any, frames: slice
) -> None:
    """Pitfall 7: one changed pixel gives another hash, not another play."""
    keep_until(run, "episodes")
    source, target = alike(run, split=True)
    copy_play(run, reseal, source, target, lambda arrays: arrays["frames"][frames, 3, 4, 0].bitwise_xor_(1))
    [problem] = doctor(run).problems
    assert problem[:2] == ("episodes", "leaks")
    assert problem.found == f"but for at most 0.1% of their pixels the same play: {source} and {target}"


def test_frames_of_another_play(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    keep_until(run, "episodes")
    source, target = alike(run, split=False)
    path = run.episodes / f"{source}.safetensors"
    frames = read_tensors(path)["frames"]
    reseal(run.episodes, {f"{target}.safetensors": lambda arrays: arrays["frames"].copy_(frames)})
    [problem] = doctor(run).problems
    assert problem[:2] == ("episodes", "foreign frames")
    assert f"{source} and {target}" in problem.found


def test_plays_that_only_begin_alike_are_fine(run: Run, doctor: Any, keep_until: Any, reseal: Any) -> None:
    """A game may be still for a while, and its players may do the same."""
    keep_until(run, "episodes")
    source, target = alike(run, split=True)
    half = read_tensors(run.episodes / f"{source}.safetensors")["frames"][:8]
    reseal(run.episodes, {f"{target}.safetensors": lambda arrays: arrays["frames"][:8].copy_(half)})
    assert doctor(run).problems == []


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("name", ["reward.net.out.bias", "policy.net.out.bias"])
def test_a_vector_that_was_wiped_out(run: Run, doctor: Any, sign: Any, keep_until: Any, name: str) -> None:
    """Pitfall 2: declared as trained and moved, and yet one number all over."""
    keep_until(run, "agent")
    sign(run.agent, tensors=lambda tensors: tensors[name].zero_())
    [problem] = [problem for problem in doctor(run).problems if problem.check == "spread"]
    assert problem.found == f"tensors of one number only: {name}"


def test_a_store_that_has_grown_is_compared_where_it_was(run: Run, doctor: Any, with_settings: Any) -> None:
    """Blocks and latents of the smaller store stay what they are."""
    run = with_settings(run, "data.episodes=2")
    stages.record(run, append=True)
    answer = doctor(run)
    assert answer.problems == []
    assert {("packed", "blocks"), ("latents", "origins"), ("latents", "encoding")} <= set(answer.fine)


class ShownFrames(list[np.ndarray]):
    """Frames in memory, read as an episode's are."""

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.stack(self[start:stop])


def test_a_tokenizer_that_looks_back_is_asked_from_the_beginning() -> None:
    """The latents of an episode's first frames are the first latents of the episode."""
    config = config_class("transformer").model_validate(
        {"dim": 16, "num_heads": 2, "num_kv_heads": 2, "num_bottleneck": 4, "num_tokens": 4, "time_every": 1}
    )
    torch.manual_seed(0)
    tokenizer = module_class("transformer")(config, FrameSpec(height=16, width=16, fps=15.0)).eval()
    frames = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8)
    stored = encode_episode(tokenizer, [frames], Runtime(torch.device("cpu"), "fp32"))
    there, again = sampled_pair(tokenizer, ShownFrames(frames.numpy()), stored)
    assert len(there) == len(again) == 16
    assert torch.allclose(there, again, atol=1e-4)
