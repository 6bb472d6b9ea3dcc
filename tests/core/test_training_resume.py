"""Resuming: exact to the bit on the CPU, refused where it would lie."""

from __future__ import annotations

import json

import pytest
import torch

from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, InputError, TrainingInterrupted
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics

TIMES = ("seconds", "steps_per_second")


def points(folder):
    """Log points without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(folder / "metrics.jsonl")]


def same_bits(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        a.dtype == b.dtype and torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8))
        for a, b in ((left[name], right[name]) for name in left)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "wsd"},
        {"schedule": "cosine"},
        {"optimizer": "muon"},
        {"ema_decay": 0.7},
        {"ema_decay": 0.7, "accumulate": 3},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
@pytest.mark.parametrize("k", [1, 5, 8, 11])
def test_stop_and_resume_gives_the_bits_of_a_straight_run(tmp_path, toy, settings, cpu, k, changes):
    """Pitfall 14: N steps straight = k steps + resume + N-k steps, bit for bit on CPU, averages included."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    averaged = "ema_decay" in changes
    whole = train(toy(), settings(**changes), cpu, straight, resume=False, seed=3)
    with pytest.raises(TrainingInterrupted, match=f"stopped at step {k} of 12; saved to"):
        train(toy(stop_at=k - 1), settings(**changes), cpu, broken, resume=False, seed=3)
    interrupted = read_header(broken / "dynamics.safetensors", "dynamics")
    said = {"toy": True, "steps": k, "finished": False, "untrained": [], "averaged": averaged, "heldout": {}}
    assert interrupted.info == said

    torch.manual_seed(12345)  # what the generators were left at must not matter
    resumed = train(toy(), settings(**changes), cpu, broken, resume=True, seed=3)

    assert resumed.header.fingerprint == whole.header.fingerprint
    left_header, left = read_weights(straight / "dynamics.state.safetensors", "state")
    right_header, right = read_weights(broken / "dynamics.state.safetensors", "state")
    assert same_bits(left, right)
    assert left_header.info == right_header.info
    assert resumed.steps == whole.steps == 12
    assert not same_bits(left, {**left, "module/outer.bias": left["module/outer.bias"] + 1e-7})  # it can tell
    assert ("average/outer.bias" in left) == averaged


