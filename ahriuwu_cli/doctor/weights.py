"""The content of trained artifacts: tensors, strict loading, what learned and what stayed frozen, saved states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import is_from_scratch, load_agent
from ahriuwu_cli.agent.scratch import learns_from_scratch
from ahriuwu_cli.core.artifact import (
    MADE_BY,
    MEASURED,
    Header,
    check_fingerprint,
    hash_tensors,
    read_header,
    read_weights,
)
from ahriuwu_cli.core.errors import AhriuwuError
from ahriuwu_cli.core.tensorfile import read_tensors
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.findings import Area, counted, first_few
from ahriuwu_cli.doctor.metrics import train_config
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.imagination.model import load_imagination
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.frozen import is_frozen

CPU = torch.device("cpu")

LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "tokenizer": lambda path: load_tokenizer(path, CPU)[0],
    "dynamics": lambda path: load_world(path, CPU).model,
    "agent": lambda path: load_agent(path, CPU).model,
    "imagination": lambda path: load_imagination(path, CPU)[0],
}
"""The readers that the stages themselves use."""


def examine_weights(area: Area, subject: Subject) -> None:
    """Check the tensors of an artifact, load it strictly, and look at what its training says of itself."""
    path, header = subject.path, subject.header
    tensors, genuine = _examine_tensors(area, path, header, "")
    if tensors is None:
        return
    frozen = is_frozen(header)
    if not frozen:
        _judge_constant(area, header, tensors)
    if genuine:
        with area.guard("loads"):
            loaded = LOADERS[header.kind](path).state_dict()
            # Pitfall 1: what was loaded is what was saved, tensor for tensor.
            changed = sorted(name for name in tensors.keys() | loaded.keys() if not _same(tensors, loaded, name))
            numbers = sum(tensor.numel() for tensor in tensors.values())
            area.judge(
                "loads",
                [f"loaded otherwise than saved: {first_few(changed)}"] if changed else [],
                f"strictly: {counted(len(tensors), 'tensor')}, {numbers:,} numbers, bit for bit",
            )
    if frozen:
        files = ", ".join(f"{name} {sha256[:16]}..." for name, sha256 in header.info["files"].items())
        area.ok("training", f"frozen: nothing is trained, its weights are {files}")
    else:
        _judge_training(area, header)


def _same(left: Mapping[str, Tensor], right: Mapping[str, Tensor], name: str) -> bool:
    """True when both have a tensor of that name with the same bits (NaN included)."""
    return name in left and name in right and hash_tensors({"": left[name]}) == hash_tensors({"": right[name]})


def _examine_tensors(area: Area, path: Path, header: Header, prefix: str) -> tuple[dict[str, Tensor] | None, bool]:
    """Read all tensors, recompute the fingerprint and look for values that are not finite.

    Returns:
        The tensors (None when unreadable), and whether the stages would load them: the fingerprint fits, all finite.
    """
    tensors, genuine = None, False
    with area.guard(f"{prefix}fingerprint"):
        tensors = read_tensors(path)
        check_fingerprint(path, header, hash_tensors(tensors))
        genuine = True
        area.ok(f"{prefix}fingerprint", f"{header.fingerprint}, as recomputed from {counted(len(tensors), 'tensor')}")
    if tensors is not None:
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(MEASURED)}
        wrong = sorted(name for name, tensor in weights.items() if not torch.isfinite(tensor).all())
        area.judge(
            f"{prefix}values",
            [f"not finite: {first_few(wrong)}"] if wrong else [],
            "all finite",
        )
        genuine = genuine and not wrong
    return tensors, genuine


def _judge_constant(area: Area, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Tensors that hold one number never learned, or were wiped out; biases begin at zero and leave it at once."""
    still = set(header.info.get("untrained", ()))  # `learned` says so
    if is_from_scratch(header):
        still |= {name for name in tensors if not learns_from_scratch(name)}
    wide = {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 1 and tensor.numel() > 1}
    constant = sorted(
        name
        for name, tensor in wide.items()
        if tensor.min() == tensor.max() and (tensor.ndim >= 2 or name not in still)
    )
    text = f"tensors of one number only: {first_few(constant)}"
    if constant and not header.info.get("finished", True):
        area.note("spread", f"{text} (training has not finished)")
    else:
        area.judge("spread", [text] if constant else [], f"no tensor of {len(wide)} holds one number only")


