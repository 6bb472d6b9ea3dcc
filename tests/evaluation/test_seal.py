"""The seal on results: it fits what was written, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.evaluation.seal import SEAL, seal_fault, sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(facts=st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_a_seal_outlives_the_file(facts: dict) -> None:
    written = json.loads(json.dumps(sealed(facts), indent=2))
    assert seal_fault(written) is None
    assert seal_fault({**written, "another": 1}) is not None
    assert sealed(written) == written


@pytest.mark.parametrize("edit", [{"returns": [1.0, 2.5]}, {"returns": [1.0]}, {SEAL: "0" * 64}, {"more": None}])
def test_an_edit_is_seen(edit: dict) -> None:
    assert seal_fault({**sealed({"returns": [1.0, 2.0]}), **edit}) == (
        "their content is not what was sealed: they were edited"
    )


def test_what_cannot_have_been_sealed() -> None:
    assert seal_fault({"returns": [1.0]}) == "they carry no seal"
    assert seal_fault({"returns": [float("nan")], SEAL: "0"}) == "they hold values that are no numbers"
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed({"returns": [float("inf")]})