def test_resume_after_a_crash_starts_at_the_checkpoint_and_keeps_the_log_consistent(tmp_path, toy, settings, cpu):
    """Pitfalls 14 and 21: the interval fires, and no step is logged twice."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    whole = train(toy(), settings(), cpu, straight, resume=False, seed=3)
    with pytest.raises(RuntimeError, match="crash"):
        train(toy(crash_at=8), settings(), cpu, broken, resume=False, seed=3)
    assert read_header(broken / "dynamics.state.safetensors", "state").info["step"] == 5
    assert [point["step"] for point in points(broken)] == [2, 4, 5, 6, 8]
    with (broken / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9, "lo')  # a line that a kill cut short

    resumed = train(toy(), settings(), cpu, broken, resume=True, seed=3)
    assert resumed.header.fingerprint == whole.header.fingerprint
    assert [point["step"] for point in points(broken)] == [2, 4, 5, 6, 8, 10, 12]
    assert points(broken) == points(straight)


def test_a_finished_run_returns_at_once_and_writes_nothing(tmp_path, toy, settings, cpu):
    first = train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    stage = toy()
    second = train(stage, settings(), cpu, tmp_path, resume=True, seed=3)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before
    assert stage.seen == []
    assert (second.header, second.steps, second.metrics) == (first.header, 12, pytest.approx(first.metrics))
    assert second.seconds > 0
    weights = read_weights(tmp_path / "dynamics.safetensors", "dynamics")[1]
    assert same_bits(weights, dict(stage.module.state_dict()))


def test_a_state_of_the_last_step_without_its_artifact_is_completed(tmp_path, toy, settings, cpu):
    first = train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    (tmp_path / "dynamics.safetensors").unlink()  # killed between the two files
    stage = toy()
    second = train(stage, settings(), cpu, tmp_path, resume=True, seed=3)
    assert stage.seen == []
    assert second.header.fingerprint == first.header.fingerprint
    assert second.metrics == pytest.approx(first.metrics)


def test_more_steps_go_on_from_a_finished_run(tmp_path, toy, settings, cpu):
    train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    stage = toy()
    longer = train(stage, settings(steps=14, log_every=7, max_bad_steps=3), cpu, tmp_path, resume=True, seed=3)
    assert len(stage.seen) == 2
    assert longer.steps == longer.header.info["steps"] == 14


@pytest.mark.parametrize(
    ("stage", "changes", "seed", "named"),
    [
        ({"config": {"model": {"dim": 16}}}, {}, 3, "config.model.dim: 8 in the saved state, 16 now"),
        ({"config": {"model": {"dim": 8, "cap": 1}}}, {}, 3, "config.model.cap: nothing in the saved state, 1 now"),
        ({"parents": {"latents": "ffff"}}, {}, 3, "parents.latents: 0123456789abcdef in the saved state, ffff now"),
        ({}, {"learning_rate": 0.02}, 3, "train.learning_rate: 0.01 in the saved state, 0.02 now"),
        ({}, {"ema_decay": 0.9}, 3, "train.ema_decay: 0.0 in the saved state, 0.9 now"),
        ({}, {"accumulate": 2}, 3, "train.accumulate: 1 in the saved state, 2 now"),
        ({}, {}, 4, "seed: 3 in the saved state, 4 now"),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path, toy, settings, cpu, stage, changes, seed, named):
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=4), settings(), cpu, tmp_path, resume=False, seed=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ArtifactError) as caught:
        train(toy(**stage), settings(**changes), cpu, tmp_path, resume=True, seed=seed)
    assert named in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_cadence_inside_the_config_may_change_but_another_key_called_steps_may_not(tmp_path, toy, settings, cpu):
    def config(train_steps: int, sampler_steps: int) -> dict:
        return {"train": {"steps": train_steps, "log_every": train_steps}, "sampler": {"steps": sampler_steps}}

    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=4, config=config(12, 4)), settings(), cpu, tmp_path, resume=False, seed=3)
    with pytest.raises(ArtifactError, match=r"config\.sampler\.steps: 4 in the saved state, 8 now"):
        train(toy(config=config(12, 8)), settings(), cpu, tmp_path, resume=True, seed=3)
    train(toy(config=config(6, 4)), settings(steps=6), cpu, tmp_path, resume=True, seed=3)


def test_recomputation_may_be_turned_on_at_a_resume(tmp_path, toy, settings, cpu):
    """Pitfall 14: the way out when memory runs short leads to the same bits."""
    whole = train(toy(), settings(), cpu, tmp_path / "straight", resume=False, seed=3)
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=4), settings(), cpu, tmp_path / "broken", resume=False, seed=3)
    stage = toy()
    resumed = train(stage, settings(recompute=True), cpu, tmp_path / "broken", resume=True, seed=3)
    assert stage.module.recompute
    assert resumed.header.fingerprint == whole.header.fingerprint


def test_the_state_of_another_kind_is_refused(tmp_path, toy, settings, cpu):
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=4), settings(), cpu, tmp_path, resume=False, seed=3)
    (tmp_path / "dynamics.state.safetensors").rename(tmp_path / "agent.state.safetensors")
    stage = toy()
    stage.kind = "agent"
    with pytest.raises(ArtifactError, match="is the state of a dynamics training; expected agent"):
        train(stage, settings(), cpu, tmp_path, resume=True, seed=3)


def test_a_weights_file_is_no_state(tmp_path, toy, settings, cpu):
    train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    (tmp_path / "dynamics.safetensors").replace(tmp_path / "dynamics.state.safetensors")
    with pytest.raises(ArtifactError, match="is a dynamics artifact; expected a state artifact"):
        train(toy(), settings(), cpu, tmp_path, resume=True, seed=3)


def test_nothing_to_resume(tmp_path, toy, settings, cpu):
    with pytest.raises(InputError, match="nothing to resume") as caught:
        train(toy(), settings(), cpu, tmp_path / "absent", resume=True, seed=3)
    assert "without --resume" in caught.value.hint
    assert not (tmp_path / "absent").exists()


def test_an_earlier_run_is_not_written_over(tmp_path, toy, settings, cpu):
    first = train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="exists") as caught:
        train(toy(), settings(steps=4), cpu, tmp_path, resume=False, seed=3)
    assert "--resume" in caught.value.hint
    assert "--overwrite" in caught.value.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    second = train(toy(), settings(steps=4), cpu, tmp_path, resume=False, seed=3, overwrite=True)
    assert second.header.fingerprint != first.header.fingerprint
    assert [point["step"] for point in points(tmp_path)] == [2, 4]
    with pytest.raises(InputError, match="exclude each other"):
        train(toy(), settings(), cpu, tmp_path, resume=True, seed=3, overwrite=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, toy, settings, cpu):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to") as caught:
        train(toy(), settings(), cpu, tmp_path / "file" / "run", resume=False, seed=3)
    assert "another run folder" in caught.value.hint


def test_the_loss_scaler_is_part_of_the_state(tmp_path, toy, settings):
    """Pitfall 26: fp16 takes its scaler from the runtime's device, here a CPU."""
    half = Runtime(torch.device("cpu"), "fp16")
    train(toy(), settings(), half, tmp_path / "straight", resume=False, seed=3)
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=6), settings(), half, tmp_path / "broken", resume=False, seed=3)
    train(toy(), settings(), half, tmp_path / "broken", resume=True, seed=3)
    infos = [
        read_header(tmp_path / name / "dynamics.state.safetensors", "state").info for name in ("straight", "broken")
    ]
    assert infos[0] == infos[1]
    assert json.loads(infos[0]["scaler"])["_growth_tracker"] > 0


