"""How likely an actor finds what was done in recordings, seeing what the player saw.

Shapes: E episodes, B pieces side by side, T latents of a piece, K action logits.

An actor is shown an episode latent by latent, as when it plays, with the actions that were taken; what is judged is the
action taken on seeing each. Long episodes are read in pieces side by side. Decision: of a piece that begins inside an
episode the first latents, as many as an actor attends to at once, are shown and not judged, so that it has its past.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.agent.heldout import Now
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.progress import tracked
from ahriuwu_cli.episodes.alignment import POLICY_OFFSET
from ahriuwu_cli.evaluation.acting import Actor
from ahriuwu_cli.latents.places import Place
from ahriuwu_cli.latents.windows import LatentWindows

PIECE = 256
"""Latents of a piece that are judged."""
ROWS = 32
"""Pieces side by side."""

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihood:
    """What one actor makes of recorded play, by episode (E,): sums over its steps whose action is known.

    Attributes:
        nats: of -ln p of the action that was taken.
        steps: how many there are.
        right: steps at which the likeliest action was the one that was taken.
        changes: steps whose action differs from the one before them.
        right_at_changes: of these, where the likeliest action was the one that was taken.
    """

    nats: Sums
    steps: Sums
    right: Sums
    changes: Sums
    right_at_changes: Sums


class Piece(NamedTuple):
    """Latents `start` to `stop` of an episode, judged from `judged` on."""

    episode: int
    start: int
    judged: int
    stop: int


def cut_episodes(lengths: Sequence[int], context_length: int) -> list[Piece]:
    """Pieces of episodes of so many latents, in which every latent is judged exactly once."""
    return [
        Piece(episode, max(0, judged - context_length), judged, min(judged + PIECE, length))
        for episode, length in enumerate(lengths)
        for judged in range(0, length, PIECE)
    ]


@torch.no_grad()
def likelihood(
    actor: Actor, windows: LatentWindows, context_length: int, runtime: Runtime, *, seed: int, name: str
) -> Likelihood:
    """Judge an actor on every episode of a split, each under the first task that applies to it.

    Args:
        actor: whose policy it is.
        windows: the episodes.
        context_length: latents before a piece that are shown only.
        runtime: device and precision.
        seed: of context noise.
        name: of the actor, for progress.
    """
    found = np.zeros((5, len(windows.episodes)))
    pieces = cut_episodes([episode.num_latents for episode in windows.episodes], context_length)
    pieces.sort(key=lambda piece: piece.start - piece.stop)  # alike in length side by side
    groups = [pieces[first : first + ROWS] for first in range(0, len(pieces), ROWS)]
    for group in tracked(f"actions, {name}", groups, "parts"):
        episodes = [piece.episode for piece in group]
        for sums in _judged(actor, windows, group, runtime, seed):
            for row, values in zip(found, sums, strict=True):
                np.add.at(row, episodes, values)
    return Likelihood(*found)


def _judged(
    actor: Actor, windows: LatentWindows, group: Sequence[Piece], runtime: Runtime, seed: int
) -> Iterator[Sums]:
    """By step in time, what pieces side by side add to the sums: (5, B)."""
    length = max(piece.stop - piece.start for piece in group)
    here = windows.read([Place(piece.episode, piece.start) for piece in group], length, 1).to(runtime.device)
    now = Now.of(here.action, here.action_valid, here.valid, POLICY_OFFSET)
    look = actor.begin(here.task, seed)
    for t in range(length):
        shown = (slice(None), slice(t, t + 1))
        with runtime.autocast():
            logits = look(here.latents[shown], here.action[shown], here.action_valid[shown])[:, 0]  # (B, K)
        counted = np.array([piece.judged <= piece.start + t < piece.stop for piece in group])
        counted &= now.known[:, t].cpu().numpy()
        policy = ActionDistribution(actor.choices, logits)
        taken = torch.where(now.known[:, t, None], now.target[:, t], torch.zeros(()).to(now.target))  # (B, A)
        wanted, before = actor.choices.quantise(taken), actor.choices.quantise(here.action[:, t])
        right = (policy.mode() == wanted).all(dim=-1).cpu().numpy() & counted
        changed = ((wanted != before).any(dim=-1) & here.action_valid[:, t]).cpu().numpy() & counted
        nats = np.where(counted, -policy.log_prob(taken).double().cpu().numpy(), 0)
        yield np.stack([nats, counted, right, changed, right & changed]).astype(np.float64)
