"""Reading TOML, overrides, and the one line that names the key, what was found and what is allowed."""

from __future__ import annotations

import copy
import datetime
import re
import tomllib
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from ahriuwu_cli.core.config import Section, apply_overrides, read_toml, validate
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.schema import nearest_key, walk
from ahriuwu_cli.core.toml import key_text, parse_value, value_text


class Shape(Section):
    type: str


class Round(Shape):
    type: Literal["round"] = "round"
    radius: float = Field(default=1.0, gt=0, le=10)


class Square(Shape):
    type: Literal["square"] = "square"
    side: int = Field(default=2, ge=1, le=64, description="length of an edge")


class Inner(Section):
    steps: int = Field(ge=1)
    rate: float = Field(default=0.5, ge=0, lt=1)
    colour: Literal["red", "green"] = "red"
    cap: float | None = Field(default=None, gt=0)
    shape: SerializeAsAny[Shape] = Field(default_factory=Round)

    @field_validator("shape", mode="before")
    @classmethod
    def _pick(cls, value: Any) -> Any:
        kinds: dict[Any, type[Shape]] = {"round": Round, "square": Square}
        return value if isinstance(value, Shape) else kinds[value.get("type", "round")].model_validate(value)

    @model_validator(mode="after")
    def _even(self) -> Inner:
        if self.steps % 2 and self.colour == "green":
            raise ValueError(f"steps {self.steps} must be even when green")
        return self


class Outer(Section):
    name: str = Field(default="x", min_length=1, description="what it is called")
    flag: bool = False
    options: dict[str, Any] = Field(default_factory=dict)
    inner: Inner


GOOD: dict[str, Any] = {"inner": {"steps": 2}}


def refusal(overrides: list[str], data: dict[str, Any] | None = None) -> ConfigError:
    values = GOOD if data is None else data
    with pytest.raises(ConfigError) as caught:
        validate(Outer, apply_overrides(values, overrides), "x.toml", overrides)
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


# ---------------------------------------------------------------- the section


def test_section_is_frozen() -> None:
    section = validate(Outer, GOOD, "x.toml")
    with pytest.raises(ValidationError):
        section.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_everywhere(value: float) -> None:
    with pytest.raises(ValidationError):
        Round(radius=value)
    assert "inner.rate is" in refusal([f"inner.rate={value}"]).message


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inner.steps=0", "inner.steps is 0; expected an integer at least 1"),
        ("inner.steps=1.5", "inner.steps is 1.5; expected an integer at least 1"),
        ("inner.steps=many", 'inner.steps is "many"; expected an integer at least 1'),
        ("inner.steps=true", "inner.steps is true; expected an integer at least 1"),
        ("inner.rate=1", "inner.rate is 1; expected a number at least 0 and below 1"),
        ("inner.cap=0", "inner.cap is 0; expected a number above 0"),
        ("inner.colour=blue", 'inner.colour is "blue"; expected one of red, green'),
        ("inner.shape.radius=11", "inner.shape.radius is 11; expected a number above 0 and at most 10"),
        ("inner=3", "inner is 3; expected a table"),
        ("name=''", 'name is ""; expected a string that is not empty'),
        ("flag=yes", 'flag is "yes"; expected true or false'),
        ("options=[1]", "options is [1]; expected a table"),
        ("inner.colour=green", None),
    ],
)
def test_refusal_names_key_found_and_allowed(override: str, expected: str | None) -> None:
    if expected is None:
        assert validate(Outer, apply_overrides(GOOD, [override]), "x.toml").inner.colour == "green"
    else:
        assert refusal([override]).message == f"command line: {expected}"


def test_the_member_of_a_family_decides_the_keys() -> None:
    error = refusal([], {"inner": {"steps": 2, "shape": {"type": "square", "side": 65}}})
    assert error.message == "x.toml: inner.shape.side is 65; expected an integer from 1 to 64"
    assert error.hint == "change it in x.toml or give --set inner.shape.side=VALUE (length of an edge)"
    error = refusal([], {"inner": {"steps": 2, "shape": {"type": "square", "sied": 3}}})
    assert error.message == "x.toml: unknown key inner.shape.sied; nearest valid key: inner.shape.side"
    error = refusal([], {"inner": {"steps": 2, "shape": {"radios": 3}}})
    assert error.message == "x.toml: unknown key inner.shape.radios; nearest valid key: inner.shape.radius"


def test_text_that_toml_took_for_something_else_is_to_be_quoted() -> None:
    error = refusal(["name=2020-01-01"])
    assert error.message == "command line: name is 2020-01-01; expected a string that is not empty"
    assert error.hint == """give --set name='"TEXT"' (what it is called)"""
    overrides = ['name="2020-01-01"']
    assert validate(Outer, apply_overrides(GOOD, overrides), "x.toml", overrides).name == "2020-01-01"


def test_check_between_values_is_told_in_its_own_words() -> None:
    error = refusal([], {"inner": {"steps": 3, "colour": "green"}})
    assert error.message == "x.toml: inner: steps 3 must be even when green"


def test_missing_key() -> None:
    assert refusal([], {"inner": {}}).message == "x.toml: inner.steps is missing; expected an integer at least 1"


