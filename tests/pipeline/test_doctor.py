"""`ahriuwu doctor` on a small but real run: silent while all is well, and one exact row for each thing that is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from ahriuwu_cli.cli.main import app
from ahriuwu_cli.core.artifact import (
    Header,
    hash_file,
    read_arrays,
    read_header,
    read_tensors,
    write_manifest,
    write_tensors,
    write_weights,
)
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run, preset_run
from ahriuwu_cli.pipeline.doctor import examine, machine
from ahriuwu_cli.pipeline.doctor.counts import count_faults
from ahriuwu_cli.pipeline.doctor.encodings import Spread
from ahriuwu_cli.pipeline.doctor.findings import Area, first_few
from ahriuwu_cli.pipeline.doctor.settings import differing
from ahriuwu_cli.pipeline.template import render_config

SMALL = (
    "run.device='cpu'",
    "run.precision='fp32'",
    "run.threads=1",
    "data.episodes=6",
    "data.noise=0.1",
    "data.max_episode_steps=20",
    "data.heldout_fraction=0.34",
    'tokenizer.model={type="cnn", patch=8, dim_token=4, base_channels=8, blocks_per_stage=0}',
    "tokenizer.train={steps=3, batch_size=4, learning_rate=1e-2, warmup_steps=3}",
    "latents.shard_frames=60",
    "dynamics.model={dim=16, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=4}",
    "dynamics.objective={image_fraction=0.0}",
    "dynamics.sampler={steps=2, context_length=4}",
    "dynamics.short_length=5",
    "dynamics.long_length=6",
    "dynamics.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "agent.heads={dim_hidden=8, mtp_length=2, num_buckets=11}",
    "agent.batch_length=6",
    "agent.train={steps=3, batch_size=4, learning_rate=1e-3}",
    "imagine.context_length=4",
    "imagine.horizon=3",
    "imagine.sampling_steps=2",
    "imagine.train={steps=2, batch_size=2, learning_rate=1e-3}",
    "eval.contexts=2",
    "eval.context_length=4",
    "eval.horizon=4",
    "eval.gif_rows=1",
    "eval.episodes=2",
)

RETRAIN = "make it again with `ahriuwu {} --overwrite`".format


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has gone the whole road. Read only."""
    run = preset_run("tiny", tmp_path_factory.mktemp("doctor") / "run", SMALL)
    run.folder.mkdir()
    (run.folder / "run.toml").write_text(render_config(run.config), encoding="utf-8")
    stages.record(run, append=False)
    stages.train_tokenizer(run)
    stages.build_latents(run)
    stages.pack_latents(run)
    stages.train_dynamics(run)
    stages.finetune_agent(run)
    stages.train_imagination(run)
    stages.evaluate_rollout(run)
    stages.evaluate_agent(run)
    return run.folder


@pytest.fixture
def run(healthy: Path, tmp_path: Path) -> Run:
    """A copy of it, to be damaged."""
    shutil.copytree(healthy, tmp_path / "run")
    return preset_run("tiny", tmp_path / "run", SMALL)


class Row(NamedTuple):
    """A finding without its status."""

    area: str
    check: str
    found: str
    hint: str = ""


@dataclass(frozen=True)
class Answer:
    """What `ahriuwu doctor RUN_DIR --json` said."""

    code: int
    problems: list[Row]
    notes: list[Row]
    fine: list[tuple[str, str]]

    def note(self, area: str, check: str) -> str:
        """What one note says."""
        [found] = [row.found for row in self.notes if (row.area, row.check) == (area, check)]
        return found


def doctor(run: Run) -> Answer:
    """Run the command; its exit code must go with what it found."""
    result = CliRunner().invoke(app, ["doctor", str(run.folder), "--json"], catch_exceptions=False)
    data = json.loads(result.stdout)
    checks = data["checks"]
    assert data["problems"] == [check for check in checks if check["status"] == "PROBLEM"]
    assert sum(data["counts"].values()) == len(checks)
    assert result.exit_code == (3 if data["problems"] else 0)

    def rows(status: str) -> Iterator[Row]:
        for check in checks:
            if check["status"] == status:
                assert bool(check["hint"]) == (status == "PROBLEM"), check
                yield Row(check["area"], check["check"], check["found"], check["hint"])

    fine = [(row.area, row.check) for row in rows("ok")]
    return Answer(result.exit_code, list(rows("PROBLEM")), list(rows("note")), fine)


