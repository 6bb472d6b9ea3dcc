"""`examine`: every check in the order of the road, gathered in one report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.status import Status

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.doctor.checks import Subject, run_checks
from ahriuwu_cli.doctor.findings import Area, Finding, to_report
from ahriuwu_cli.doctor.machine import examine_machine
from ahriuwu_cli.doctor.road import ROAD, SCRATCH, WEIGHTS, examine_header, is_begun, made_by, place
from ahriuwu_cli.doctor.settings import examine_config
from ahriuwu_cli.doctor.table import CHECKS, RESULTS
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run, preset_run


def examine(run_dir: Path | None) -> Report:
    """Check this machine and, when a folder is given, the config and every artifact of that run.

    Nothing is changed on disk. A fault never stops the checks after it.

    Args:
        run_dir: folder of a run, with its run.toml; None for the machine alone.

    Returns:
        Rows (area, check, status, found). `data["problems"]` lists what is wrong, each with area,
        check, found and hint; empty when all is well.

    Raises:
        InputError: `run_dir` is no folder.
    """
    if run_dir is not None and not run_dir.is_dir():
        found = "is a file" if run_dir.exists() else "does not exist"
        raise InputError(
            f"{run_dir} {found}; expected the folder of a run",
            hint=f"give the folder that has {CONFIG_NAME} in it, or none to check the machine alone",
        )
    findings: list[Finding] = []
    with Console(stderr=True).status("machine") as status:
        machine = Area("machine", "install ahriuwu anew, as its README says")
        examine_machine(machine, run_dir or Path())
        findings += machine.findings
        if run_dir is not None:
            for area in _examine_run(run_dir, status):
                findings += area.findings
    title = "doctor: this machine" if run_dir is None else f"doctor: this machine and {run_dir}"
    return to_report(title, findings, {"run_dir": None if run_dir is None else str(run_dir)})


def _examine_run(folder: Path, status: Status) -> Iterator[Area]:
    """The areas of one run, in the order of the road."""
    settings = Area("config", "mend run.toml")
    config = examine_config(settings, folder)
    yield settings
    # Paths are the same in every run, whatever its config says.
    run = preset_run("tiny", folder) if config is None else Run(config, folder)
    names = [*ROAD, *([SCRATCH] if run.scratch.exists() or is_begun(run, SCRATCH) else [])]  # no stage of the road
    areas = {name: Area(name, _remedy(name)) for name in names}
    found = {name: examine_header(area, run, name) for name, area in areas.items()}
    headers = {header.kind: header for name, header in found.items() if header is not None and name != SCRATCH}
    for name, area in areas.items():
        status.update(name)
        run_checks(area, Subject(run, name, place(run, name), found[name], headers, config), CHECKS)
        yield area
    results = Area(
        RESULTS,
        "evaluate again with `ahriuwu eval rollout` and `ahriuwu eval agent` (without a game: `ahriuwu eval offline`)",
    )
    run_checks(results, Subject(run, RESULTS, run.evaluation, None, headers, config), CHECKS)
    yield results


def _remedy(name: str) -> str:
    flag = " --overwrite" if name == SCRATCH or name in WEIGHTS else ""
    return f"make it again with `{made_by(name)}{flag}`"
