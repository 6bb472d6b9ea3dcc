"""What an agent does in the game, told in one line."""

from __future__ import annotations

from typing import Any

SHOWN_CHOICES = 6
"""Choices of a component named in one line of text, the most frequent first."""
SHOWN_COMPONENTS = 4


def describe(name: str, facts: dict[str, Any]) -> str:
    """One line on what an agent does, from the facts of its tally."""
    components = list(facts["components"].items())
    parts = [_describe_component(part, len(components) > 1, entry) for part, entry in components[:SHOWN_COMPONENTS]]
    if len(components) > SHOWN_COMPONENTS:
        parts.append(f"and {len(components) - SHOWN_COMPONENTS} more components")
    return f"actions of {name}: {'; '.join(parts)}; as at the step before: {_percent(facts['repeated'])}"


def _describe_component(name: str, named: bool, facts: dict[str, Any]) -> str:
    if facts["type"] == "categorical":
        ranked = sorted(facts["shares"].items(), key=lambda choice: -(choice[1] or 0.0))
        text = ", ".join(f"{label} {_percent(share)}" for label, share in ranked[:SHOWN_CHOICES])
        text += f", {len(ranked) - SHOWN_CHOICES} others" if len(ranked) > SHOWN_CHOICES else ""
    elif facts["type"] == "binary":
        text = "on " + ", ".join(map(_percent, facts["on"]))
    else:
        pairs = zip(facts["mean"], facts["spread"], strict=True)
        text = "mean " + ", ".join(
            "unknown" if mean is None else f"{mean:.2f} (spread {spread:.2f})" for mean, spread in pairs
        )
    return f"{name} {text}" if named else text


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"
