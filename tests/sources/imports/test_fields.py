"""JSON side-cars: any bytes give values or an error that names file and row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.sources.imports.fields import DEEPEST, Entry, read_json, read_lines
from ahriuwu_cli.sources.imports.protocol import RecordingError

TAKES = {
    "number": lambda entry: entry.number("a"),
    "number_or_none": lambda entry: entry.number_or_none("a"),
    "whole": lambda entry: entry.whole("a", 0, 9),
    "flag": lambda entry: entry.flag("a"),
    "text": lambda entry: entry.text("a"),
    "point": lambda entry: entry.point("a"),
    "wholes": lambda entry: entry.wholes("a", 0, 9),
    "entry": lambda entry: entry.entry("a"),
    "entries": lambda entry: entry.entries("a"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_json(path, "any.json"), Entry)
    except RecordingError as error:
        assert error.file == "any.json"
    try:
        rows = [entry.row for entry in read_lines(path, "any.jsonl")]
        assert rows == sorted(set(rows))
    except RecordingError as error:
        assert error.row is not None


@given(JSON)
def test_any_value_is_taken_or_named(value: object) -> None:
    entry = Entry({"a": value}, "side.json", 7)
    for take in TAKES.values():
        try:
            take(entry)
        except RecordingError as error:
            assert (error.file, error.row) == ("side.json", 7)
            assert error.reason.startswith("a")
            str(error).encode()


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        (b'{"a": 1,\n"b" 2}', 2, "it is not JSON: Expecting ':' delimiter"),
        (b'{"a": "\xff"}', None, "not UTF-8"),
        (b"[1]", None, "a list of 1; expected an object"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", None, "not JSON that can be used|nested more than"),
        (b'{"a": ' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", None, "nested more than"),
        (b'{"a": ' + b"9" * 5000 + b"}", None, "not JSON that can be used"),
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes, row: int | None, reason: str) -> None:
    path = tmp_path / "side.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=reason) as told:
        read_json(path, "side.json")
    assert told.value.row == row


def test_a_line_is_named_by_its_number_and_a_mark_at_the_beginning_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "side.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n{"a": ')
    read = read_lines(path, "side.jsonl")
    assert [(next(read).number("a"), row) for row in (1, 3)] == [(1.0, 1), (2.0, 3)]
    with pytest.raises(RecordingError) as told:
        next(read)
    assert told.value.row == 4


def test_a_folder_in_place_of_a_file_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no plain file"):
        read_json(tmp_path, "side.json")
    with pytest.raises(RecordingError, match="missing"):
        read_json(tmp_path / "none.json", "none.json")


@pytest.mark.parametrize(("key", "value"), [("number", float("nan")), ("whole", True), ("flag", 1.0), ("whole", 10)])
def test_values_of_the_wrong_kind_are_refused(key: str, value: object) -> None:
    with pytest.raises(RecordingError, match=r"a is .*; expected"):
        TAKES[key](Entry({"a": value}, "side.json"))
    with pytest.raises(RecordingError, match="a is missing"):
        TAKES[key](Entry({}, "side.json"))
