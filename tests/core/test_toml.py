"""One number of a TOML file is changed, and nothing else."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.toml import key_text, value_text, with_value
from ahriuwu_cli.pipeline.config import preset_names, preset_run
from ahriuwu_cli.pipeline.template import render_config

PATH = ("data", "source", "lag")
BEFORE = '# first\n[data] # a game\nfps = 20 # often\nnote = """\n[data.source]\nlag = 1\n"""\n'


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (
            BEFORE + "[data.source]\nlag = -1.5 # seconds\ngap = 2\n[eval]\n",
            BEFORE + "[data.source]\nlag = 0.25 # seconds\ngap = 2\n[eval]\n",
        ),
        (
            "[ data . 'source' ] # here\n# gap\ngap=2\n\n[eval]\nlag = 1\n",
            "[ data . 'source' ] # here\nlag = 0.25\n# gap\ngap=2\n\n[eval]\nlag = 1\n",
        ),
        ("[data.source]", "[data.source]\nlag = 0.25\n"),
        ("[data]\r\nfps = 20\r\n", "[data]\r\nfps = 20\r\n\r\n[data.source]\r\nlag = 0.25\r\n"),
        ("[data]\nfps = 20", "[data]\nfps = 20\n\n[data.source]\nlag = 0.25\n"),
        ("", "[data.source]\nlag = 0.25\n"),
        ('[data]\n  source.path = "a"\nfps = 2\n', '[data]\n  source.lag = 0.25\n  source.path = "a"\nfps = 2\n'),
        ('data.source.path = "a"\n[eval]\n', 'data.source.lag = 0.25\ndata.source.path = "a"\n[eval]\n'),
        ('[data]\nsource.lag = 3\nsource.path = "a"\n', '[data]\nsource.lag = 0.25\nsource.path = "a"\n'),
    ],
)
def test_the_rest_stays(text: str, after: str) -> None:
    assert with_value(text, PATH, 0.25) == after


@pytest.mark.parametrize(
    "text",
    [
        '[data]\nsource = { path = "a" }\n',
        "[data]\nsource = 1\n",
        "data = 1\n",
        "[data.source]\nlag = [1,\n2]\n",
        "[data.source\n",
    ],
)
def test_what_cannot_be_changed_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"data|source|TOML|line"):
        with_value(text, PATH, 0.25)


names = st.sampled_from(["data", "source", "lag", "gap", "a b", 'q"#'])
tables = st.recursive(
    st.integers() | st.text(max_size=8) | st.booleans(), lambda inner: st.dictionaries(names, inner, max_size=4)
)


def written(data: dict, path: tuple[str, ...] = ()) -> str:
    """A document with a table for each dict."""
    lines = [f"[{'.'.join(map(key_text, path))}]"] if path else []
    lines += [
        f"{key_text(name)} = {value_text(value)} # {name}"
        for name, value in data.items()
        if not isinstance(value, dict)
    ]
    inner = [written(value, (*path, name)) for name, value in data.items() if isinstance(value, dict)]
    return "\n".join([*lines, *inner])


def is_changeable(data: dict) -> bool:
    """Tables as far as the number, and a number where something is there."""
    for name in PATH[:-1]:
        inner = data.get(name, {})
        if not isinstance(inner, dict):
            return False
        data = inner
    return isinstance(data.get(PATH[-1], 0), int)


@given(st.dictionaries(names, tables, max_size=4), st.floats(-10, 10))
def test_any_document_is_changed_at_that_place_or_refused(data: dict, value: float) -> None:
    try:
        after = tomllib.loads(with_value(written(data), PATH, value))
    except ValueError:
        assert not is_changeable(data)
        return
    assert after["data"]["source"].pop("lag") == value
    for table in (data.setdefault("data", {}), data["data"].setdefault("source", {})):
        assert isinstance(table, dict)
    data["data"]["source"].pop("lag", None)
    assert after == data


@pytest.mark.parametrize("name", preset_names())
def test_a_whole_run_keeps_every_other_line(name: str, tmp_path) -> None:
    before = render_config(preset_run(name, tmp_path).config).splitlines()
    after = with_value("\n".join(before), PATH, -0.2).splitlines()
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [("lag = 0.0", "lag = -0.2")]
