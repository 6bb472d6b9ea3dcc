"""The road of artifacts: which there are, what each says of itself, and whether each fits those it was made from.

Beside the road lies the baseline from scratch, an agent made from packed latents alone. It has rows of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from ahriuwu_cli.agent.checkpoint import is_from_scratch
from ahriuwu_cli.core.artifact import IMPORTED, MADE_BY, Header, Kind, canonical, read_header
from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.lineage import has_grown, require_parent
from ahriuwu_cli.core.specs import ActionSpec, LatentSpec
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.pipeline.config import Run

ROAD = tuple(cast("Kind", kind) for kind in get_args(Kind) if kind != "state")
"""Kinds of artifact in the order they are made; each is made from some of those before it."""

SCRATCH = "scratch"
"""Name of the area of the baseline."""
WEIGHTS = ("tokenizer", "dynamics", "agent", "imagination")
PARENTS: dict[str, tuple[Kind, ...]] = {
    "episodes": (),
    "tokenizer": ("episodes",),
    "latents": ("episodes", "tokenizer"),
    "packed": ("episodes", "tokenizer", "latents"),
    "dynamics": ("episodes", "tokenizer", "latents", "packed"),
    "agent": ("episodes", "tokenizer", "latents", "packed", "dynamics"),
    "imagination": ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent"),
    SCRATCH: ("episodes", "tokenizer", "latents", "packed"),
}
SPEC_SOURCES: dict[str, Kind] = {"frame": "episodes", "action": "episodes", "latent": "latents"}
"""Where each spec is settled; all later artifacts must repeat it."""


def place(run: Run, name: str) -> Path:
    """Where the run keeps its artifact of a kind, or the baseline."""
    return cast("Path", getattr(run, name))


def made_by(name: str) -> str:
    """The command that makes what an area is about."""
    return f"{MADE_BY['agent']} --from-scratch" if name == SCRATCH else MADE_BY[name]


def is_begun(run: Run, name: str) -> bool:
    """True when a training of it was begun: there is a state beside the place of its weights."""
    kind: Kind = "agent" if name == SCRATCH else cast("Kind", name)
    return (name == SCRATCH or name in WEIGHTS) and RunFiles(place(run, name).parent, kind).state.exists()


def examine_header(area: Area, run: Run, name: str) -> Header | None:
    """Read what an artifact says of itself; None when it is absent or unreadable."""
    path, kind = place(run, name), "agent" if name == SCRATCH else cast("Kind", name)
    if not path.exists():
        _absence(area, run, name)
        return None
    with area.guard("header"):
        header = read_header(path, kind)
        made = header.provenance
        area.ok(
            "header",
            f"format version {header.format_version}, fingerprint {header.fingerprint}, "
            f"made {made.date} by ahriuwu {made.version}, torch {made.torch}",
        )
        return header
    return None


def _absence(area: Area, run: Run, name: str) -> None:
    """Say why an artifact is not there: lost, begun, or not begun.

    Decision: a link that is missing in the middle is a problem, one that is missing at the beginning a note. A run
    whose first artifacts stayed on another machine is whole from its first link on, and every stage accepts that. But
    where something before the gap and something after it are here, nothing shows any more that they belong together
    (the names in a header are what it claims, not what was read), and no stage would go on from there.
    """
    path = place(run, name)
    after = [child for child in ROAD if name in PARENTS[child] and place(run, child).exists()]
    before = [parent for parent in PARENTS[name] if place(run, parent).exists()]
    if after:
        lost = f"{path} is not here, though {', '.join(after)} {_were(after)} made from it"
        if before:
            area.problem(
                "header",
                f"{lost}: its content cannot be checked, nor that {', '.join(after)} {_were(after)} made from the "
                f"{', '.join(before)} here",
                f"put it back, or make it and what follows again, beginning with `{made_by(name)}`",
            )
        else:
            area.note("header", f"{lost}: that cannot be checked here")
    elif is_begun(run, name):
        area.note("header", f"begun, not finished; go on with `{made_by(name)} --resume`")
    else:
        imported = name == "episodes" and bool(run.config.data.source.path)
        area.note("header", f"not made yet; `{IMPORTED if imported else made_by(name)}` makes it")


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


# ---------------------------------------------------------------- the chain


def examine_chain(area: Area, subject: Subject) -> None:
    """Compare the fingerprints an artifact was made from with those of the artifacts that are here, or were before."""
    run, path, header, headers = subject.run, subject.path, subject.header, subject.headers
    if subject.name == SCRATCH and not is_from_scratch(header):
        area.problem("made from", f"{path} was finetuned on dynamics; expected the baseline without any")
        return
    faults, hints, seen, absent, grown = [], [], [], [], []
    for parent in PARENTS[subject.name]:
        named = header.parents.get(parent)
        if named is None:
            faults.append(f"{path} does not name the {parent} it was made from")
        elif parent not in headers:
            absent.append(f"{parent} {named}")
        else:
            try:
                require_parent(path, header, place(run, parent), headers[parent])
                if has_grown(header, headers[parent]):
                    grown.append(f"{parent} {named}, here as it has grown to {headers[parent].fingerprint}")
                seen.append(f"{parent} {named}")
            except AhriuwuError as error:
                faults.append(error.message)
                hints.append(error.hint)
    if faults:
        area.problem("made from", "; ".join(faults), hints[0] if hints else "")
    elif absent:
        area.note("made from", f"cannot be compared, not readable here: {', '.join(absent)}")
    elif grown:
        area.note("made from", f"made from an earlier part of it: {'; '.join(grown)}")
    else:
        area.ok("made from", ", ".join(seen))


def examine_specs(area: Area, subject: Subject) -> None:
    """Pitfalls 11, 12: frame, action and latent specs are those of the data, layouts included."""
    header, headers = subject.header, subject.headers
    faults, same = [], []
    for name, source in SPEC_SOURCES.items():
        if name not in header.specs or source not in headers or source == header.kind:
            continue
        mine, theirs = header.specs[name], headers[source].specs[name]
        if name == "action":  # of what leads to one latent
            stride = LatentSpec.model_validate(header.specs["latent"]).stride
            theirs = ActionSpec.model_validate(theirs).repeated(stride).model_dump()
        if name == "latent" and header.kind == "tokenizer":  # statistics are measured later
            agree = LatentSpec.model_validate(mine).same_layout(LatentSpec.model_validate(theirs))
        else:
            agree = canonical(mine) == canonical(theirs)
        if agree:
            same.append(name)
        else:
            faults.append(f"the {name} spec is not that of the {source}: {canonical(mine)} against {canonical(theirs)}")
    if faults or same:
        area.judge("specs", faults, f"{', '.join(same)} as in the data")
