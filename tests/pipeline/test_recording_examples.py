"""The examples on one's own recordings: complete configs that fit the card they name, mappings that can be used."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ahriuwu_cli.agent import train as agent_training
from ahriuwu_cli.agent.checkpoint import agent_from_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.memory import GIB
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.dynamics import train as dynamics_training
from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
from ahriuwu_cli.imagination.memory import estimate_imagination_memory
from ahriuwu_cli.pipeline.config import RunConfig, load_run
from ahriuwu_cli.pipeline.template import render_config
from ahriuwu_cli.sources.imports.mapping import as_mapping, read_mapping
from ahriuwu_cli.sources.imports.registry import KINDS
from ahriuwu_cli.tokenizer import train as tokenizer_training

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("league/transformer", "league/cnn", "minecraft/vpt", "minecraft/minerl", "robot", "video")
MAPPINGS = ("league/mapping.toml", "video/mapping.toml")
CARD = 16.0
"""GiB of the card they are for."""
NEEDS = re.compile(r"GiB: tokenizer ([\d.]+), dynamics ([\d.]+), agent ([\d.]+), imagination ([\d.]+)\.")


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_stated_and_a_source_is_named(name: str) -> None:
    path = EXAMPLES / name / "run.toml"
    text, config = path.read_text(encoding="utf-8"), load_run(path).config
    opening, _, rest = text.partition("\n\n")
    assert all(line.startswith("#") for line in opening.splitlines())
    assert rest == render_config(config)
    assert config.data.source.kind in KINDS.names()
    assert config.data.source.path
    assert config.data.env == ""
    assert config.run.name in name.replace("/", "-")


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_what_the_config_tells(name: str) -> None:
    said = NEEDS.search((EXAMPLES / name / "run.toml").read_text(encoding="utf-8"))
    assert said is not None
    lines = (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith(f"| `{name}` |"))
    assert row.removesuffix(" |").rpartition("| ")[2] == ", ".join(said.groups())
    data = load_run(EXAMPLES / name / "run.toml").config.data
    if "the same" not in row:
        assert f"{data.height}x{data.width} at {data.fps:g} a second" in row
        assert f"(kind `{data.source.kind}`)" in row


@pytest.mark.parametrize("name", MAPPINGS)
def test_the_mappings_can_be_used(name: str) -> None:
    mapping = as_mapping(read_mapping(str(EXAMPLES / name)))
    assert mapping.actions
    assert mapping.reward is not None
    assert all(component.aggregate for component in mapping.action_spec().components)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_memory_that_is_told_is_the_programs_estimate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it leaves a quarter of the card to what the estimate does not count."""
    path = EXAMPLES / name / "run.toml"
    said = NEEDS.search(path.read_text(encoding="utf-8"))
    assert said is not None
    needs = estimates(load_run(path).config, monkeypatch)
    assert [float(each) for each in said.groups()] == pytest.approx(needs, abs=0.2)
    assert max(needs) < 0.75 * CARD


def estimates(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """GiB of one step of each training, in the order of the road."""
    found: list[float] = []
    for stage in (tokenizer_training, dynamics_training, agent_training):
        monkeypatch.setattr(stage, "require_memory", lambda runtime, needed, what: found.append(needed / GIB))
    runtime = Runtime(torch.device("cpu"), "bf16")
    frame = FrameSpec(height=config.data.height, width=config.data.width, fps=config.data.fps or 20)
    action = as_mapping(read_mapping(str(EXAMPLES / MAPPINGS[0]))).action_spec()
    with torch.device("meta"):
        latent = tokenizer_training.build_tokenizer(config.tokenizer, frame).latent_spec
    specs = WorldSpecs(action, frame, latent, ("play",))
    tokenizer_training.check_tokenizer_memory(config.tokenizer, frame, runtime)
    dynamics_training.check_dynamics_memory(config.dynamics, specs, runtime)
    agent_training.check_agent_memory(config.agent, config.dynamics.model, specs, runtime)
    sections = {"agent": config.agent.model_dump(), "dynamics": config.dynamics.model_dump()}
    header = SimpleNamespace(config=sections, specs=specs.dump())
    model = agent_from_header(header)  # type: ignore[arg-type]
    agent = SimpleNamespace(model=model, sampler=config.dynamics.sampler, specs=specs, header=header)
    return [*found, estimate_imagination_memory(config.imagine, agent, runtime) / GIB]  # type: ignore[arg-type]
