"""A small network that guesses actions from two frames that follow on each other, at all shifts at once.

Shapes: N pairs, B a batch of them, U units, S shifts, P parts, C classes of all parts together, h x w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ahriuwu_cli.sources.lag.parts import UNKNOWN
from ahriuwu_cli.sources.lag.stretches import SHIFTS, Pairs

WIDTH = 32
"""Channels of the first layer."""
FEATURES = 128
"""Of a pair, on which the guesses of all shifts are based."""
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
BATCH = 128
PASSES = 24
"""Through what is fitted, at most."""
AT_ONCE = 1024
"""Pairs that are scored together."""
TRIVIAL_SHARE = 0.05
"""Of every guess that is scored: one surprise costs at most ln 20 more than the trivial guess."""
HELD_SHARE = 0.25
"""Of the weight, for all steps at which the action stays what it was: neighbouring shifts are as good there."""


class Probe(nn.Module):
    """Two frames -> logits; those of the trivial guess before it is fitted.

    Args:
        size: h, w.
        trivial: (C,) how frequent each class is.
    """

    def __init__(self, size: tuple[int, int], trivial: Tensor) -> None:
        super().__init__()
        (height, width), channels = size, (6, WIDTH, 2 * WIDTH, 2 * WIDTH)
        layers: list[nn.Module] = []
        for given, made in pairwise(channels):
            layers += [nn.Conv2d(given, made, 3, stride=2, padding=1), nn.SiLU()]
            height, width = -(-height // 2), -(-width // 2)
        self._body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, FEATURES), nn.SiLU())
        self._heads = nn.Linear(FEATURES, len(SHIFTS) * len(trivial))
        nn.init.zeros_(self._heads.weight)
        with torch.no_grad():
            self._heads.bias.copy_(trivial.log().repeat(len(SHIFTS)))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pair: Tensor) -> Tensor:
        """(B, 6, h, w) -> (B, S, C)."""
        logits: Tensor = self._heads(self._body(pair))
        return logits.reshape(len(pair), len(SHIFTS), -1)


@dataclass(frozen=True)
class Scores:
    """Sums over the pairs of each unit, at each shift, for each part: all (U, S, P) float64.

    Attributes:
        weight: of the steps.
        loss: of the guesses, in nats.
        trivial_loss: of the trivial guess, in nats.
        right: right guesses.
        trivially_right: right ones of the trivial guess.
    """

    weight: np.ndarray
    loss: np.ndarray
    trivial_loss: np.ndarray
    right: np.ndarray
    trivially_right: np.ndarray


def fit_and_score(pairs: Pairs, steps: int, seed: int, progress: Callable[[float], None]) -> Scores:
    """Fit a probe on each fold, and score it on what it has not seen; held-out pairs are scored by the first.

    Args:
        pairs: with at least one fold that can be fitted, and something to try it on.
        steps: of each fit, at most.
        seed: of the weights and of the batches.
        progress: told which share is done.
    """
    data = _Data(pairs)
    units = int(pairs.unit.max()) + 1
    sums = [np.zeros((units, len(SHIFTS), len(pairs.parts))) for _ in range(5)]
    for fold in (0, 1):
        fitted = np.flatnonzero(pairs.fold == fold)
        scored = np.flatnonzero((pairs.fold == 1 - fold) | ((pairs.fold == -1) & (fold == 0)))
        if not len(fitted) or not len(scored):
            continue
        fit = _Fit(data, torch.from_numpy(fitted), seed + fold)
        count = min(steps, math.ceil(PASSES * len(fitted) / BATCH))
        for done in fit.run(count):
            progress(0.5 * (fold + done / count))
        for start in range(0, len(scored), AT_ONCE):
            index = scored[start : start + AT_ONCE]
            for total, values in zip(sums, fit.scored(torch.from_numpy(index)), strict=True):
                np.add.at(total, pairs.unit[index], values.double().numpy())
    seen = sums[0].any(axis=(1, 2))
    seen |= not seen.any()  # one unit at least, of which nothing is known
    return Scores(*(total[seen] for total in sums))


class _Data:
    """Pairs as tensors."""

    def __init__(self, pairs: Pairs) -> None:
        self._frames = torch.from_numpy(pairs.frames)  # (F, h, w, 3) uint8
        self._first = torch.from_numpy(pairs.first)
        self.size = pairs.frames.shape[1], pairs.frames.shape[2]
        self.classes, self.edges = torch.from_numpy(pairs.classes), torch.from_numpy(pairs.edges)
        self.counts = [part.num_classes for part in pairs.parts]
        some = pairs.first[:: max(1, len(pairs.first) // 2048)]
        now, then = pairs.frames[some].astype(np.float32), pairs.frames[some + 1].astype(np.float32)
        self._mean, self._deviation = float(now.mean()), float(now.std()) + 1.0
        self._motion = float((then - now).std()) + 1e-3

    def inputs(self, index: Tensor) -> Tensor:
        """(B,) -> (B, 6, h, w): the first frame, and what changes up to the second."""
        first = self._first[index]
        now, then = self._frames[first].float(), self._frames[first + 1].float()
        both = torch.cat([(now - self._mean) / self._deviation, (then - now) / self._motion], dim=-1)
        return both.permute(0, 3, 1, 2)


class _Fit:
    """One fold: the weights of steps, the trivial guess, and the probe."""

    def __init__(self, data: _Data, fitted: Tensor, seed: int) -> None:
        self._data, self._fitted = data, fitted
        self._generator = torch.Generator().manual_seed(seed)
        known = data.classes[fitted] != UNKNOWN
        changing = (data.edges[fitted] & known).sum(dim=(0, 1)).double()
        held = known.sum(dim=(0, 1)) - changing
        share = HELD_SHARE / (1 - HELD_SHARE)
        self._held = (share * changing / held.clamp(min=1)).clamp(max=1.0).float()  # (P,) weight of a step held
        self._trivial = self._frequent()  # (C,)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._probe = Probe(data.size, self._trivial)

    def run(self, steps: int) -> Iterator[int]:
        """Fit the probe; yields the number of each step before it is done."""
        optimizer = torch.optim.AdamW(self._probe.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for step in range(steps):
            yield step
            index = self._fitted[torch.randint(len(self._fitted), (BATCH,), generator=self._generator)]
            losses, _ = self._judged(self._probe(self._data.inputs(index)), index)
            weight = self._weight(index)
            loss = (losses * weight).sum() / weight.sum().clamp(min=1.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def scored(self, index: Tensor) -> tuple[Tensor, ...]:
        """What `Scores` sums, of each pair: (B, S, P) each."""
        weight, logits = self._weight(index), self._probe(self._data.inputs(index))
        losses, right = self._judged(logits, index, self._trivial)
        plain, plainly_right = self._judged(self._trivial.log().expand_as(logits), index)
        return weight, weight * losses, weight * plain, weight * right, weight * plainly_right

    def _weight(self, index: Tensor) -> Tensor:
        """(B, S, P)."""
        known = self._data.classes[index] != UNKNOWN
        return torch.where(self._data.edges[index], 1.0, self._held) * known

    def _frequent(self) -> Tensor:
        """How frequent each class is by weight, parts one after another."""
        now = len(SHIFTS) // 2
        weight, classes = self._weight(self._fitted)[:, now].double(), self._data.classes[self._fitted, now].long()
        found = []
        for part, count in enumerate(self._data.counts):
            sums = torch.bincount(classes[:, part].clamp(min=0), weight[:, part], count) + 0.5
            found.append(sums / sums.sum())
        return torch.cat(found).float()

    def _judged(self, logits: Tensor, index: Tensor, mixed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Losses and right guesses (B, S, P) of logits (B, S, C); the trivial guess has a share where it is given."""
        targets = self._data.classes[index].long().clamp(min=0)
        losses, right = [], []
        for part, mine in enumerate(torch.split(logits, self._data.counts, dim=-1)):
            target, guess = targets[..., part], mine.log_softmax(-1)
            if mixed is not None:
                plain = torch.split(mixed, self._data.counts)[part].log()
                guess = torch.logaddexp(guess + math.log(1 - TRIVIAL_SHARE), plain + math.log(TRIVIAL_SHARE))
            losses.append(-guess.gather(-1, target.unsqueeze(-1)).squeeze(-1))
            right.append(guess.argmax(-1) == target)
        return torch.stack(losses, -1), torch.stack(right, -1)