@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "fp32"), ("cuda", "bf16"), ("cuda", "fp16"), ("mps", "fp32"), ("mps", "fp16")]
)
def test_training_and_resuming_on_a_gpu(tmp_path, toy, settings, device, precision):
    """Pitfall 26: device and dtype come from one place, for weights, moments, step counts and averages alike."""
    if not (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        pytest.skip(f"needs {device}")
    runtime, changes = Runtime(torch.device(device), precision), {"ema_decay": 0.5, "accumulate": 2}
    with pytest.raises(TrainingInterrupted):
        train(toy(stop_at=6, device=device), settings(**changes), runtime, tmp_path, resume=False, seed=3)
    stage = toy(device=device)
    result = train(stage, settings(**changes), runtime, tmp_path, resume=True, seed=3)
    said = {
        "toy": True,
        "steps": 12,
        "finished": True,
        "untrained": [],
        "averaged": True,
        "heldout": {},
        "stopped": "steps",
    }
    assert {name: value for name, value in result.header.info.items() if name != "trend"} == said
    assert all(parameter.device.type == device for parameter in stage.module.parameters())


def test_a_state_of_batches_drawn_in_another_way_is_refused(tmp_path, toy, settings, cpu):
    """Earlier versions went on with a generator: their next batches cannot be drawn any more."""
    train(toy(), settings(), cpu, tmp_path, resume=False, seed=3)
    path = tmp_path / "dynamics.state.safetensors"
    header, tensors = read_weights(path, "state")
    info = {name: value for name, value in header.info.items() if name != "batches"}
    fields = {"config": header.config, "specs": header.specs, "parents": header.parents}
    write_weights(path, "state", tensors, info=info, **fields)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="earlier version, which drew its batches in another way") as caught:
        train(toy(), settings(steps=14), cpu, tmp_path, resume=True, seed=3)
    assert "--overwrite" in caught.value.hint
    assert path.read_bytes() == before