def sign(
    path: Path,
    *,
    tensors: Callable[[dict[str, Tensor]], object] | None = None,
    header: Callable[[dict[str, Any]], object] | None = None,
) -> Header:
    """Change an artifact in place and write it anew with the fingerprint of what it is now."""
    kind = read_header(path, ("episodes", "latents", "packed") if path.is_dir() else (path.name.split(".")[-2],)).kind  # type: ignore[arg-type]
    fields = read_header(path, kind).model_dump(include={"config", "specs", "parents", "info"})
    if header is not None:
        header(fields)
    if path.is_dir():
        return write_manifest(path, kind, **fields)
    values = read_tensors(path)
    if tensors is not None:
        tensors(values)
    return write_weights(path, kind, values, **fields)


def keep_until(run: Run, last: str) -> None:
    """Remove everything made after one stage."""
    order = ["episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination", "evaluation"]
    for name in order[order.index(last) + 1 :]:
        shutil.rmtree(run.folder / name)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x01
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tree(folder: Path) -> dict[str, str]:
    return {str(path): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- all is well

DATA_CHECKS = {"header", "fingerprint", "files", "split", "config"}
WEIGHT_CHECKS = {
    "header",
    "fingerprint",
    "values",
    "spread",
    "loads",
    "learned",
    "training",
    "metrics",
    "made from",
    "specs",
    "config",
    "state",
    "state fingerprint",
    "state values",
}
CHECKS = {
    "config": {"run.toml", "device", "environment"},
    "episodes": DATA_CHECKS | {"frames", "leaks"},
    "tokenizer": WEIGHT_CHECKS | {"split"},
    "latents": DATA_CHECKS | {"spread", "statistics", "counts", "made from", "specs"},
    "packed": DATA_CHECKS - {"files"} | {"shards", "windows", "counts", "made from", "specs"},
    "dynamics": WEIGHT_CHECKS,
    "agent": WEIGHT_CHECKS,
    "imagination": WEIGHT_CHECKS | {"frozen"},
    "evaluation": {"agents"},
}
AREAS = CHECKS.keys() | {"machine"}


def test_a_healthy_run_has_no_problem(run: Run) -> None:
    before = tree(run.folder)
    answer = doctor(run)
    assert (answer.code, answer.problems) == (0, [])
    assert tree(run.folder) == before
    missing = {(area, check) for area, checks in CHECKS.items() for check in checks} - set(answer.fine)
    assert not missing
    assert {area for area, _ in answer.fine} == AREAS


def test_the_table_ends_with_hints_and_a_verdict(run: Run) -> None:
    assert "no problem" in CliRunner().invoke(app, ["doctor", str(run.folder)]).stdout.splitlines()[-1]
    run.tokenizer.write_bytes(b"")
    result = CliRunner().invoke(app, ["doctor", str(run.folder)])
    assert result.exit_code == 3
    [row] = [line for line in result.stdout.splitlines() if "PROBLEM " in line]
    assert row.split()[:3] == ["tokenizer", "header", "PROBLEM"]
    *_, hint, verdict = result.stdout.splitlines()
    assert hint.startswith("hint for tokenizer, header: ")
    assert verdict.endswith(" 1 PROBLEM")


def test_an_empty_folder_has_nothing_yet(tmp_path: Path) -> None:
    run = preset_run("tiny", tmp_path)
    [missing] = doctor(run).problems
    assert (missing.area, missing.check) == ("config", "run.toml")
    (tmp_path / "run.toml").write_text(render_config(run.config), encoding="utf-8")
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("episodes", "header") == "not made yet; `ahriuwu data record` makes it"
    assert answer.note("imagination", "header") == "not made yet; `ahriuwu imagine train` makes it"


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_run_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected the folder of a run"):
        examine(tmp_path / name)


# ---------------------------------------------------------------- damaged files


FILES = {
    "episodes": ("episodes/manifest.json", "header"),
    "one episode": ("episodes/000001.safetensors", "files"),
    "tokenizer": ("tokenizer/tokenizer.safetensors", "header"),
    "its state": ("tokenizer/tokenizer.state.safetensors", "state"),
    "latents": ("latents/manifest.json", "header"),
    "latents of an episode": ("latents/000001.safetensors", "files"),
    "packed": ("packed/manifest.json", "header"),
    "a shard": ("packed/*_0001.safetensors", "shards"),
    "dynamics": ("dynamics/dynamics.safetensors", "header"),
    "agent": ("agent/agent.safetensors", "header"),
    "imagination": ("imagination/imagination.safetensors", "header"),
    "rollout": ("evaluation/rollout/rollout.json", "rollout"),
    "agents": ("evaluation/agent/agents.json", "agents"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short(run: Run, name: str) -> None:
    pattern, check = FILES[name]
    [path] = run.folder.glob(pattern)
    cut_in_half(path)
    [problem] = doctor(run).problems
    assert (problem.area, problem.check) == (pattern.split("/")[0], check)
    if path.suffix == ".safetensors":
        assert f"{path} cannot be read: " in problem.found


def test_a_flipped_byte_in_weights(run: Run) -> None:
    said = read_header(run.agent, "agent").fingerprint
    flip_last_byte(run.agent)
    answer = doctor(run)
    [problem] = answer.problems
    assert problem[:2] == ("agent", "fingerprint")
    assert problem.found.startswith(f"{run.agent} says fingerprint {said} but its content has ")
    assert problem.hint == "the file was changed after it was written; restore it or make it again"
    assert answer.note("imagination", "frozen") == f"cannot be compared: {run.agent} is damaged"


def test_a_flipped_byte_in_data(run: Run) -> None:
    """In the files that a manifest lists, one in each folder."""
    changed = "changed after it was written: its sha256 is not the manifest's"
    shard = sorted(run.packed.glob("shard_*"))[0]
    for path in (run.episodes / "000002.safetensors", run.latents / "000003.safetensors", shard):
        flip_last_byte(path)
    episode, latents, packed = doctor(run).problems
    assert episode[:2] == ("episodes", "files")
    assert episode.found.startswith(f"{run.episodes / '000002.safetensors'} has sha256 ")
    again = "make it again with `ahriuwu latents {}`".format
    assert latents == Row("latents", "files", f"000003.safetensors: {changed}", again("build"))
    assert packed == Row("packed", "shards", f"{shard.name}: {changed}", again("pack"))


def test_missing_files(run: Run) -> None:
    shard = sorted(run.packed.glob("shard_*"))[1]
    for path in (run.episodes / "000000.safetensors", run.latents / "000004.safetensors", shard):
        path.unlink()
    episode, latents, packed = doctor(run).problems
    assert episode[:2] == ("episodes", "files")
    assert "000000.safetensors is missing; the manifest lists it with 20 steps" in episode.found
    assert latents[:3] == ("latents", "files", "000004.safetensors: missing")
    assert packed[:3] == ("packed", "shards", f"{shard.name}: missing")


def test_another_kind_at_a_path(run: Run) -> None:
    shutil.copy(run.tokenizer, run.dynamics)
    [problem] = doctor(run).problems
    assert problem == Row(
        "dynamics",
        "header",
        f"{run.dynamics} is a tokenizer artifact; expected a dynamics artifact",
        "give the output of `ahriuwu dynamics train`",
    )


@pytest.mark.parametrize("kind", ["episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination"])
def test_a_header_with_nothing_in_it_is_no_traceback(run: Run, kind: str) -> None:
    def empty(fields: dict[str, Any]) -> None:
        for part in fields.values():
            part.clear()

    sign(getattr(run, kind), header=empty)
    answer = doctor(run)
    own = {problem.check for problem in answer.problems if problem.area == kind}
    assert own
    assert kind == "episodes" or "made from" in own
    assert {row.area for row in (*answer.problems, *answer.notes)} | {area for area, _ in answer.fine} == AREAS


# ---------------------------------------------------------------- weights


def test_a_weight_that_is_not_finite(run: Run) -> None:
    keep_until(run, "imagination")

    def poison(tensors: dict[str, Tensor]) -> None:
        tensors["value.out.bias"][0] = float("nan")

    sign(run.imagination, tensors=poison)
    assert doctor(run).problems == [
        Row("imagination", "values", "not finite: value.out.bias", RETRAIN("imagine train"))
    ]


def test_a_matrix_of_one_number(run: Run) -> None:
    keep_until(run, "imagination")
    sign(run.imagination, tensors=lambda tensors: tensors["value.out.weight"].zero_())
    assert doctor(run).problems == [
        Row("imagination", "spread", "weight matrices of one number only: value.out.weight", RETRAIN("imagine train"))
    ]


def test_weights_of_other_shapes(run: Run) -> None:
    """Pitfall 1: a file that does not fit the model its own config describes is refused, not patched."""
    keep_until(run, "imagination")
    sign(run.imagination, tensors=lambda tensors: tensors.pop("prior.net.out.bias"))
    loads, frozen = doctor(run).problems
    assert loads[:2] == ("imagination", "loads")
    assert 'Missing key(s) in state_dict: "prior.net.out.bias"' in loads.found
    assert frozen == Row(
        "imagination", "frozen", "frozen, but not as in the agent: prior.net.out.bias", RETRAIN("imagine train")
    )


def test_heads_that_never_trained(run: Run) -> None:
    """Pitfall 2: a head that is read later and never received a gradient."""
    keep_until(run, "imagination")
    sign(run.imagination, header=lambda fields: fields["info"].update(untrained=["value.out.bias"]))
    [problem] = doctor(run).problems
    assert problem[:3] == ("imagination", "learned", "never received a gradient: value.out.bias")


def test_a_training_that_skipped_a_head_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 2: the same, with the defect itself put into the training."""
    from ahriuwu_cli.agent import train as agent_training

    keep_until(run, "dynamics")

    def without_ends(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = real(*arguments)
        return loss.detach() * 0, metrics

    real = agent_training.alive_loss
    monkeypatch.setattr(agent_training, "alive_loss", without_ends)
    stages.finetune_agent(run)
    [problem] = doctor(run).problems
    assert problem[:2] == ("agent", "learned")
    assert problem.found.startswith("never received a gradient: alive.net.")


def test_frozen_parts_that_moved(run: Run) -> None:
    """Pitfall 3: what trains is what was declared, and each of it moved."""
    keep_until(run, "imagination")
    agent = read_tensors(run.agent)

    def confuse(tensors: dict[str, Tensor]) -> None:
        tensors["agent.reward.net.out.bias"] += 1
        tensors["agent.policy.net.out.bias"].copy_(agent["policy.net.out.bias"])

    sign(run.imagination, tensors=confuse)
    [problem] = doctor(run).problems
    assert problem[:2] == ("imagination", "frozen")
    assert problem.found == (
        "frozen, but not as in the agent: reward.net.out.bias; trained, but still as in the agent: "
        "agent.policy.net.out.bias"
    )


def test_an_unfinished_training_is_a_note(run: Run) -> None:
    keep_until(run, "imagination")
    change = {"finished": False, "steps": 1, "untrained": ["value.out.bias"]}
    sign(run.imagination, header=lambda fields: fields["info"].update(change))
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("imagination", "training") == (
        "stopped at step 1 of 2; go on with `ahriuwu imagine train --resume`"
    )
    assert "never received a gradient: value.out.bias" in answer.note("imagination", "learned")
    run.imagination.unlink()
    assert doctor(run).note("imagination", "header") == (
        "begun, not finished; go on with `ahriuwu imagine train --resume`"
    )


def test_a_state_of_another_training(run: Run) -> None:
    shutil.copy(run.agent.with_name("agent.state.safetensors"), run.dynamics.with_name("dynamics.state.safetensors"))
    assert doctor(run).problems == [
        Row("dynamics", "state", "it is of a agent training", "start anew with --overwrite"),
    ]


# ---------------------------------------------------------------- metrics


def with_last(**change: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[-1].update(change)


METRICS: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "no loss": (with_last(loss=None), "the loss at step 3 is not finite"),
    "bad steps": (with_last(bad_steps=21), "21 steps were not finite, more than max_bad_steps = 20"),
    "collapse": (
        with_last(step=60, spread=0.01, spread_reference=0.2),
        "collapsed: predictions hardly differ (spread 0.01, truth 0.2)",
    ),
}


def rewrite_metrics(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_went_wrong(run: Run, name: str) -> None:
    """Pitfalls 15, 30: non-finite steps and predictions that collapsed to the mean."""
    change, found = METRICS[name]
    rewrite_metrics(run.tokenizer.with_name("metrics.jsonl"), change)
    [problem] = doctor(run).problems
    assert problem[:3] == ("tokenizer", "metrics", found)


def test_warnings_that_went_by_are_noted(run: Run) -> None:
    def warn(lines: list[dict[str, Any]]) -> None:
        lines[-1]["bad_steps"] = 2
        lines.append({"step": 3, "warning": "clipped"})

    rewrite_metrics(run.dynamics.with_name("metrics.jsonl"), warn)
    run.tokenizer.with_name("metrics.jsonl").unlink()
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("dynamics", "metrics") == (
        "2 of 3 steps skipped as not finite, 1 warning; last warning, at step 3: clipped"
    )
    assert answer.note("tokenizer", "metrics").startswith("no log point in ")


# ---------------------------------------------------------------- the chain


def test_a_foreign_tokenizer(run: Run) -> None:
    """Latents of another tokenizer: everything downstream names both fingerprints."""
    was = read_header(run.tokenizer, "tokenizer").fingerprint
    now = sign(run.tokenizer, tensors=lambda tensors: next(iter(tensors.values())).add_(0.1)).fingerprint
    problems = doctor(run).problems
    assert [problem.area for problem in problems] == ["latents", "packed", "dynamics", "agent", "imagination"]
    for problem in problems:
        path = getattr(run, problem.area)
        assert problem[1:] == (
            "made from",
            f"{path} was made with tokenizer {was}, but {run.tokenizer} is {now}",
            f"give the tokenizer with fingerprint {was}, or make {path.name} again",
        )


def test_a_parent_that_is_not_named(run: Run) -> None:
    keep_until(run, "tokenizer")
    sign(run.tokenizer, header=lambda fields: fields["parents"].clear())
    found = f"{run.tokenizer} does not name the episodes it was made from"
    assert doctor(run).problems == [
        Row("tokenizer", "made from", found, RETRAIN("tokenizer train")),
        Row("tokenizer", "state", "its parents are not those of the weights", "start anew with --overwrite"),
    ]


def test_a_lost_parent_is_a_note(run: Run) -> None:
    shutil.rmtree(run.latents)
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("latents", "header") == (
        f"{run.latents} is not here, though packed, dynamics, agent, imagination were made from it"
    )
    assert answer.note("dynamics", "made from").startswith("cannot be compared, not readable here: latents ")


def test_other_actions_than_the_data(run: Run) -> None:
    """Pitfall 12: the action spec is compared along the road."""
    keep_until(run, "imagination")
    sign(run.imagination, header=lambda fields: fields["specs"]["action"]["components"][0].update(labels=["jump"] * 3))
    shutil.rmtree(run.imagination.parent / "tensorboard", ignore_errors=True)
    run.imagination.with_name("imagination.state.safetensors").unlink()
    [problem] = doctor(run).problems
    assert problem[:2] == ("imagination", "specs")
    assert problem.found.startswith('the action spec is not that of the episodes: {"components":[{"dim":1,')


def test_latents_folded_otherwise(run: Run) -> None:
    """Pitfall 11: latents carry their layout."""
    keep_until(run, "packed")
    sign(run.packed, header=lambda fields: fields["specs"]["latent"].update(layout="grid 1x4"))
    [problem] = doctor(run).problems
    assert problem[:2] == ("packed", "specs")
    assert "the latent spec is not that of the latents" in problem.found


# ---------------------------------------------------------------- counts and splits


def entries_of(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], None]:
    return lambda fields: change(fields["info"]["episodes"]) and None


def test_latents_of_too_few_frames(run: Run) -> None:
    """Pitfall 13: counts are compared with the source."""
    keep_until(run, "latents")
    path = run.latents / "000003.safetensors"
    short = torch.from_numpy(read_arrays(path)["latents"][:-2].copy())
    write_tensors(path, {"latents": short}, {})
    change = {"num_frames": len(short), "sha256": hash_file(path)}
    sign(run.latents, header=entries_of(lambda entries: entries[3].update(change)))
    problems = {problem.check: problem.found for problem in doctor(run).problems}
    assert problems.keys() <= {"counts", "statistics"}  # the recorded mean is of two frames more
    assert problems["counts"] == f"episode 000003 has {len(short)} frames, {len(short) + 2} in episodes"


def test_latents_of_too_few_episodes(run: Run) -> None:
    keep_until(run, "latents")
    heldout = [entry for entry in read_header(run.latents, "latents").info["episodes"] if entry["split"] == "heldout"]
    sign(run.latents, header=entries_of(lambda entries: entries.remove(heldout[0])))
    remedy = "make it again with `ahriuwu latents build`"
    assert doctor(run).problems == [
        Row("latents", "counts", f"lacks 1 episode of episodes ({heldout[0]['id']})", remedy),
        Row("latents", "split", f"held out in episodes but not here: {heldout[0]['id']}", remedy),
    ]


NUMBERS = st.dictionaries(st.sampled_from(["000000", "000001", "000002", "000003"]), st.integers(2, 4))


@given(NUMBERS, NUMBERS)
def test_counts_agree_only_when_equal(mine: dict[str, int], theirs: dict[str, int]) -> None:
    faults = count_faults(mine, theirs, "episodes")
    assert bool(faults) == (mine != theirs)
    assert all(name in " ".join(faults) for name in sorted(theirs.keys() - mine.keys())[:3])


def test_shards_with_a_gap(run: Run) -> None:
    keep_until(run, "packed")
    sign(run.packed, header=entries_of(lambda entries: entries[1].update(start=entries[1]["start"] + 1)))
    [problem] = doctor(run).problems
    assert problem[:2] == ("packed", "shards")
    assert "episode 000001 begins at row 22, the one before it ends at 21" in problem.found


def test_an_episode_on_both_sides_of_the_split(run: Run) -> None:
    """Pitfall 7: a training episode listed as held out too."""
    keep_until(run, "latents")
    entries = read_header(run.latents, "latents").info["episodes"]
    train = next(entry for entry in entries if entry["split"] == "train")
    sign(run.latents, header=entries_of(lambda listed: listed.append({**train, "split": "heldout"})))
    name = train["id"]
    assert doctor(run).problems == [
        Row(
            "latents",
            "split",
            f"both in train and heldout: {name}; held out here but not in episodes: {name}",
            "make it again with `ahriuwu latents build`",
        )
    ]


def test_nothing_held_out(run: Run) -> None:
    keep_until(run, "episodes")
    sign(run.episodes, header=entries_of(lambda entries: [entry.update(split="train") for entry in entries]))
    [problem] = doctor(run).problems
    assert problem[:3] == ("episodes", "split", "no heldout episode")
    assert "ahriuwu data split" in problem.hint


def test_a_tokenizer_that_saw_the_held_out_episodes(run: Run) -> None:
    """Pitfall 7: held-out episodes sat in the tokenizer's training set."""
    keep_until(run, "tokenizer")
    first, *rest = read_header(run.tokenizer, "tokenizer").info["heldout"]
    sign(run.tokenizer, header=lambda fields: fields["info"].update(heldout=rest))
    assert doctor(run).problems == [
        Row("tokenizer", "split", f"held out in episodes but not here: {first}", RETRAIN("tokenizer train"))
    ]


def test_a_split_that_was_changed_afterwards(run: Run) -> None:
    """Pitfall 7: `data split` after training; every stage says so."""
    before = set(read_header(run.tokenizer, "tokenizer").info["heldout"])
    for seed in range(1, 20):
        run = preset_run("tiny", run.folder, (*SMALL, f"run.seed={seed}"))
        stages.split(run)
        entries = read_header(run.episodes, "episodes").info["episodes"]
        if {entry["id"] for entry in entries if entry["split"] == "heldout"} != before:
            break
    answer = doctor(run)
    split = [problem.area for problem in answer.problems if problem.check == "split"]
    chain = [problem.area for problem in answer.problems if problem.check == "made from"]
    assert split == ["tokenizer", "latents", "packed"]
    assert chain == ["tokenizer", "latents", "packed", "dynamics", "agent", "imagination"]


def test_the_same_play_in_train_and_heldout(run: Run) -> None:
    """Pitfall 7: a copy of a training episode is no held-out episode."""
    keep_until(run, "episodes")
    entries = read_header(run.episodes, "episodes").info["episodes"]
    train, held = (next(entry for entry in entries if entry["split"] == split) for split in ("train", "heldout"))
    shutil.copy(run.episodes / train["file"], run.episodes / held["file"])

    def copy(listed: list[dict[str, Any]]) -> None:
        [entry] = [entry for entry in listed if entry["id"] == held["id"]]
        entry |= {name: train[name] for name in ("num_steps", "total_reward", "sha256")}

    sign(run.episodes, header=entries_of(copy))
    [problem] = doctor(run).problems
    assert problem[:3] == ("episodes", "leaks", "1 play both in train and heldout, frame by frame")


def test_an_action_outside_its_range(run: Run) -> None:
    keep_until(run, "episodes")
    path = run.episodes / "000000.safetensors"
    arrays = read_arrays(path)
    arrays["actions"][4] = 9
    write_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, {})
    sign(run.episodes, header=entries_of(lambda entries: entries[0].update(sha256=hash_file(path))))
    [problem] = doctor(run).problems
    assert problem[:2] == ("episodes", "files")
    assert problem.found.startswith("000000.safetensors: the episode with seed ")
    assert "9" in problem.found


# ---------------------------------------------------------------- latents


def test_a_dead_channel(run: Run) -> None:
    """Pitfall 30: a tokenizer with a channel that carries nothing, taken through the real stage."""
    keep_until(run, "tokenizer")

    def kill(tensors: dict[str, Tensor]) -> None:
        name = max(name for name in tensors if name.startswith("encoder.") and name.endswith(".weight"))
        tensors[name][2] = 0

    sign(run.tokenizer, tensors=kill)
    stages.build_latents(run)
    [problem] = doctor(run).problems
    assert problem[:3] == (
        "latents",
        "spread",
        "tokenizer collapsed: 1 of 4 channels have a spread below 0.001 (2)",
    )
    assert problem.hint.startswith("train the tokenizer longer")


def test_latents_that_do_not_depend_on_the_frame() -> None:
    """Pitfall 30: every image gives the mean image; channels still differ from token to token."""
    spread, varied = Spread(), Spread()
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 3, 2))
    for _ in range(2):
        spread.add(np.repeat(one, 5, axis=0).astype(np.float16))
        varied.add(rng.normal(size=(5, 3, 2)))
    assert spread.channels()[1].min() > 0.1
    assert spread.over_frames() < 1e-6
    assert varied.over_frames() > 0.1


