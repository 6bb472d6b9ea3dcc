"""Every bench from the command line: what it prints, in which units, and what it refuses. No time is judged here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.cli.main import run

NO_BOOTSTRAP = "dynamics.objective.bootstrap_fraction=0.0"

ITEM = {
    "name": str,
    "seconds": float,
    "seconds_quartiles": list,
    "frames": int,
    "frames_per_second": float,
    "flops": int | None,
    "flops_per_second": float | None,
    "share_of_peak": float | None,
    "peak_memory_bytes": int | None,
    "parameters": int | None,
    "usual_flops": int | None,
    "usual_share_of_peak": float | None,
}
MACHINE = {
    "device": str,
    "precision": str,
    "threads": int,
    "torch": str,
    "matmul_size": int,
    "matmul_flops_per_second": float,
    "matmul_flops_per_second_best": float,
    "read_bytes": int,
    "read_bytes_per_second": float,
    "read_bytes_per_second_best": float,
}
NAMES = {
    "tokenizer": [
        "patch 8, training step",
        "patch 8, 16 frames encoded as they come",
        "patch 8, 16 frames decoded as they come",
        "patch 4, training step",
        "patch 4, 16 frames encoded as they come",
        "patch 4, 16 frames decoded as they come",
    ],
    "dynamics": ["training step, no bootstrap", "training step, bootstrap on 25% of rows"],
    "sampler": ["frame: dream and decode", "dream alone, K = 2", "decode alone"],
    "latents": [
        "build: 2 episodes encoded and written",
        "pack: latents and blocks joined in a shard",
        "windows: 50 batches of 3 x 4 read",
        "packed: 2 windows of 4 x 2 x 3",
        "plain memory map: 2 windows of 4 x 2 x 3",
        "an NPY file each: 2 windows of 4 x 2 x 3",
    ],
    "data": [f"{how}, 8x8: 2 clips of {length}" for length in (1, 3) for how in ("raw", "video", "JPEG files")],
}
FRAMES = {
    "tokenizer": [6, 16, 16, 6, 16, 16],
    "dynamics": [12, 12],
    "sampler": [1, 1, 1],
    "latents": [18, 18, 600, 8, 8, 8],
}
FRAMES["data"] = [2, 2, 2, 6, 6, 6]


@pytest.mark.parametrize("what", NAMES)
def test_json_has_every_figure(bench, what) -> None:
    data = bench(what)
    assert (data["bench"], data["profiles"]) == (what, [])
    assert [item["name"] for item in data["items"]] == NAMES[what]
    assert [item["frames"] for item in data["items"]] == FRAMES[what]
    for item in data["items"]:
        for key, kind in ITEM.items():
            assert isinstance(item[key], kind), key
        low, high = item["seconds_quartiles"]
        assert 0 < low <= item["seconds"] <= high
        assert item["frames_per_second"] == pytest.approx(item["frames"] / item["seconds"])
        if item["flops"] is not None:
            assert item["flops_per_second"] == pytest.approx(item["flops"] / item["seconds"])
            peak = data["machine"]["matmul_flops_per_second"]
            assert item["share_of_peak"] == pytest.approx(item["flops_per_second"] / peak)
    assert data["machine"].keys() == MACHINE.keys()
    for key, kind in MACHINE.items():
        assert isinstance(data["machine"][key], kind), key
    assert data["machine"]["matmul_size"] == 8
    assert data["machine"]["read_bytes"] == 2**20
    assert data["machine"]["threads"] == data["work"]["run"]["threads"] == 1


def test_sampler_says_whether_cost_and_memory_stay(bench) -> None:
    first, dream, decode = bench("sampler", "--frames", "30")["items"]
    assert sum(first["blocks_per_pass"]) == 3
    assert first["frames_in_a_row"] == 30
    assert first["first_tenth_seconds"] > 0
    assert first["last_tenth_seconds"] > 0
    assert isinstance(first["memory_growth_bytes"], int | None)
    for item in (first, dream, decode):
        assert item["ratio_to_floor"] == pytest.approx(item["seconds"] / item["floor_seconds"])
    assert first["floor_seconds"] == pytest.approx(dream["floor_seconds"] + decode["floor_seconds"])
    assert first["flops"] == dream["flops"] + decode["flops"]


def test_sampler_sets_compiled_beside_eager(bench, backend) -> None:
    data = bench("sampler", "-s", "run.compile=true")
    eager, compiled = data["items"][3:]
    assert [eager["name"], compiled["name"]] == ["dream alone, eager", "dream alone, compiled"]
    assert backend
    assert 0 <= compiled["largest_difference"] < 1e-3 < compiled["largest_value"]
    assert compiled["speed_beside_eager"] == pytest.approx(eager["seconds"] / compiled["seconds"])
    saved, pays = eager["seconds"] - compiled["seconds"], compiled["break_even_frames"]
    assert pays is None if saved <= 0 else pays == pytest.approx(compiled["compile_seconds"] / saved)
    assert "compiled code is" in data["notes"][-1]


def test_sampler_says_why_it_cannot_compile(bench, monkeypatch) -> None:
    monkeypatch.setattr("ahriuwu_cli.core.training.compilation.BACKEND", "no-such-backend")
    data = bench("sampler", "-s", "run.compile=true")
    assert [item["name"] for item in data["items"]] == NAMES["sampler"]
    assert data["notes"][-1].startswith("going on without run.compile: ")


def test_flags_are_settings_and_profile_names_operators(bench) -> None:
    data = bench("dynamics", "--repeats", "3", "--warmup", "1", "--profile", "-s", NO_BOOTSTRAP)
    assert data["work"]["timing"]["repeats"] == 3
    assert data["work"]["timing"]["warmup"] == 1
    assert [item["name"] for item in data["items"]] == ["training step, no bootstrap"]
    [profile] = data["profiles"]
    assert profile["work"] == "training step, no bootstrap"
    shares = [operator["share"] for operator in profile["operators"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.001
    assert any(operator["name"].startswith("aten::") for operator in profile["operators"])
    assert all(operator["seconds"] > 0 and operator["calls"] > 0 for operator in profile["operators"])


def test_micro_batches_count(bench, minuscule: Callable[..., BenchConfig]) -> None:
    [item] = bench("dynamics", "-s", "train={accumulate=3, ema_decay=0.9, recompute=true}", "-s", NO_BOOTSTRAP)["items"]
    from ahriuwu_cli.bench.dynamics import build_dynamics
    from ahriuwu_cli.bench.flops import dynamics_training

    assert item["frames"] == 3 * 12
    assert item["flops"] == 3 * dynamics_training(build_dynamics(minuscule()), 3, 4, 0.0)
    assert item["usual_flops"] > item["flops"]


def test_bf16_is_measured_in_bf16(bench) -> None:
    import torch

    from ahriuwu_cli.core.device import has_native_bf16

    if not has_native_bf16(torch.device("cpu")):
        pytest.skip("no bf16 on this CPU")
    data = bench("sampler", "-s", "run.precision=bf16")
    assert data["machine"]["precision"] == "bf16"


def test_other_tokenizers_are_measured_too(bench) -> None:
    cnn = 'tokenizer.model={type="cnn", patch=8, dim_token=2, base_channels=4, blocks_per_stage=0}'
    data = bench("tokenizer", "-s", cnn, "-s", "tokenizer.also_patch=0")
    assert [item["name"] for item in data["items"]] == NAMES["tokenizer"][:3]
    assert all(item["flops"] > 0 for item in data["items"])
    assert data["work"]["tokenizer"]["model"]["type"] == "cnn"


def test_a_table_for_people(capfd) -> None:
    assert run(["bench", "dynamics", "-s", NO_BOOTSTRAP, "-s", "dynamics.length=2", "--repeats", "1", *TINY]) == 0
    out = capfd.readouterr().out
    assert out.startswith("bench dynamics: other work")
    for text in ("training step, no bootstrap", "of peak", "machine: cpu, fp32, 1 threads", "GFLOP/s", "GB/s"):
        assert text in out


TINY = ("-s", "run.threads=1", "-s", "timing={warmup=0, matmul_size=8, bandwidth_mib=1}", "-s", "dynamics.batch_size=1")
TINY += ("-s", "dynamics.model={dim=16, num_layers=2, num_heads=2, num_kv_heads=2, time_every=2, feed_width=8}")


# ---------------------------------------------------------------- what is refused


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = run(["bench", *arguments])
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    assert "hint: " in err
    return err


def test_unknown_key(capfd) -> None:
    err = refused(capfd, "dynamics", "-s", "dynamics.model.dimm=32")
    assert "unknown key dynamics.model.dimm; nearest valid key: dynamics.model.dim" in err


def test_impossible_sizes(capfd) -> None:
    assert "must be an even multiple of num_heads" in refused(capfd, "dynamics", "-s", "dynamics.model.dim=30")
    assert "sampler.steps 3 must be a power of two" in refused(capfd, "sampler", "-s", "sampler.steps=3")
    assert "dynamics.batch_size is 0" in refused(capfd, "dynamics", "-s", "dynamics.batch_size=0")
    forcing = refused(capfd, "dynamics", "-s", "dynamics.model.shortcut=false")
    assert "bootstrap_fraction must be 0" in forcing


def test_latents_that_the_tokenizer_does_not_give(capfd) -> None:
    err = refused(capfd, "sampler", "-s", "latent.num_tokens=8")
    assert "gives latents of 16 x 32 a frame; latent says 8 x 32" in err


def test_a_step_that_does_not_fit_into_memory(capfd, monkeypatch) -> None:
    monkeypatch.setattr("ahriuwu_cli.core.memory.available_memory", lambda device: 1000)
    assert "training step, no bootstrap needs about" in refused(capfd, "dynamics", *TINY)


def test_no_such_file(capfd, tmp_path: Path) -> None:
    assert "does not exist" in refused(capfd, "latents", "--config", str(tmp_path / "work.toml"))


def test_work_from_a_file(capfd, tmp_path: Path) -> None:
    path = tmp_path / "work.toml"
    path.write_text('[run]\nname = "mine"\n[dynamics]\nlength = 3\n[timing]\nrepeats = 1\n')
    assert run(["bench", "dynamics", "-c", str(path), "-s", NO_BOOTSTRAP, *TINY, "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data["work"]["run"]["name"] == "mine"
    assert data["items"][0]["frames"] == 3
