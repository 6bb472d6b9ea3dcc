"""What a config section accepts, in words and as key paths: for error messages and for commented config files."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "a string", bool: "true or false", list: "a list"}


def allowed(field: FieldInfo) -> str:
    """Type, range and choices of a field, as in `an integer from 16 to 8192`."""
    kinds = alternatives(field.annotation)
    choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    limits = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt", "min_length")
        if getattr(rule, name, None) is not None
    }
    if limits.get("min_length") and str in kinds:
        return "a string that is not empty"
    words = " or ".join(_WORDS.get(get_origin(kind) or kind, "a table") for kind in kinds)
    if "ge" in limits and "le" in limits:
        return f"{words} from {_number(limits['ge'])} to {_number(limits['le'])}"
    bounds = [
        f"{word} {_number(limits[name])}"
        for name, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if name in limits
    ]
    return f"{words} {' and '.join(bounds)}".rstrip()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def optional(field: FieldInfo) -> bool:
    """True when the field may be left out to mean "none"."""
    return NoneType in get_args(field.annotation)


def alternatives(annotation: Any) -> list[Any]:
    """The types of a field, without None."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def section_of(field: FieldInfo, value: Any) -> type[BaseModel] | None:
    """The section a field holds, or None for a plain value.

    A section with subclasses is a family: the member is the one whose `type` is that of `value`, or
    that of the field's default where `value` does not say.
    """
    base = field.annotation
    if not (isinstance(base, type) and issubclass(base, BaseModel)):
        return None
    name = value.get("type") if isinstance(value, Mapping) else None
    if name is None and not field.is_required():
        return type(field.get_default(call_default_factory=True))
    members = [base, *_subclasses(base)]
    return next((kind for kind in members if "type" in kind.model_fields and _type_name(kind) == name), base)


def _subclasses(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _type_name(kind: type[BaseModel]) -> Any:
    return kind.model_fields["type"].default


def walk(model: type[BaseModel], data: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key path of `model` (sections and values) with its field; `data` decides between family members."""
    for name, field in model.model_fields.items():
        value = data.get(name) if isinstance(data, Mapping) else None
        yield f"{prefix}{name}", field
        inner = section_of(field, value)
        if inner is not None:
            yield from walk(inner, value, f"{prefix}{name}.")


def nearest_key(path: str, known: Sequence[str]) -> str | None:
    """The key path that `path` was most likely meant to be, or None when nothing is near.

    Tried in turn: the same name elsewhere in the same top section, a like name in the same place, the
    same name anywhere, a like name anywhere; of several, the one whose whole path is nearest.
    """
    place, _, leaf = path.rpartition(".")
    top = path.partition(".")[0]
    names = {key: key.rpartition(".")[2] for key in known}
    like = set(difflib.get_close_matches(leaf, set(names.values()), n=3))
    same_name = [key for key in known if names[key] == leaf]
    like_name = [key for key in known if names[key] in like]
    for candidates in (
        [key for key in same_name if key.startswith(f"{top}.")],
        [key for key in like_name if key.rpartition(".")[0] == place],
        same_name,
        like_name,
    ):
        if candidates:
            return difflib.get_close_matches(path, candidates, n=1, cutoff=0.0)[0]
    return None