def test_spread_is_that_of_all_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(7, 3, 2))
    spread = Spread()
    spread.add(values[:4])
    spread.add(values[4:])
    mean, std = spread.channels()
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(std, values.std(axis=(0, 1)))
    assert spread.over_frames() == pytest.approx(values.std(axis=0).max())


def test_statistics_that_are_not_those_of_the_latents(run: Run) -> None:
    keep_until(run, "latents")
    mean = read_header(run.latents, "latents").specs["latent"]["mean"]
    sign(run.latents, header=lambda fields: fields["specs"]["latent"].update(mean=[mean[0] + 0.5, *mean[1:]]))
    [problem] = doctor(run).problems
    assert problem[:2] == ("latents", "statistics")
    assert problem.found == f"mean of channel 0 is recorded as {mean[0] + 0.5:.4g}, found {mean[0]:.4g}"


# ---------------------------------------------------------------- config and machine


def test_a_typo_in_run_toml_stops_nothing_else(run: Run) -> None:
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace("learning_rate", "lerning_rate", 1))
    answer = doctor(run)
    [problem] = answer.problems
    assert problem[:2] == ("config", "run.toml")
    assert "unknown key tokenizer.train.lerning_rate" in problem.found
    assert ("imagination", "loads") in answer.fine


def test_changed_settings_are_noted(run: Run) -> None:
    changed = preset_run("tiny", run.folder, (*SMALL, "dynamics.train.steps=9", "imagine.gamma=0.9", "data.episodes=8"))
    (run.folder / "run.toml").write_text(render_config(changed.config))
    answer = doctor(run)
    assert answer.problems == []
    made = "made with other values than run.toml has now"
    assert answer.note("dynamics", "config") == f"{made}: dynamics.train.steps"
    assert answer.note("imagination", "config") == f"{made}: imagine.gamma"
    assert answer.note("episodes", "number") == (
        "2 episodes fewer than data.episodes; `ahriuwu data record --append --episodes 2` adds them"
    )
    assert ("agent", "config") in answer.fine