def test_typo_is_told_before_the_key_it_leaves_missing() -> None:
    error = refusal([], {"inner": {"stpes": 2}})
    assert error.message == "x.toml: unknown key inner.stpes; nearest valid key: inner.steps (and 1 more)"
    assert error.hint == "write inner.steps"


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("steps", "inner.steps"),
        ("inner.radius", "inner.shape.radius"),
        ("inner.clour", "inner.colour"),
        ("iner", "inner"),
        ("inner.zzz", None),
    ],
)
def test_nearest_key(path: str, nearest: str | None) -> None:
    known = [key for key, _ in walk(Outer, GOOD)]
    assert nearest_key(path, known) == nearest


def test_without_a_near_key_the_keys_of_that_place_are_listed() -> None:
    error = refusal(["inner.zzz=1"])
    assert error.message == "command line: unknown key inner.zzz"
    assert error.hint == "the keys of [inner] are steps, rate, colour, cap, shape"


LEAVES = [key for key, _ in walk(Outer, GOOD)]


@given(key=st.sampled_from(LEAVES), place=st.integers(0, 40), letter=st.sampled_from("abcxyz_"))
def test_any_typo_is_refused_with_a_valid_key_or_the_list(key: str, place: int, letter: str) -> None:
    parent, _, name = key.rpartition(".")
    place %= len(name) + 1
    typo = f"{parent}.{name[:place]}{letter}{name[place:]}".lstrip(".")
    if typo in LEAVES:
        return
    error = refusal([f"{typo}=1"])
    assert f"unknown key {typo}" in error.message
    near = re.search(r"nearest valid key: (\S+)", error.message)
    assert near is not None
    assert near[1] in LEAVES
    assert near[1].rpartition(".")[0] == parent or near[1].rpartition(".")[2] == typo.rpartition(".")[2]


# ---------------------------------------------------------------- overrides

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
# TOML has no lone surrogates; a bare carriage return is no line of TOML either but is escaped.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXTS,
    st.dates(),
    st.times().map(lambda time: time.replace(fold=0)),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


@given(VALUES)
def test_written_values_read_back(value: Any) -> None:
    assert "\n" not in value_text(value)
    assert tomllib.loads(f"{key_text('a b')} = {value_text(value)}") == {"a b": value}
    assert parse_value(f"  {value_text(value)} ") == value


def test_what_toml_cannot_say_is_not_written() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        value_text([None])


@given(st.lists(NAMES, min_size=1, max_size=4), VALUES)
def test_override_sets_one_value_and_leaves_the_input_alone(path: list[str], value: Any) -> None:
    data = {"other": {"kept": [1, {"deep": 2}]}}
    before = copy.deepcopy(data)
    if path[0] == "other":
        path = ["another", *path]
    result = apply_overrides(data, [f"{'.'.join(path)}={value_text(value)}"])
    assert data == before
    assert result.pop("other") == before["other"]
    for name in path:
        assert list(result) == [name]
        result = result[name]
    assert result == value


@given(TEXTS)
def test_any_other_text_is_kept_as_it_stands(text: str) -> None:
    found = parse_value(text)
    assert type(found) in (str, int, float, bool, list, dict, datetime.date, datetime.time, datetime.datetime)
    if isinstance(found, str) and text.strip()[:1] not in ("'", '"'):
        assert found == text.strip()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1e-3", 1e-3),
        ("true", True),
        ("True", "True"),
        ("", ""),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("a=b", "a=b"),
        ("1\nother = 2", "1\nother = 2"),
        ("{ frameskip = 4 }", {"frameskip": 4}),
        (" x ", "x"),
    ],
)
def test_value_of_an_override(text: str, value: Any) -> None:
    assert apply_overrides({}, [f" a.b ={text}"]) == {"a": {"b": value}}


def test_later_overrides_win_and_tables_are_replaced_whole() -> None:
    data = {"a": {"b": 1, "c": 2}}
    assert apply_overrides(data, ["a.b=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}
    assert apply_overrides(data, ["a={ d = 1 }", "a.e=2"]) == {"a": {"d": 1, "e": 2}}
    assert data == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("override", ["", "a", "=1", "a..b=1", ".a=1", "a.=1", "a b=1", "a\nb=1"])
def test_malformed_override(override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not `section\.key=value`") as caught:
        apply_overrides({}, [override])
    assert "\n" not in caught.value.message


def test_override_through_a_plain_value() -> None:
    with pytest.raises(ConfigError, match=r"override a\.b\.c: a\.b is 1, not a table of keys"):
        apply_overrides({"a": {"b": 1}}, ["a.b.c=2"])


def test_override_that_is_not_utf8() -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        apply_overrides({}, ["a.b=\udcff"])


# ---------------------------------------------------------------- files


def test_missing_file(tmp_path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml does not exist") as caught:
        read_toml(tmp_path / "nowhere.toml")
    assert "ahriuwu init" in caught.value.hint
    assert caught.value.exit_code == 2


def test_folder_for_a_file(tmp_path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_toml(tmp_path)


def test_syntax_error_has_its_line(tmp_path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[run]\nname = oops\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_toml(path)
    assert "\n" not in caught.value.message


def test_bytes_that_are_no_text(tmp_path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_toml(path)