def _judge_training(area: Area, header: Header) -> None:
    """Pitfalls 2, 3: every tensor that was to learn has learned; and whether training came to its end."""
    if not {"finished", "untrained", "steps"} <= header.info.keys():
        area.note("training", "not trained by this program: it does not say which tensors learned")
        return
    finished, untrained, steps = header.info["finished"], header.info["untrained"], header.info["steps"]
    text = f"never received a gradient: {first_few(untrained)}"
    if untrained and not finished:
        area.note("learned", f"{text} (training has not finished)")
    else:
        hint = "see what reads them: raise train.steps, or let the objective reach them; then train anew"
        area.judge("learned", [text] if untrained else [], "every tensor that was to learn received a gradient", hint)
    if finished:
        early = ", ended by run.minutes" if header.info.get("stopped") == "minutes" else ""
        area.ok("training", f"finished, {counted(steps, 'step')}{early}")
    else:
        wanted = train_config(header).get("steps")
        command = f"{MADE_BY[header.kind]}{' --from-scratch' * is_from_scratch(header)}"
        area.note("training", f"stopped at step {steps} of {wanted}; go on with `{command} --resume`")


# ---------------------------------------------------------------- between agent and imagination


def examine_frozen(area: Area, subject: Subject) -> None:
    """Pitfall 3: imagination moves the policy and nothing else of the agent, and keeps the old policy as its prior.

    With a finetuned transformer it moves all of the agent, and the prior too.
    """
    header, agent_path = subject.header, subject.run.agent
    if "agent" not in subject.headers or header.parents.get("agent") != subject.headers["agent"].fingerprint:
        return
    mine = read_tensors(subject.path)
    try:
        agent = read_weights(agent_path, "agent")[1]
    except AhriuwuError:
        area.note("frozen", f"cannot be compared: {agent_path} is damaged")
        return
    policy = {name for name in agent if name.startswith("policy.")}
    if header.config["imagine"].get("transformer") == "finetuned":
        pairs = {f"agent.{name}": name for name in agent} | {_prior(name): name for name in policy}
        still = [own for own, name in sorted(pairs.items()) if _equal(mine, own, agent[name])]
        faults = [f"trained, but still as in the agent: {first_few(still)}"] if still else []
        area.judge("frozen", faults, "nothing but the slow value: the transformer, all heads and prior have moved")
        return
    moved = [name for name in sorted(agent.keys() - policy) if not _equal(mine, f"agent.{name}", agent[name])]
    moved += [_prior(name) for name in sorted(policy) if not _equal(mine, _prior(name), agent[name])]
    stuck = [f"agent.{name}" for name in sorted(policy) if _equal(mine, f"agent.{name}", agent[name])]
    faults = [f"frozen, but not as in the agent: {first_few(moved)}"] if moved else []
    faults += [f"trained, but still as in the agent: {first_few(stuck)}"] if stuck else []
    area.judge("frozen", faults, "world, reward and prior are the agent's, the policy has moved")


def _prior(name: str) -> str:
    """The prior's name of a tensor of the policy."""
    return name.replace("policy.", "prior.", 1)


def _equal(tensors: Mapping[str, Tensor], name: str, wanted: Tensor) -> bool:
    return name in tensors and torch.equal(tensors[name], wanted)


# ---------------------------------------------------------------- saved states


def examine_state(area: Area, subject: Subject) -> None:
    """Check the saved state beside the weights: its own content, and that both are of one training."""
    files, header = subject.files, subject.found
    if not files.state.exists():
        if header is not None and not is_frozen(header):
            area.note("state", f"no {files.state.name}: this training cannot be resumed")
        return
    state = read_header(files.state, "state")
    faults = []
    if state.info["of"] != files.kind:
        faults.append(f"it belongs to {state.info['of']} training")
    elif header is not None:
        faults += [
            f"its {name} are not those of the weights"
            for name in ("parents", "specs")
            if getattr(state, name) != getattr(header, name)
        ]
    area.judge("state", faults, f"step {state.info['step']}, seed {state.info['seed']}", "start anew with --overwrite")
    _examine_tensors(area, files.state, state, "state ")