def test_differing_keys() -> None:
    then = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": 0}
    assert list(differing(then, {"a": 1, "b": {"c": [1, 3], "d": None}, "f": 0})) == ["b.c", "e", "f"]
    assert list(differing(then, then)) == []


def test_a_game_that_is_not_installed_is_a_note(run: Run) -> None:
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace("ahriuwu/Bricks-v0", "ahriuwu/Nothing-v0"))
    answer = doctor(run)
    assert answer.problems == []
    assert "ahriuwu/Nothing-v0" in answer.note("config", "environment")


def test_a_device_that_is_not_here(run: Run) -> None:
    device = "mps" if not torch.backends.mps.is_available() else "cuda"
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace('device = "cpu"', f'device = "{device}"'))
    [problem] = doctor(run).problems
    assert problem[:2] == ("config", "device")
    assert problem.found.startswith(f"run.device is {device}, but ")


def test_a_long_list_is_cut() -> None:
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c, and 2 more"


def test_the_machine_alone() -> None:
    report = examine(None)
    checks = {row[1]: (row[2], row[3]) for row in report.rows}
    assert {row[0] for row in report.rows} == {"machine"}
    assert checks.keys() >= {"python", "torch", "packages", "cpu", "cuda", "mps", "disk", "atari", "minigrid", "lpips"}
    assert report.data["run_dir"] is None
    assert checks["torch"][1].startswith(torch.__version__)
    assert "precisions fp32" in checks["cpu"][1]
    assert "native bf16" in checks["cpu"][1]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
    [problem] = [row for row in examine(None).data["problems"] if row["check"] == "disk"]
    assert problem["found"].startswith("0.5 GiB free at ")
    assert problem["found"].endswith("expected at least 1 GiB")


