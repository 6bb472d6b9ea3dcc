"""`ahriuwu init`: a run.toml that states every value, with a comment on each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.files import write_text
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.schema import allowed, optional
from ahriuwu_cli.core.toml import key_text, value_text
from ahriuwu_cli.pipeline.config import (
    CONFIG_NAME,
    RunConfig,
    as_overrides,
    preset_run,
    preset_text,
    tokenizer_preset_text,
)


def render_config(config: RunConfig, opening: str = "") -> str:
    """`config` as a complete, commented TOML document, sections in the order of the road.

    Reading it back gives exactly `config`. A value that is none stands as a comment.

    Args:
        config: what to write.
        opening: comment lines (with their `#`) to begin with.
    """
    lines = [opening] if opening else []
    lines += _section_lines(config, "")
    return "\n".join(lines).strip("\n") + "\n"


def _section_lines(section: Section, path: str) -> Iterator[str]:
    """Values of one section, then the sections in it (TOML wants that order)."""
    fields = type(section).model_fields
    inner = {name: value for name in fields if isinstance(value := getattr(section, name), Section)}
    if path:
        yield ""
        yield from _comment(_first_line(type(section).__doc__))
        yield f"[{path}]"
    for name, field in fields.items():
        if name in inner:
            continue
        value = getattr(section, name)
        yield from _comment(f"{field.description} ({allowed(field)})" if field.description else allowed(field))
        if value is None:
            assert optional(field), f"{path}.{name}"
            yield f"# {key_text(name)} ="
        else:
            yield f"{key_text(name)} = {value_text(value)}"
    for name, value in inner.items():
        yield from _section_lines(value, f"{path}.{key_text(name)}" if path else key_text(name))


def _comment(text: str) -> Iterator[str]:
    if text:
        yield f"# {text}"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def init(folder: Path, preset: str, env: str | None, seed: int | None = None, tokenizer: str | None = None) -> Report:
    """Write `folder/run.toml` from a preset.

    Args:
        folder: made when missing.
        preset: name of a preset.
        env: Gymnasium environment id instead of the preset's.
        seed: run.seed instead of the preset's.
        tokenizer: name of a tokenizer preset, whose model is taken instead of the preset's.

    Raises:
        InputError: no such preset or tokenizer, `folder` is a file, or it has a run.toml already.
        ConfigError: `env` cannot be used.
    """
    run = preset_run(preset, folder, as_overrides({"data.env": env, "run.seed": seed}), tokenizer)
    path = folder / CONFIG_NAME
    if path.exists():
        raise InputError(f"{path} exists already", hint="edit it, remove it, or name another folder")
    blocker = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    if blocker.exists() and not blocker.is_dir():
        raise InputError(f"{blocker} is a file; expected a folder", hint="name another folder")

    write_text(path, render_config(run.config, _opening(preset, tokenizer)))
    model = tokenizer or run.config.tokenizer.model.type
    return Report(
        title="New run",
        columns=("file", "preset", "tokenizer", "environment"),
        rows=((str(path), preset, model, run.config.data.env),),
        data={"config": str(path), "preset": preset, "tokenizer": model, "env": run.config.data.env},
        notes=(f"Look through {path}, then: ahriuwu data record --config {path}",),
    )


def _opening(preset: str, tokenizer: str | None) -> str:
    """First lines of the file: what the presets say of themselves, and how values are changed."""
    flags = f"--preset {preset}" + (f" --tokenizer {tokenizer}" if tokenizer else "")
    lines = [
        f"# Written by `ahriuwu init {flags}`. Every value is stated; change what you like,",
        "# or leave the file alone and give `--set section.key=value` to a command.",
        "#",
        f"# The preset `{preset}`:",
        *_first_comments(preset_text(preset)),
    ]
    if tokenizer:
        lines += ["#", f"# Its tokenizer is `{tokenizer}` instead:", *_first_comments(tokenizer_preset_text(tokenizer))]
    return "\n".join(lines)


def _first_comments(text: str) -> Iterator[str]:
    return takewhile(lambda line: line.startswith("#"), text.splitlines())
