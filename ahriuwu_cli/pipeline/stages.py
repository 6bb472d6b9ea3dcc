"""One function per command: resolve the device, check what can be checked, run the stage, report."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ahriuwu_cli.agent import train as agent_training
from ahriuwu_cli.agent.player import AgentPolicy, load_player
from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.device import Runtime, apply_threads, resolve_runtime
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.loop import TrainResult
from ahriuwu_cli.dynamics import train as dynamics_training
from ahriuwu_cli.episodes import record as recording
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.policies import Policy, RandomPolicy
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.agents import evaluate_agents
from ahriuwu_cli.evaluation.rollout import evaluate_rollout as judge_dream
from ahriuwu_cli.imagination import train as imagination_training
from ahriuwu_cli.latents import build, pack
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.tokenizer import train as tokenizer_training

AGENTS = ("random", "dataset", "bc", "imagination")
"""Names that `eval agent --agents` knows, baselines first."""

SHOWN_METRICS = {
    "tokenizer": ("psnr",),
    "dynamics": ("flow", "bootstrap"),
    "agent": ("policy_loss", "policy_accuracy", "repeat_last_accuracy", "reward_where_some", "reward_where_none",
              "continue_where_ended", "continue_where_not"),
    "imagination": ("imagined_return", "positive_share", "kl_to_prior", "entropy", "value_error"),
}  # fmt: skip


def _runtime(run: Run) -> Runtime:
    """Device, precision and threads of a run, before anything else is touched."""
    apply_threads(run.config.run)
    return resolve_runtime(run.config.run)


# ---------------------------------------------------------------- episodes


def record(run: Run, *, append: bool) -> Report:
    """Record episodes into the run's store."""
    data = run.config.data
    policy: Policy | None = None
    if Path(data.policy).suffix == ".safetensors":
        policy = _checkpoint_player(run, Path(data.policy), _runtime(run), Path(data.policy).stem)
    with Progress(
        TextColumn("record"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        bar = progress.add_task("record", total=data.episodes)
        return recording.record(
            run.episodes,
            data,
            run.config.run.seed,
            policy=policy,
            append=append,
            progress=lambda done, _: progress.update(bar, completed=done),
        )


def split(run: Run) -> Report:
    """Divide the run's episodes anew."""
    return recording.split(run.episodes, run.config.data.heldout_fraction, run.config.run.seed)


# ---------------------------------------------------------------- training


def train_tokenizer(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the tokenizer on the run's episodes."""
    result = tokenizer_training.train_tokenizer(
        run.config.tokenizer,
        run.episodes,
        run.tokenizer.parent,
        _runtime(run),
        seed=run.config.run.seed,
        resume=resume,
        overwrite=overwrite,
    )
    return _trained(run.tokenizer, result)


def build_latents(run: Run) -> Report:
    """Encode the run's episodes."""
    return build.build_latents(run.episodes, run.tokenizer, run.latents, run.config.latents, _runtime(run))


def pack_latents(run: Run) -> Report:
    """Pack the run's latents."""
    return pack.pack_latents(run.episodes, run.latents, run.packed, run.config.latents)


def train_dynamics(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the dynamics on the run's packed latents."""
    result = dynamics_training.train_dynamics(
        run.config.dynamics,
        run.packed,
        run.dynamics.parent,
        _runtime(run),
        seed=run.config.run.seed,
        resume=resume,
        overwrite=overwrite,
    )
    return _trained(run.dynamics, result)


def finetune_agent(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Finetune the agent on the run's dynamics."""
    result = agent_training.finetune_agent(
        run.config.agent,
        run.dynamics,
        run.packed,
        run.agent.parent,
        _runtime(run),
        seed=run.config.run.seed,
        resume=resume,
        overwrite=overwrite,
    )
    return _trained(run.agent, result)


def train_imagination(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the run's agent in its dream."""
    result = imagination_training.train_imagination(
        run.config.imagine,
        run.agent,
        run.packed,
        run.imagination.parent,
        _runtime(run),
        seed=run.config.run.seed,
        resume=resume,
        overwrite=overwrite,
    )
    return _trained(run.imagination, result)


def _trained(path: Path, result: TrainResult) -> Report:
    kind = result.header.kind
    shown = [(name, result.metrics[name]) for name in SHOWN_METRICS[kind] if name in result.metrics]
    rows = [
        ("steps", str(result.steps)),
        ("minutes", f"{result.seconds / 60:.1f}"),
        ("loss", f"{result.metrics.get('loss', float('nan')):.4g}"),
        *((name, f"{value:.4g}") for name, value in shown),
        ("fingerprint", result.header.fingerprint),
        ("file", str(path)),
    ]
    data = {
        "kind": kind,
        "steps": result.steps,
        "seconds": result.seconds,
        "metrics": result.metrics,
        "fingerprint": result.header.fingerprint,
        "file": str(path),
    }
    return Report(kind, ("what", "value"), rows, data)


# ---------------------------------------------------------------- evaluation


def evaluate_rollout(run: Run, checkpoint: Path | None = None) -> Report:
    """Judge the run's dream, or that of another checkpoint."""
    source = checkpoint or run.dynamics
    kind = read_header(source, ("dynamics", "agent", "imagination")).kind
    return judge_dream(
        source,
        run.tokenizer,
        run.packed,
        run.episodes,
        run.evaluation / ("rollout" if kind == "dynamics" else f"rollout-{kind}"),
        run.config.eval,
        _runtime(run),
        seed=run.config.run.seed,
    )


def evaluate_agent(run: Run, agents: list[str] | None = None) -> Report:
    """Play the run's agents in the real environment; all there are unless `agents` names some."""
    runtime = _runtime(run)
    store = EpisodeStore.open(run.episodes)
    data = _played_environment(run, store)
    names = agents or [name for name in AGENTS if _exists(run, name)]
    unknown = [name for name in names if name not in AGENTS and not Path(name).suffix]
    if unknown:
        raise InputError(
            f"agent {unknown[0]!r} is not known; expected some of {', '.join(AGENTS)} or the path of a checkpoint",
            hint="correct --agents",
        )
    players = {Path(name).stem: _player(run, name, store, runtime) for name in names}
    return evaluate_agents(
        players,
        data,
        run.evaluation / "agent",
        run.config.eval,
        seed=run.config.run.seed,
        taken={record.seed for record in store.episodes},
        on_agent=lambda name: print(f"playing {run.config.eval.episodes} episodes: {name}", file=sys.stderr),
    )


def _played_environment(run: Run, store: EpisodeStore) -> DataSection:
    """The `[data]` section with environment and frame size as the episodes say."""
    frame = store.frame_spec
    return run.config.data.model_copy(
        update={
            "env": store.env,
            "env_options": store.env_options,
            "height": frame.height,
            "width": frame.width,
        }
    )


def _exists(run: Run, name: str) -> bool:
    """True when the run has what it takes to let this agent play."""
    files = {"bc": run.agent, "imagination": run.imagination}
    return name not in files or files[name].is_file()


def _player(run: Run, name: str, store: EpisodeStore, runtime: Runtime) -> Policy:
    """The policy behind a name of `--agents`."""
    if name == "random":
        return RandomPolicy(store.action_spec)
    if name == "dataset":
        recorded_with = run.config.data.policy
        if Path(recorded_with).suffix:
            return _checkpoint_player(run, Path(recorded_with), runtime, name)
        return recording.built_in_policy(run.config.data, store.action_spec)
    path = {"bc": run.agent, "imagination": run.imagination}.get(name, Path(name))
    player = _checkpoint_player(run, path, runtime, name)
    player.require_spec(store.action_spec)
    return player


def _checkpoint_player(run: Run, path: Path, runtime: Runtime, name: str) -> AgentPolicy:
    """An agent or imagination checkpoint as a policy, with the run's tokenizer."""
    return load_player(path, run.tokenizer, runtime, temperature=run.config.eval.temperature, name=name)
