"""One world model in numbers: its dream at several step counts beside what bounds it, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ahriuwu_cli.evaluation.dreaming import Dreamer
from ahriuwu_cli.evaluation.metrics import Frames, horizon_table, psnr
from ahriuwu_cli.evaluation.video_distance import VideoFeatures, clip_features, frechet_distance, halves_distance

MEASURES = 3
"""Counts up when a measure is added or defined anew: results of another number are made again."""


def measure_fidelity(dreamer: Dreamer, sampling_steps: Sequence[int], network: VideoFeatures) -> dict[str, Any]:
    """Judge a dream at every K of `sampling_steps`, all from the same contexts and the same noise.

    Args:
        dreamer: world model, tokenizer and contexts.
        sampling_steps: the step counts K.
        network: features for the video distance.

    Returns:
        JSON: `dreams`, for each K (as text) its measures; `references`: the tokenizer's ceiling, persistence, and
        the dream under the actions of other windows at the smallest K (`shuffled_steps`); `video_floor`, the video
        distance between two halves of the truth, null where these are too few; `step_distance` between the
        smallest and the largest K, null where they are the same.
    """
    contexts, fewest, most = dreamer.contexts, min(sampling_steps), max(sampling_steps)
    truth = contexts.dreamed(contexts.frames.numpy())
    features = clip_features(truth, network)

    def scored(guess: Frames) -> dict[str, Any]:
        distance = frechet_distance(features, clip_features(guess, network))
        return horizon_table(truth, {"guess": guess})["guess"].dump() | {"video_distance": distance}

    dreams = {steps: contexts.dreamed(dreamer.dream(num_steps=steps)) for steps in sampling_steps}
    references = {
        "reconstruction": dreamer.reconstruction(),
        "shuffled actions": dreamer.dream(shuffled=True, num_steps=fewest),
        "persistence": dreamer.persistence(),
    }
    return {
        "dreams": {str(steps): scored(dream) for steps, dream in dreams.items()},
        "references": {name: scored(contexts.dreamed(frames)) for name, frames in references.items()},
        "shuffled_steps": fewest,
        "video_floor": halves_distance(features, dreamer.seed),
        "step_distance": step_distance(dreams[fewest], dreams[most]) if fewest < most else None,
    }


def step_distance(few: Frames, many: Frames) -> dict[str, float]:
    """How far two dreams from the same contexts and noise are apart that differ in the step count K alone.

    A model that has learned what the step size means goes the same way in few large steps as in many small
    ones; one that does not look at it does not, though each of its single steps may look right.

    Args:
        few: (M, T, H, W, 3) uint8, dreamed frames only.
        many: of the same shape.

    Returns:
        Mean absolute differences of pixel values (0..255): `pixels` of the first frame, before the dreams'
        own pasts drift apart, and `pixels_mean` of all frames; and the means of their PSNR (`psnr`, `psnr_mean`).
    """
    apart = np.abs(few.astype(np.int16) - many)
    decibels = psnr(few, many)  # (M, T)
    return {
        "pixels": float(apart[:, 0].mean()),
        "pixels_mean": float(apart.mean()),
        "psnr": float(decibels[:, 0].mean()),
        "psnr_mean": float(decibels.mean()),
    }
