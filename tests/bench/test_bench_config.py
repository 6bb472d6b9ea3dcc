"""The reference work, and how a file and overrides change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ahriuwu_cli.bench.config import BenchConfig, load_bench
from ahriuwu_cli.core.errors import ConfigError


def test_the_reference_work_is_what_the_figures_are_about() -> None:
    work = BenchConfig()
    model = work.dynamics.model
    sizes = (model.dim, model.num_layers, model.num_heads, model.num_kv_heads, model.time_every, model.num_registers)
    assert sizes == (256, 8, 4, 4, 4, 4)
    assert (model.feed_width, model.num_action_tokens, model.soft_cap) == (1152, 1, None)
    assert (work.latent.num_tokens, work.latent.dim_token, work.latent.num_actions) == (16, 32, 6)
    assert (work.dynamics.length, work.dynamics.batch_size) == (32, 4)
    assert work.dynamics.objective.bootstrap_fraction == 0.25
    assert (work.sampler.steps, work.sampler.context_length, work.sampler.batch_size) == (4, 32, 1)
    assert (work.frame.height, work.frame.width) == (64, 64)
    tokenizer = work.tokenizer.model.model_dump()
    wanted = {"type": "transformer", "dim": 256, "num_encoder_layers": 8, "num_decoder_layers": 8, "patch": 8}
    wanted |= {"num_bottleneck": 16, "dim_bottleneck": 32, "num_tokens": 16}
    assert {key: tokenizer[key] for key in wanted} == wanted
    assert (work.tokenizer.clip_length, work.tokenizer.batch_size, work.tokenizer.also_patch) == (8, 4, 16)
    assert (work.run.device, work.run.precision, work.run.threads, work.run.compile) == ("cpu", "fp32", 2, False)


def test_overrides_change_one_value_and_leave_the_rest_of_the_reference() -> None:
    changed = load_bench(None, ["dynamics.model.dim=512", "sampler.context_length=8"])
    reference = BenchConfig()
    assert changed.dynamics.model == reference.dynamics.model.model_copy(update={"dim": 512})
    assert changed.sampler == reference.sampler.model_copy(update={"context_length": 8})
    assert changed.tokenizer == reference.tokenizer


def test_changed_work_is_not_called_that_of_the_reference() -> None:
    assert load_bench(None).run.name == "reference work"
    assert (
        load_bench(None, ["run.precision=bf16", "timing.repeats=3", "sampler.frames=50"]).run.name == "reference work"
    )
    assert load_bench(None, ["dynamics.length=16"]).run.name == "other work"
    assert load_bench(None, ["dynamics.length=16", "run.name=mine"]).run.name == "mine"


def test_a_file_lies_under_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "work.toml"
    path.write_text("[dynamics]\nlength = 7\nbatch_size = 2\n[dynamics.model]\nnum_layers = 4\n")
    work = load_bench(path, ["dynamics.length=9"]).dynamics
    assert (work.length, work.batch_size, work.model.num_layers, work.model.dim) == (9, 2, 4, 256)


def test_a_tokenizer_of_another_type_starts_from_its_own_defaults() -> None:
    from ahriuwu_cli.tokenizer.config import CnnModel

    work = load_bench(None, ["tokenizer.model.type=cnn", "tokenizer.model.patch=4"])
    assert work.tokenizer.model == CnnModel(patch=4)
    same = load_bench(None, ["tokenizer.model.type=transformer", "tokenizer.model.patch=4"])
    assert same.tokenizer.model == BenchConfig().tokenizer.model.model_copy(update={"patch": 4})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("timing.repeats=0", "an integer from 1"),
        ("dynamics.lenght=3", "nearest valid key: dynamics.length"),
        ("tokenizer.model.type=vq", "vq"),
        ("tokenizer.model=3", "a table with a `type` key"),
        ("train.steps=5", "unknown key train.steps"),
    ],
)
def test_what_cannot_be_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bench(None, [override])
    assert message in caught.value.message
