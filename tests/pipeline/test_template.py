"""`ahriuwu init`: what it writes reads back as exactly what it was written from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.config import apply_overrides, validate
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.schema import section_of, walk
from ahriuwu_cli.pipeline.config import (
    RunConfig,
    as_overrides,
    load_preset,
    load_run,
    preset_names,
    preset_run,
    tokenizer_preset_names,
    tokenizer_preset_text,
)
from ahriuwu_cli.pipeline.template import init, render_config
from ahriuwu_cli.tokenizer.registry import config_class


@pytest.mark.parametrize("name", preset_names())
def test_init_writes_the_preset_with_the_environment_replaced(name: str, tmp_path: Path) -> None:
    report = init(tmp_path / "new" / "run", name, "ALE/Pong-v5")
    path = tmp_path / "new" / "run" / "run.toml"
    type_ = load_preset(name)["tokenizer"]["model"]["type"]
    assert report.data == {"config": str(path), "preset": name, "tokenizer": type_, "env": "ALE/Pong-v5"}
    wanted = validate(RunConfig, apply_overrides(load_preset(name), ["data.env=ALE/Pong-v5"]), name)
    assert load_run(path).config == wanted


def test_without_env_the_preset_stands(tmp_path: Path) -> None:
    init(tmp_path, "tiny", None)
    assert load_run(tmp_path / "run.toml").config == preset_run("tiny", tmp_path).config


@pytest.mark.parametrize("tokenizer", tokenizer_preset_names())
def test_a_tokenizer_takes_the_place_of_the_preset_s(tokenizer: str, tmp_path: Path) -> None:
    report = init(tmp_path, "tiny", None, tokenizer=tokenizer)
    assert report.data["tokenizer"] == tokenizer
    config, plain = load_run(tmp_path / "run.toml").config, preset_run("tiny", tmp_path).config
    fragment = tomllib.loads(tokenizer_preset_text(tokenizer))
    assert fragment.keys() == {"tokenizer"}
    assert fragment["tokenizer"].keys() == {"model"}
    model = fragment["tokenizer"]["model"]
    assert config.tokenizer.model == config_class(model["type"]).model_validate(model)
    assert config.tokenizer.model != plain.tokenizer.model
    without = {"tokenizer": {"model"}}
    assert config.model_dump(exclude=without) == plain.model_dump(exclude=without)
    text = (tmp_path / "run.toml").read_text()
    assert f"`ahriuwu init --preset tiny --tokenizer {tokenizer}`" in text
    assert tokenizer_preset_text(tokenizer).splitlines()[0] in text
    assert all(f"\n{key} = " in text for key in model)


def test_unknown_tokenizer_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='there is no tokenizer "transformer-medum"; expected one of cnn-') as caught:
        init(tmp_path / "new", "tiny", None, tokenizer="transformer-medum")
    assert caught.value.hint == "use --tokenizer transformer-medium"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", preset_names())
def test_every_value_is_stated_and_explained(name: str) -> None:
    config = preset_run(name, Path("x")).config
    lines = render_config(config).splitlines()
    for path, field in walk(RunConfig, config.model_dump()):
        if section_of(field, None) is None:
            key = path.rpartition(".")[2]
            places = [i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key} =")]
            assert places, path
            assert all(lines[place - 1].startswith("# ") for place in places), path
            assert field.description is None or any(f"# {field.description}" in line for line in lines), path


def test_sections_stand_in_the_order_of_the_road() -> None:
    text = render_config(preset_run("tiny", Path("x")).config)
    assert list(tomllib.loads(text)) == list(RunConfig.model_fields)


def test_a_value_that_is_none_is_a_comment() -> None:
    text = render_config(preset_run("tiny", Path("x")).config)
    assert "# soft_cap =\n" in text
    assert "soft_cap" not in tomllib.loads(text)["dynamics"]["model"]


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    rate=st.floats(0, 1, exclude_min=True),
    options=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.booleans() | st.integers() | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3)
        ),
        max_size=3,
    ),
)
def test_any_values_survive_the_round_trip(name: str, rate: float, options: dict[str, object]) -> None:
    values = {"run.name": name, "tokenizer.train.learning_rate": rate, "data.env_options": options}
    config = preset_run("tiny", Path("x"), as_overrides(values)).config
    assert (config.run.name, config.data.env_options) == (name, options)
    assert validate(RunConfig, tomllib.loads(render_config(config, "# opening")), "x") == config


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        init(tmp_path, "tiny", None)
    assert (tmp_path / "run.toml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match=r"taken is a file; expected a folder"):
        init(tmp_path / "taken" / below, "tiny", None)


def test_an_empty_environment_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'data\.env is ""'):
        init(tmp_path / "run", "tiny", "")
    assert list(tmp_path.iterdir()) == []
