"""The base of every config section, reading TOML, `--set` overrides, and errors that name the key."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.schema import allowed, nearest_key, walk
from ahriuwu_cli.core.toml import parse_value, value_text


class Section(BaseModel):
    """A frozen pydantic model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Section)


# ---------------------------------------------------------------- reading


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: nothing readable is there.
        ConfigError: it is not TOML; the message has the line.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise InputError(
            f"{path} {found}; expected a run config",
            hint="write one with `ahriuwu init DIR --preset tiny`, or name another with --config",
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or bytes that are not UTF-8
        raise ConfigError(
            f"{path} is not TOML: {error}", hint='mend that place; every line is `key = value`, text in "quotes"'
        ) from error


# ---------------------------------------------------------------- overrides


def split_override(override: str) -> tuple[str, str]:
    """`section.key=value` as the key path and the text of the value.

    Raises:
        ConfigError: no `=`, no dotted key path before it, or text that cannot be stored.
    """
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path, re.ASCII):
        raise ConfigError(
            f"override {value_text(override)} is not `section.key=value`",
            hint="write it like --set dynamics.model.dim=256",
        )
    if any("\ud800" <= character <= "\udfff" for character in override):
        raise ConfigError(f"the value of {path} is not UTF-8 text", hint="give it in UTF-8")
    return path, text


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with `section.key=value` overrides laid on top, in order; `data` is left alone.

    A value is read as TOML (`8`, `1e-3`, `true`, `[1, 2]`, `{ a = 1 }`, `"text"`); what is not TOML is
    text as it stands. Whether the key exists and the value fits is for `validate` to say.

    Raises:
        ConfigError: an override is malformed or goes through a value that is not a table.
    """
    result = copy.deepcopy(dict(data))
    for override in overrides:
        path, text = split_override(override)
        *parents, leaf = path.split(".")
        table: dict[str, Any] = result
        for depth, name in enumerate(parents):
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"override {path}: {'.'.join(parents[: depth + 1])} is {_shown(inner)}, not a table of keys",
                    hint=f"set {'.'.join(parents[: depth + 1])} itself",
                )
            table = inner
        table[leaf] = parse_value(text)
    return result


# ---------------------------------------------------------------- validation


def validate(model: type[S], data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> S:
    """`data` as a frozen section; values are not converted from other types (`true` is no number).

    Args:
        model: the section class.
        data: plain values, as TOML gives them, overrides included.
        source: what `data` was read from, for the message.
        overrides: the `section.key=value` overrides in `data`; a fault in one is laid to the command line.

    Raises:
        ConfigError: one line with the first fault: key path, what was found, what is allowed.
    """
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        faults = sorted(error.errors(include_url=False), key=lambda fault: _ORDER.get(fault["type"], 1))
        raise _explain(model, data, faults, source, [split_override(text)[0] for text in overrides]) from error


_ORDER = {"extra_forbidden": 0, "missing": 2}
"""A typo often makes an unknown key and a missing one: the unknown one says more."""


def _explain(
    model: type[S], data: Mapping[str, Any], faults: Sequence[Any], source: str, overridden: Sequence[str]
) -> ConfigError:
    """The error for the first of the faults pydantic found."""
    fault = faults[0]
    fields = dict(walk(model, data))
    path = _key_path(fault["loc"], fields)
    field = fields.get(path)
    where = source if path or not overridden else f"{source} with the overrides"
    mend = f"change it in {source} or give"
    if any(_within(path, key) for key in overridden):
        where, mend = "command line", "give"
    if fault["type"] == "extra_forbidden":
        near = nearest_key(path, list(fields))
        message = f"unknown key {path}" + (f"; nearest valid key: {near}" if near else "")
        hint = f"write {near}" if near else _keys_beside(path, fields)
    elif fault["type"] == "missing" and field is not None:
        message = f"{path} is missing; expected {allowed(field)}"
        hint = f"add it; `ahriuwu init` writes every key{_meaning(field)}"
    elif fault["type"] == "value_error" or field is None:
        detail = " ".join(str(fault["msg"]).removeprefix("Value error, ").split())
        message = f"{path}: {detail}" if path else detail
        hint = f"change one of these values in {source} or with --set KEY=VALUE"
    else:
        message = f"{path} is {_shown(fault['input'])}; expected {allowed(field)}"
        sample = "'\"TEXT\"'" if field.annotation is str else "VALUE"  # so that TOML takes it for text
        hint = f"{mend} --set {path}={sample}{_meaning(field)}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ConfigError(f"{where}: {message}{more}", hint=hint)


def _key_path(location: Sequence[int | str], fields: Mapping[str, Any]) -> str:
    """A pydantic location as a dotted path that ends at a plain value, not inside it."""
    path = ""
    for part in location:
        path = f"{path}.{part}" if path else str(part)
        if path in fields and not any(key.startswith(f"{path}.") for key in fields):
            break
    return path


def _within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.")


def _keys_beside(path: str, fields: Mapping[str, Any]) -> str:
    place = path.rpartition(".")[0]
    names = [key.rpartition(".")[2] for key in fields if key.rpartition(".")[0] == place]
    return f"the keys of {f'[{place}]' if place else 'the file'} are {', '.join(names)}"


def _meaning(field: FieldInfo) -> str:
    return f" ({field.description})" if field.description else ""


def _shown(value: Any) -> str:
    """A found value on one line, cut when long."""
    try:
        text = value_text(value)
    except TypeError:
        text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
