"""The road of artifacts: which there are, what each says of itself, and whether each fits those it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from ahriuwu_cli.core.artifact import MADE_BY, Header, Kind, canonical, read_header
from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.lineage import has_grown, require_parent
from ahriuwu_cli.core.specs import ActionSpec, LatentSpec
from ahriuwu_cli.core.training.files import RunFiles
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.pipeline.config import Run

ROAD = tuple(cast("Kind", kind) for kind in get_args(Kind) if kind != "state")
"""Kinds of artifact in the order they are made; each is made from some of those before it."""

WEIGHTS = ("tokenizer", "dynamics", "agent", "imagination")
PARENTS: dict[str, tuple[Kind, ...]] = {
    "episodes": (),
    "tokenizer": ("episodes",),
    "latents": ("episodes", "tokenizer"),
    "packed": ("episodes", "tokenizer", "latents"),
    "dynamics": ("episodes", "tokenizer", "latents", "packed"),
    "agent": ("episodes", "tokenizer", "latents", "packed", "dynamics"),
    "imagination": ("episodes", "tokenizer", "latents", "packed", "dynamics", "agent"),
}
SPEC_SOURCES: dict[str, Kind] = {"frame": "episodes", "action": "episodes", "latent": "latents"}
"""Where each spec is settled; all later artifacts must repeat it."""


def place(run: Run, kind: Kind) -> Path:
    """Where the run keeps its artifact of a kind."""
    return cast("Path", getattr(run, kind))


def examine_header(area: Area, run: Run, kind: Kind) -> Header | None:
    """Read what an artifact says of itself; None when it is absent or unreadable."""
    path = place(run, kind)
    if not path.exists():
        area.note("header", _absence(run, kind))
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


def _absence(run: Run, kind: Kind) -> str:
    """Why an artifact is not there: lost, begun, or not begun."""
    children = [child for child in ROAD if kind in PARENTS[child] and place(run, child).exists()]
    if children:
        return f"{place(run, kind)} is not here, though {', '.join(children)} {_were(children)} made from it"
    if kind in WEIGHTS and RunFiles(place(run, kind).parent, kind).state.exists():
        return f"begun, not finished; go on with `{MADE_BY[kind]} --resume`"
    return f"not made yet; `{MADE_BY[kind]}` makes it"


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


# ---------------------------------------------------------------- the chain


def examine_chain(
    area: Area, run: Run, header: Header, headers: Mapping[Kind, Header], parents: Sequence[Kind] | None = None
) -> None:
    """Compare the fingerprints an artifact was made from with those of the artifacts that are here, or were before.

    Args:
        area: where findings go.
        run: where the artifacts lie.
        header: of the artifact.
        headers: of those that are here.
        parents: the kinds it must be made from; those of its kind unless given.
    """
    path, faults, hints, seen, absent, grown = place(run, header.kind), [], [], [], [], []
    for parent in PARENTS[header.kind] if parents is None else parents:
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


def examine_specs(area: Area, header: Header, headers: Mapping[Kind, Header]) -> None:
    """Pitfalls 11, 12: frame, action and latent specs are those of the data, layouts included."""
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
