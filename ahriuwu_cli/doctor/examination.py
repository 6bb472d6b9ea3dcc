"""`examine`: every check in the order of the road, gathered in one report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.status import Status

from ahriuwu_cli.core.artifact import MADE_BY, Header, Kind
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.baseline import examine_scratch
from ahriuwu_cli.doctor.counts import examine_counts, examine_split, examine_tokenizer_split
from ahriuwu_cli.doctor.encodings import examine_latents, examine_packed
from ahriuwu_cli.doctor.findings import Area, Finding, to_report
from ahriuwu_cli.doctor.imagined import examine_imagined
from ahriuwu_cli.doctor.machine import examine_machine
from ahriuwu_cli.doctor.metrics import examine_metrics
from ahriuwu_cli.doctor.recordings import examine_episodes
from ahriuwu_cli.doctor.results import examine_results
from ahriuwu_cli.doctor.road import (
    ROAD,
    WEIGHTS,
    examine_chain,
    examine_header,
    examine_specs,
    place,
)
from ahriuwu_cli.doctor.settings import examine_config, examine_drift
from ahriuwu_cli.doctor.weights import examine_frozen, examine_state, examine_weights
from ahriuwu_cli.pipeline.config import CONFIG_NAME, Run, RunConfig, preset_run
from ahriuwu_cli.tokenizer.frozen import is_frozen


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
        machine = Area("machine", "install with `pip install ahriuwu`")
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
    run = preset_run("tiny", folder)  # for its paths: they are the same in every run, whatever its config says
    areas = {
        kind: Area(kind, f"make it again with `{MADE_BY[kind]}{' --overwrite' * (kind in WEIGHTS)}`") for kind in ROAD
    }
    found = {kind: examine_header(area, run, kind) for kind, area in areas.items()}
    headers = {kind: header for kind, header in found.items() if header is not None}
    for kind, area in areas.items():
        status.update(kind)
        if kind in headers:
            _examine_artifact(area, run, headers[kind], headers, config)
        if kind in WEIGHTS:
            examine_state(area, RunFiles(place(run, kind).parent, kind), headers.get(kind))
        yield area
    scratch = examine_scratch(run, headers, config)
    if scratch is not None:
        yield scratch
    results = Area("evaluation", "evaluate again with `ahriuwu eval`")
    examine_results(results, run.evaluation, headers)
    yield results


def _examine_artifact(
    area: Area, run: Run, header: Header, headers: Mapping[Kind, Header], config: RunConfig | None
) -> None:
    """Everything about one artifact whose header can be read."""
    kind, path = header.kind, place(run, header.kind)
    with area.guard("content"):
        _examine_content(area, path, header, config)
    if kind in WEIGHTS and not is_frozen(header):
        with area.guard("metrics"):
            examine_metrics(area, RunFiles(path.parent, kind).metrics, header)
    if kind == "imagination":
        with area.guard("outside"):
            examine_imagined(area, RunFiles(path.parent, kind).metrics)
    if kind == "imagination" and "agent" in headers and header.parents.get("agent") == headers["agent"].fingerprint:
        finetuned = header.config["imagine"].get("transformer") == "finetuned"
        examine_frozen(area, path, place(run, "agent"), finetuned=finetuned)
    if kind in ("latents", "packed"):
        with area.guard("counts"):
            examine_counts(area, header, headers)
    if kind in ("episodes", "latents", "packed"):
        with area.guard("split"):
            examine_split(area, header, headers)
    if kind == "tokenizer":
        with area.guard("split"):
            examine_tokenizer_split(area, header, headers)
    if kind != "episodes":
        with area.guard("made from"):
            examine_chain(area, run, header, headers)
        with area.guard("specs"):
            examine_specs(area, header, headers)
    if config is not None:
        with area.guard("config"):
            examine_drift(area, header, config)


def _examine_content(area: Area, path: Path, header: Header, config: RunConfig | None) -> None:
    """The values an artifact holds."""
    match header.kind:
        case "episodes":
            examine_episodes(area, path, config)
        case "latents":
            examine_latents(area, path, header)
        case "packed":
            examine_packed(area, path, header)
        case _:
            examine_weights(area, path, header)
