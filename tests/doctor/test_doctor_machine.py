"""What the doctor says of run.toml and of the machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ahriuwu_cli.cli.main import run as run_command
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training.config import RunSection
from ahriuwu_cli.doctor import examine, machine
from ahriuwu_cli.doctor.findings import Area, first_few
from ahriuwu_cli.doctor.settings import differing
from ahriuwu_cli.pipeline.config import Run

# ---------------------------------------------------------------- config and machine


def test_a_typo_in_run_toml_stops_nothing_else(run: Run, doctor: Any) -> None:
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace("learning_rate", "lerning_rate", 1))
    answer = doctor(run)
    [problem] = answer.problems
    assert problem[:2] == ("config", "run.toml")
    assert "unknown key tokenizer.train.lerning_rate" in problem.found
    assert ("imagination", "loads") in answer.fine


def test_changed_settings_are_noted(run: Run, doctor: Any, with_settings: Any) -> None:
    with_settings(run, "dynamics.train.steps=9", "imagine.gamma=0.9", "data.episodes=8")
    answer = doctor(run)
    assert answer.problems == []
    made = "made with other values than run.toml has now"
    assert answer.note("dynamics", "config") == f"{made}: dynamics.train.steps"
    assert answer.note("imagination", "config") == f"{made}: imagine.gamma"
    assert answer.note("episodes", "number") == (
        "2 episodes fewer than data.episodes; `ahriuwu data record --append --episodes 2` adds them"
    )
    assert ("agent", "config") in answer.fine


def follow(advice: str) -> None:
    """Run the one command that a text names in backticks, in the working folder."""
    [command] = re.findall("`ahriuwu ([^`]*)`", advice)
    assert run_command([*command.split()]) == 0


def test_advice_can_be_followed(
    run: Run, doctor: Any, with_settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Episodes that are fewer than asked for, one alone with half of them random; a link that was lost."""
    monkeypatch.chdir(run.folder)
    run = with_settings(run, "data.episodes=7", "data.random_episodes=0.5")
    follow(doctor(run).note("episodes", "number"))
    assert len(read_header(run.episodes, "episodes").info["episodes"]) == 7
    shutil.rmtree(run.latents)
    [problem] = doctor(run).problems
    follow(problem.hint)
    assert ("latents", "encoding") in doctor(run).fine
    assert "hint" not in capsys.readouterr().err


def test_differing_keys() -> None:
    then = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": 0}
    assert list(differing(then, {"a": 1, "b": {"c": [1, 3], "d": None}, "f": 0})) == ["b.c", "e", "f"]
    assert list(differing(then, then)) == []


def test_a_game_that_is_not_installed_is_a_note(run: Run, doctor: Any) -> None:
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace("ahriuwu/Bricks-v0", "ahriuwu/Nothing-v0"))
    answer = doctor(run)
    assert answer.problems == []
    assert "ahriuwu/Nothing-v0" in answer.note("config", "environment")


def test_a_device_that_is_not_here(run: Run, doctor: Any) -> None:
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


def test_a_gpu_that_computes_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(section: RunSection) -> Runtime:
        if broken:
            raise DeviceError("cuda:0 does not compute: no kernel image", hint="install another torch build")
        return Runtime(torch.device("cuda", 0), "fp32")

    broken = False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(machine, "has_native_bf16", lambda _: True)
    monkeypatch.setattr(machine, "available_memory", lambda _: 3 * 2**30)
    monkeypatch.setattr(machine, "resolve_runtime", resolve)

    def cuda() -> tuple[str, str, str]:
        area = Area("machine", "remedy")
        with area.guard("cuda"):
            machine._device(area, "cuda")
        [finding] = area.findings
        return finding.status, finding.found, finding.hint

    assert cuda() == ("ok", "Some GPU (and 1 more), 3.0 GiB free, native bf16; precisions fp32, bf16, fp16", "")
    broken = True
    assert cuda() == ("PROBLEM", "cuda:0 does not compute: no kernel image", "install another torch build")


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