def with_versions(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str | None]) -> list[Any]:
    def version(name: str) -> str:
        found = versions.get(name, real(name))
        if found is None:
            raise machine.metadata.PackageNotFoundError(name)
        return found

    real = machine.metadata.version
    monkeypatch.setattr(machine.metadata, "version", version)
    area = Area("machine", "remedy")
    machine._packages(area)
    machine._extras(area)
    return [(finding.check, finding.status, finding.found, finding.hint) for finding in area.findings]


def test_packages_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_, packages, *extras = with_versions(
        monkeypatch, {"torch": "2.99.0", "numpy": "1.26.4", "scipy": None, "ale-py": None, "minigrid": "3.0.0"}
    )
    assert torch_[:3] == ("torch", "PROBLEM", f"torch is 2.99.0; expected {needed('torch')}")
    assert torch_[3].startswith("pip install 'torch")
    assert packages[:2] == ("packages", "PROBLEM")
    assert packages[2] == f"numpy is 1.26.4; expected {needed('numpy')}; scipy is not installed"
    assert [extra[:2] for extra in extras[:2]] == [("atari", "note"), ("minigrid", "ok")]
    assert extras[0][2] == "ale-py is not installed (optional: pip install 'ahriuwu[atari]')"


def needed(name: str) -> str:
    [requirement] = [requirement for requirement in machine.requirements() if requirement.name == name]
    return str(requirement.specifier)


