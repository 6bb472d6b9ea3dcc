"""The table of an ablation, from whatever results there are: means and spreads over seeds, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ahriuwu_cli.core.report import Report
from ahriuwu_cli.experiments.ablation.plan import Item, Plan, Variant

Results = Mapping[tuple[str, int], dict[str, Any]]
"""(variant name, seed) -> what its result.json holds."""

COLUMNS = ("variant", "K", "PSNR dB", "SSIM", "video distance x 1000", "s/step", "CPU min", "seeds")
REFERENCES = {"reconstruction": "tokenizer ceiling", "persistence": "persistence"}


def make_table(plan: Plan, results: Results) -> Report:
    """One row for each variant and K, then what bounds them."""
    entries = [
        _entry(variant, steps, results, plan.settings.seeds)
        for variant in plan.variants
        for steps in _steps(plan, variant)
    ]
    entries = [entry for entry in entries if entry["seeds"]]
    references = _references(results)
    missing = [
        str(item)
        for item in plan.items
        if (item.variant.name, item.seed) not in results and (not item.variant.optional or _begun(item, results))
    ]
    settings = plan.base.config.eval
    data: dict[str, Any] = {
        "name": plan.base.config.run.name,
        "contexts": settings.contexts,
        "context_length": settings.context_length,
        "horizon": settings.horizon,
        "rows": entries,
        "references": references,
        "missing": missing,
    }
    notes = [
        f"means of {settings.horizon} dreamed frames after {settings.context_length} true ones, "
        f"{settings.contexts} held-out contexts, noise and contexts the same in all rows; "
        "± is the standard deviation over seeds of the dynamics, data and tokenizer are the same",
        "s/step is the median training step, under whatever load there was; CPU min is the training's processor time",
    ]
    if results:
        floor = next(iter(results.values()))["video_floor"]
        data["video_floor"] = floor
        halves = "" if floor is None else f"; x 1000 it is {1000 * floor:.1f} between two halves of the truth"
        notes.append(
            "video distance: Fréchet distance over features of a fixed random network, to compare rows of this "
            f"table and nothing else{halves}"
        )
    apart = _steps_apart(entries)
    if apart:
        notes.append(
            f"first frames at the fewest and the most steps from the same noise, in 255ths of a pixel: {apart}"
        )
    if missing:
        notes.append(f"missing: {'; '.join(missing)}")
    rows = [_row(entry) for entry in entries]
    rows += [(entry["name"], entry["sampling_steps"], *_scores(entry), "", "", "") for entry in references]
    return Report(f"ablation {plan.base.config.run.name}", COLUMNS, rows, data, notes)


# ---------------------------------------------------------------- rows


def _steps(plan: Plan, variant: Variant) -> tuple[int, ...]:
    return next(item.steps for item in plan.items if item.variant.name == variant.name)


def _begun(item: Item, results: Results) -> bool:
    return any(name == item.variant.name for name, _ in results)


def _entry(variant: Variant, steps: int, results: Results, seeds: Sequence[int]) -> dict[str, Any]:
    """All seeds of one variant at one K, as JSON."""
    found = {seed: results[variant.name, seed] for seed in seeds if (variant.name, seed) in results}
    dreams = [result["dreams"][str(steps)] for result in found.values()]
    costs = [result["cost"] for result in found.values()]
    return {
        "variant": variant.name,
        "overrides": variant.overrides,
        "sampling_steps": steps,
        "seeds": list(found),
        "psnr": [dream["psnr_mean"] for dream in dreams],
        "ssim": [dream["ssim_mean"] for dream in dreams],
        "video_distance": [dream["video_distance"] for dream in dreams],
        "seconds_per_step": [cost["seconds_per_step"] for cost in costs],
        "cpu_minutes": [cost["cpu_seconds"] / 60 for cost in costs],
        "step_distance": [result["step_distance"] for result in found.values()],
    }


def _references(results: Results) -> list[dict[str, Any]]:
    """The last variant's dream under wrong actions; ceiling and floor, which are the same for all."""
    if not results:
        return []
    last = list(results)[-1][0]
    mine = {seed: result for (name, seed), result in results.items() if name == last}
    one = next(iter(mine.values()))
    wrong = [result["references"]["shuffled actions"] for result in mine.values()]
    fixed = [(name, "", [0], [one["references"][key]]) for key, name in REFERENCES.items()]
    return [
        {
            "name": name,
            "sampling_steps": steps,
            "seeds": seeds,
            "psnr": [curve["psnr_mean"] for curve in curves],
            "ssim": [curve["ssim_mean"] for curve in curves],
            "video_distance": [curve["video_distance"] for curve in curves],
        }
        for name, steps, seeds, curves in [
            (f"actions of other contexts: {last}", str(one["shuffled_steps"]), list(mine), wrong),
            *fixed,
        ]
    ]


def _steps_apart(entries: Sequence[Mapping[str, Any]]) -> str:
    """For each variant judged at several K, how far its dreams are apart."""
    found = {
        entry["variant"]: fmean(distance["pixels"] for distance in entry["step_distance"])
        for entry in entries
        if all(entry["step_distance"])
    }
    return ", ".join(f"{name} {pixels:.2f}" for name, pixels in found.items())


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["variant"],
        str(entry["sampling_steps"]),
        *_scores(entry),
        f"{fmean(entry['seconds_per_step']):.3f}",
        f"{fmean(entry['cpu_minutes']):.1f}",
        str(len(entry["seeds"])),
    )


def _scores(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _spread(entry["psnr"], 2),
        _spread(entry["ssim"], 3),
        _spread([1000 * value for value in entry["video_distance"]], 1),
    )


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the standard deviation where there are two values at least."""
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean
