"""The baseline from scratch, where there is one: an agent made from packed latents alone, beside the road."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ahriuwu_cli.agent.checkpoint import is_from_scratch
from ahriuwu_cli.core.artifact import MADE_BY, Header, Kind, read_header
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.doctor.metrics import examine_metrics
from ahriuwu_cli.doctor.road import PARENTS, examine_chain, examine_specs
from ahriuwu_cli.doctor.settings import examine_drift
from ahriuwu_cli.doctor.weights import examine_state, examine_weights
from ahriuwu_cli.pipeline.config import Run, RunConfig

COMMAND = f"{MADE_BY['agent']} --from-scratch"
PARENTS_OF_SCRATCH: tuple[Kind, ...] = (*PARENTS["packed"], "packed")


@dataclass(frozen=True)
class _ScratchRun(Run):
    """The run with the baseline in the agent's place."""

    @property
    def agent(self) -> Path:
        """The baseline's weights."""
        return self.scratch


def examine_scratch(run: Run, headers: Mapping[Kind, Header], config: RunConfig | None) -> Area | None:
    """Check the baseline of a run; None when it has none, for it is no stage of the road."""
    files = RunFiles(run.scratch.parent, "agent")
    if not files.weights.exists() and not files.state.exists():
        return None
    area = Area("scratch", f"make it again with `{COMMAND} --overwrite`")
    header = None
    if files.weights.exists():
        with area.guard("header"):
            header = read_header(files.weights, "agent")
            area.ok("header", f"fingerprint {header.fingerprint}, made {header.provenance.date}")
    else:
        area.note("header", f"begun, not finished; go on with `{COMMAND} --resume`")
    if header is not None:
        _examine(area, _ScratchRun(run.config, run.folder, run.store), header, headers, config)
    with area.guard("state"):
        examine_state(area, files, header)
    return area


def _examine(area: Area, run: Run, header: Header, headers: Mapping[Kind, Header], config: RunConfig | None) -> None:
    with area.guard("content"):
        examine_weights(area, run.agent, header)
    with area.guard("metrics"):
        examine_metrics(area, RunFiles(run.agent.parent, "agent").metrics, header)
    with area.guard("made from"):
        if is_from_scratch(header):
            examine_chain(area, run, header, headers, PARENTS_OF_SCRATCH)
        else:
            area.problem("made from", f"{run.agent} was finetuned on dynamics; expected the baseline without any")
    with area.guard("specs"):
        examine_specs(area, header, headers)
    if config is not None:
        with area.guard("config"):
            examine_drift(area, header, config)