# ---------------------------------------------------------------- evaluation


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def test_results_of_other_weights_are_noted(run: Run) -> None:
    rewrite_json(run.evaluation / "rollout" / "rollout.json", lambda facts: facts.update(fingerprint="0" * 16))
    rewrite_json(run.evaluation / "agent" / "agents.json", lambda facts: facts["fingerprints"].update(bc="1" * 16))
    answer = doctor(run)
    assert answer.problems == []
    for check, named, kind in (("rollout", "dynamics " + "0" * 16, "dynamics"), ("agents", "bc " + "1" * 16, "agent")):
        here = read_header(getattr(run, kind), kind).fingerprint  # type: ignore[arg-type]
        assert answer.note("evaluation", check).endswith(f"of {named}, but here is {here}: stale")


def test_results_that_say_nothing(run: Run) -> None:
    """Pitfall 7: a dream judged on training episodes, agents on recorded ones; and numbers that are none."""
    episodes = read_header(run.episodes, "episodes").info["episodes"]
    train = next(entry["id"] for entry in episodes if entry["split"] == "train")

    def spoil(facts: dict[str, Any]) -> None:
        facts["heldout_episodes"].append(train)
        facts["curves"]["dream"]["psnr"][0] = float("nan")

    rewrite_json(run.evaluation / "rollout" / "rollout.json", spoil)
    seed = episodes[0]["seed"]
    rewrite_json(run.evaluation / "agent" / "agents.json", lambda facts: facts["environment"]["seeds"].append(seed))
    assert doctor(run).problems == [
        Row(
            "evaluation",
            "rollout",
            f"curves hold values that are no numbers; it was judged on episodes that are not held out: {train}",
            "run `ahriuwu eval rollout` again",
        ),
        Row(
            "evaluation",
            "agents",
            f"episodes played that are in the recording: seeds {seed}",
            "run `ahriuwu eval agent` again",
        ),
    ]
