"""One run.toml: presets, checks between sections, and refusals for every key there is."""

from __future__ import annotations

import copy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.config import apply_overrides, validate
from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.core.schema import section_of, walk
from ahriuwu_cli.core.toml import value_text
from ahriuwu_cli.pipeline.config import (
    Run,
    RunConfig,
    load_data_run,
    load_preset,
    load_run,
    preset_names,
    preset_run,
)
from ahriuwu_cli.tokenizer.config import CnnModel

TINY = load_preset("tiny")
FIELDS = dict(walk(RunConfig, TINY))
VALUES = sorted(path for path, field in FIELDS.items() if section_of(field, None) is None)


def refusal(*overrides: str, preset: str = "tiny") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        preset_run(preset, Path("x"), overrides)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


# ---------------------------------------------------------------- presets


def test_the_five_presets_in_order() -> None:
    assert preset_names() == ["tiny", "small", "medium", "large", "paper"]


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_a_whole_valid_run(name: str) -> None:
    config = preset_run(name, Path("x")).config
    assert config.run.name == name
    assert set(load_preset(name)) >= {"run", "data", "tokenizer", "dynamics", "agent", "imagine", "eval"}


def test_tiny_needs_no_download_and_small_records_any_environment() -> None:
    assert TINY["tokenizer"]["loss"]["lpips_weight"] == 0
    assert TINY["data"]["env"].startswith("ahriuwu/")
    for name in preset_names()[1:]:
        assert load_preset(name)["data"]["policy"] == "random"


