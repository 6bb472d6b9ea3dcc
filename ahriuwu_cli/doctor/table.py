"""The table of checks: what the doctor looks at, by kind of artifact, in the order it is told.

A new kind of artifact is a name in the rows that apply to it; a new check is a row.
"""

from __future__ import annotations

from ahriuwu_cli.doctor.blocks import examine_blocks
from ahriuwu_cli.doctor.checks import Check
from ahriuwu_cli.doctor.counts import examine_counts, examine_split, examine_tokenizer_split
from ahriuwu_cli.doctor.course import judge_course
from ahriuwu_cli.doctor.encodings import examine_latents, examine_packed
from ahriuwu_cli.doctor.heads import (
    examine_heldout,
    judge_continue,
    judge_listening,
    judge_policy,
    judge_relevant,
    judge_reward,
    judge_world,
)
from ahriuwu_cli.doctor.imagined import examine_imagined
from ahriuwu_cli.doctor.metrics import examine_metrics
from ahriuwu_cli.doctor.recordings import examine_episodes
from ahriuwu_cli.doctor.reencoding import examine_encoding, examine_origins
from ahriuwu_cli.doctor.results import examine_agents, examine_offline, examine_rollouts
from ahriuwu_cli.doctor.road import SCRATCH, WEIGHTS, examine_chain, examine_specs
from ahriuwu_cli.doctor.settings import examine_drift
from ahriuwu_cli.doctor.weights import examine_frozen, examine_state, examine_weights

DATA = ("episodes", "latents", "packed")
TRAINED = (*WEIGHTS, SCRATCH)
MADE = ("tokenizer", "latents", "packed", "dynamics", "agent", "imagination", SCRATCH)
RESULTS = "evaluation"
"""Name of the area of both evaluations' results."""

CHECKS: tuple[Check, ...] = (
    Check(("episodes",), "content", examine_episodes),
    Check(("latents",), "content", examine_latents),
    Check(("latents",), "origins", examine_origins),
    Check(("latents",), "encoding", examine_encoding),
    Check(("packed",), "content", examine_packed),
    Check(("packed",), "blocks", examine_blocks),
    Check(TRAINED, "content", examine_weights),
    Check(TRAINED, "metrics", examine_metrics),
    Check(("dynamics", "agent", SCRATCH), "heldout", examine_heldout),
    Check(("agent", SCRATCH), "relevant", judge_relevant),
    Check(("agent", SCRATCH), "policy", judge_policy),
    Check(("agent",), "reward head", judge_reward),
    Check(("agent",), "continue head", judge_continue),
    Check(("dynamics", "agent"), "listens", judge_listening),
    Check(("agent",), "world", judge_world),
    Check(TRAINED, "course", judge_course),
    Check(("imagination",), "outside", examine_imagined),
    Check(("imagination",), "frozen", examine_frozen),
    Check(("latents", "packed"), "counts", examine_counts),
    Check(DATA, "split", examine_split),
    Check(("tokenizer",), "split", examine_tokenizer_split),
    Check(MADE, "made from", examine_chain),
    Check(MADE, "specs", examine_specs),
    Check((*MADE, "episodes"), "config", examine_drift),
    Check(TRAINED, "state", examine_state, headless=True),
    Check((RESULTS,), "rollout", examine_rollouts, "run `ahriuwu eval rollout` again", headless=True),
    Check((RESULTS,), "agents", examine_agents, "run `ahriuwu eval agent` again", headless=True),
    Check((RESULTS,), "offline", examine_offline, "run `ahriuwu eval offline` again", headless=True),
)
