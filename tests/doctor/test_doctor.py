"""The doctor on a run that is well, and on files that are cut short, changed, lost or of another kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahriuwu_cli.cli.main import app
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.doctor import examine
from ahriuwu_cli.doctor.road import ROAD, SCRATCH
from ahriuwu_cli.doctor.table import CHECKS as ROWS
from ahriuwu_cli.doctor.table import RESULTS
from ahriuwu_cli.pipeline.config import Run, preset_run
from ahriuwu_cli.pipeline.template import render_config


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


def test_a_healthy_run_has_no_problem(run: Run, doctor: Any) -> None:
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


def test_an_empty_folder_has_nothing_yet(tmp_path: Path, doctor: Any) -> None:
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
    with pytest.raises(InputError, match="expected the folder of a run") as caught:
        examine(tmp_path / name)
    assert caught.value.exit_code == 2


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
def test_a_file_cut_short(run: Run, name: str, doctor: Any) -> None:
    pattern, check = FILES[name]
    [path] = run.folder.glob(pattern)
    cut_in_half(path)
    [problem] = doctor(run).problems
    assert (problem.area, problem.check) == (pattern.split("/")[0], check)
    if path.suffix == ".safetensors":
        assert f"{path} cannot be read: " in problem.found


def test_a_flipped_byte_in_weights(run: Run, doctor: Any) -> None:
    said = read_header(run.agent, "agent").fingerprint
    flip_last_byte(run.agent)
    answer = doctor(run)
    [problem] = answer.problems
    assert problem[:2] == ("agent", "fingerprint")
    assert problem.found.startswith(f"{run.agent} says fingerprint {said} but its content has ")
    assert problem.hint == "the file was changed after it was written; restore it or make it again"
    assert answer.note("imagination", "frozen") == f"cannot be compared: {run.agent} is damaged"


def test_a_flipped_byte_in_data(run: Run, doctor: Any) -> None:
    """In the files that a manifest lists, one in each folder."""
    changed = "changed after it was written: its sha256 is not the manifest's"
    shard = sorted(run.packed.glob("shard_*"))[0]
    for path in (run.episodes / "000002.safetensors", run.latents / "000003.safetensors", shard):
        flip_last_byte(path)
    episode, latents, packed = doctor(run).problems
    assert episode[:2] == ("episodes", "files")
    assert episode.found.startswith(f"{run.episodes / '000002.safetensors'} was changed since: its sha256 is ")
    again = "make it again with `ahriuwu latents {}`".format
    assert latents == ("latents", "files", f"000003.safetensors: {changed}", again("build"))
    assert packed == ("packed", "shards", f"{shard.name}: {changed}", again("pack"))


def test_missing_files(run: Run, doctor: Any) -> None:
    shard = sorted(run.packed.glob("shard_*"))[1]
    for path in (run.episodes / "000000.safetensors", run.latents / "000004.safetensors", shard):
        path.unlink()
    episode, latents, packed = doctor(run).problems
    assert episode[:2] == ("episodes", "files")
    assert "000000.safetensors is missing; the manifest lists it" in episode.found
    assert latents[:3] == ("latents", "files", "000004.safetensors: missing")
    assert packed[:3] == ("packed", "shards", f"{shard.name}: missing")


def test_another_kind_at_a_path(run: Run, doctor: Any) -> None:
    shutil.copy(run.tokenizer, run.dynamics)
    [problem] = doctor(run).problems
    assert problem == (
        "dynamics",
        "header",
        f"{run.dynamics} is a tokenizer artifact; expected a dynamics artifact",
        "give the output of `ahriuwu dynamics train`",
    )


@pytest.mark.parametrize("kind", ["episodes", "tokenizer", "latents", "packed", "dynamics", "agent", "imagination"])
def test_a_header_with_nothing_in_it_is_no_traceback(run: Run, kind: str, doctor: Any, sign: Any) -> None:
    def empty(fields: dict[str, Any]) -> None:
        for part in fields.values():
            part.clear()

    sign(getattr(run, kind), header=empty)
    answer = doctor(run)
    own = {problem.check for problem in answer.problems if problem.area == kind}
    assert own
    assert kind == "episodes" or "made from" in own
    assert answer.areas == AREAS


def test_every_kind_of_artifact_has_its_rows() -> None:
    """A new kind without rows would pass for well."""
    rows = {name: {check.name for check in ROWS if name in check.names} for name in (*ROAD, SCRATCH)}
    for name, checks in rows.items():
        assert {"content", "config"} <= checks, name
        assert name == "episodes" or {"made from", "specs"} <= checks, name
    known = {*ROAD, SCRATCH, RESULTS}
    assert not {name for check in ROWS for name in check.names} - known


def store_of_an_importer(fields: dict[str, Any]) -> None:
    fields["config"].clear()


def test_a_store_that_an_importer_made(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """It has no section [data], for nothing was recorded by one."""
    keep_until(run, "episodes")
    sign(run.episodes, header=store_of_an_importer)
    answer = doctor(run)
    assert answer.problems == []
    assert answer.note("episodes", "config").startswith("written by something else than this program")


PLACES = {
    "run.toml": "config",
    "episodes/manifest.json": "episodes",
    "episodes/000001.safetensors": "episodes",
    "tokenizer/tokenizer.safetensors": "tokenizer",
    "tokenizer/tokenizer.state.safetensors": "tokenizer",
    "tokenizer/metrics.jsonl": "tokenizer",
    "latents/000001.safetensors": "latents",
    "packed/manifest.json": "packed",
    "dynamics/dynamics.safetensors": "dynamics",
    "evaluation/rollout/rollout.json": "evaluation",
    "evaluation/agent/agents.json": "evaluation",
}


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_something_else_in_place_of_a_file(run: Run, doctor: Any, make: Any) -> None:
    """A pipe is not waited for; everything else is checked all the same."""
    for name in PLACES:
        path = run.folder / name
        path.unlink()
        make(path)
    answer = doctor(run)
    assert answer.code == 3
    told = {problem.area for problem in answer.problems} | {note.area for note in answer.notes}
    assert set(PLACES.values()) <= told