def test_paper_has_the_paper_s_numbers() -> None:
    config = preset_run("paper", Path("x")).config
    model: Any = config.tokenizer.model
    assert (config.data.height // model.patch) * (config.data.width // model.patch) == 960
    assert (model.num_bottleneck, model.dim_bottleneck, model.num_tokens) == (512, 16, 256)
    dynamics = config.dynamics
    assert (dynamics.short_length, dynamics.long_length, dynamics.sampler.context_length) == (64, 256, 192)
    assert (dynamics.model.k_max, dynamics.sampler.steps, config.agent.heads.mtp_length) == (64, 4, 8)


def test_unknown_preset() -> None:
    with pytest.raises(InputError, match=r'no preset "smal"; expected one of tiny, small') as caught:
        load_preset("smal")
    assert caught.value.hint == "use --preset small"


def test_frames_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in tokenizers pad; one that cannot says so in its config."""
    for model in ("cnn", "transformer"):
        sizes = ("data.height=36", "data.width=33", f'tokenizer.model={{type="{model}"}}')
        assert preset_run("tiny", Path("x"), sizes).config.data.height == 36
    monkeypatch.setattr(CnnModel, "frame_multiple", 8)
    assert "data.height 36 is not divisible by 8, as tokenizer cnn needs" in refusal("data.height=36").message
    assert "data.width 33 is not divisible by 8, as tokenizer cnn needs" in refusal("data.width=33").message


@pytest.mark.parametrize("text", ["[[0, 0, 1]]", "[[0, 0, 1, -1]]", "[[0, 0, 1.5, 1]]", "[0, 0, 1, 1]", "all"])
def test_regions_are_four_numbers_each(text: str) -> None:
    refused = refusal(f"tokenizer.loss.ignored_regions={text}")
    assert refused.message.startswith("command line: tokenizer.loss.ignored_regions is ")
    assert "expected a list" in refused.message
    assert "[top, left, height, width]" in refused.hint


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("path", [path for path in VALUES if path != "tokenizer.model.type"])
def test_every_number_and_choice_has_a_bound_that_holds(path: str) -> None:
    """Pitfall 24: bounds in the config."""
    field = FIELDS[path]
    outside: list[Any] = []
    for rule in field.metadata:
        if isinstance(rule, Ge):
            outside.append(rule.ge - 1)
        elif isinstance(rule, Gt):
            outside.append(rule.gt)
        elif isinstance(rule, Le):
            outside.append(rule.le + 1)
        elif isinstance(rule, Lt):
            outside.append(rule.lt)
    if not outside:
        assert field.annotation not in (int, float), f"{path} has no bounds"
        outside = [[1]] if field.annotation is not dict else [1]
    for value in outside:
        text = value_text(value)
        assert refusal(f"{path}={text}").message.startswith(f"command line: {path} is ")


@pytest.mark.parametrize("path", [path for path in VALUES if FIELDS[path].annotation in (int, float, str)])
def test_true_is_neither_number_nor_text(path: str) -> None:
    assert refusal(f"{path}=true").message.startswith(f"command line: {path} is true; expected a")


@pytest.mark.parametrize("text", ["foo", "[1]", "3"])
def test_unknown_tokenizer(text: str) -> None:
    assert refusal(f"tokenizer.model.type={text}").message.startswith("command line: tokenizer.model")


@given(path=st.sampled_from(VALUES), place=st.integers(0, 30), kind=st.sampled_from(["drop", "double", "swap"]))
def test_typo_in_any_key_names_a_valid_one(path: str, place: int, kind: str) -> None:
    parent, _, name = path.rpartition(".")
    place %= max(len(name) - 1, 1)
    changed = {
        "drop": name[:place] + name[place + 1 :],
        "double": name[: place + 1] + name[place:],
        "swap": name[:place] + name[place : place + 2][::-1] + name[place + 2 :],
    }[kind]
    typo = f"{parent}.{changed}"
    if not changed or typo in FIELDS:
        return
    data: dict[str, Any] = copy.deepcopy(TINY)
    table = data
    for part in parent.split("."):
        table = table.setdefault(part, {})
    table[changed] = table.pop(name, 1)
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, data, "run.toml")
    message = caught.value.message
    assert message.startswith(f"run.toml: unknown key {typo}")
    if len(changed) > 3:
        near = message.partition("nearest valid key: ")[2].split(" ")[0]
        assert near in FIELDS


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("tokenizer.loss.ignored_regions=[[30, 0, 3, 1]]",), "has [30, 0, 3, 1]; expected [top, left, height, width]"),
        (("tokenizer.loss.ignored_regions=[[0, 0, 32, 32]]",), "cover the whole frame of 32x32"),
        (("imagine.context_length=16",), "imagine.context_length 16 is above dynamics.sampler.context_length 15"),
        (("eval.context_length=16",), "eval.context_length 16 is above dynamics.sampler.context_length 15"),
        (("agent.batch_length=15",), "agent.batch_length 15 must be above dynamics.sampler.context_length 15"),
        (("imagine.sampling_steps=3",), "imagine.sampling_steps 3 must be a power of two up to dynamics.model.k_max 8"),
        (("imagine.sampling_steps=16",), "sampling_steps 16 must be a power of two up to dynamics.model.k_max 8"),
        (("agent.heads.mtp_length=16",), "agent.heads.mtp_length 16 must be below agent.batch_length 16"),
    ],
)
def test_numbers_that_cannot_go_together(overrides: tuple[str, ...], message: str) -> None:
    assert message in refusal(*overrides).message


# ---------------------------------------------------------------- runs


def test_load_run_reads_the_file_and_lays_overrides_on_top(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("\n".join(_lines(TINY)))
    assert load_run(path).config == validate(RunConfig, TINY, "tiny")
    run = load_run(path, ["run.seed=7", "tokenizer.train.steps=3"])
    assert (run.config.run.seed, run.config.tokenizer.train.steps) == (7, 3)
    assert run.config.dynamics == load_run(path).config.dynamics
    assert run.folder == tmp_path


def _lines(data: dict[str, Any]) -> list[str]:
    return [f"{name} = {value_text(table)}" for name, table in data.items()]


def test_a_run_does_not_lean_on_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('preset = "tiny"\n')
    with pytest.raises(ConfigError, match="unknown key preset"):
        load_run(path)


def test_every_artifact_has_its_place(tmp_path: Path) -> None:
    run = preset_run("tiny", tmp_path)
    places = [run.episodes, run.tokenizer, run.latents, run.packed, run.dynamics, run.agent, run.imagination]
    places.append(run.evaluation)
    assert len(set(places)) == len(places)
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert run.imagination == tmp_path / "imagination" / "imagination.safetensors"
    assert Run(run.config, tmp_path, tmp_path / "elsewhere").episodes == tmp_path / "elsewhere"


def test_data_run_without_a_config_takes_tiny_only_with_leave_and_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    run = load_data_run(None, ["data.env=A/B-v0"], store, preset=True)
    assert run.episodes == store
    assert run.config == validate(RunConfig, apply_overrides(TINY, ["data.env=A/B-v0", "data.policy=auto"]), "x")
    for config, place, leave in ((None, None, True), (None, store, False), (Path("given.toml"), store, True)):
        with pytest.raises(InputError):
            load_data_run(config, [], place, preset=leave)


def test_data_run_prefers_the_config_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("\n".join(_lines(apply_overrides(TINY, ["run.seed=9"]))))
    run = load_data_run(None, [], tmp_path / "store", preset=True)
    assert (run.config.run.seed, run.episodes) == (9, tmp_path / "store")
    assert load_data_run(None, [], None, preset=False).episodes == Path("episodes")


def test_config_brings_no_torch() -> None:
    code = (
        "import sys, ahriuwu_cli.pipeline.config as c; c.preset_run('tiny', c.Path('x')); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_presets_are_in_the_package() -> None:
    import ahriuwu_cli

    folder = Path(ahriuwu_cli.__file__).parent / "presets"
    for name in preset_names():
        text = (folder / f"{name}.toml").read_text(encoding="utf-8")
        assert text.startswith("# "), "a preset begins with what machine it is for"
        assert tomllib.loads(text) == load_preset(name)
