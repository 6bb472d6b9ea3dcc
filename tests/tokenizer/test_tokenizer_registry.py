"""Tokenizers by name: built-in ones, those of other packages, and names nobody knows."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from typing import Any, Literal

import pytest

from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.tokenizer.config import CnnModel, TokenizerModel, TokenizerSection, TransformerModel
from ahriuwu_cli.tokenizer.registry import CONFIGS, MODULES, config_class, module_class

TRAIN = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3}


class FlatModel(TokenizerModel):
    """The config of a tokenizer in somebody else's package."""

    type: Literal["flat"] = "flat"
    depth: int = 2


def section(model: Any) -> TokenizerSection:
    return validate(TokenizerSection, {"model": model, "train": TRAIN}, "run.toml")


def refusal(model: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        section(model)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_every_config_has_its_module() -> None:
    assert CONFIGS.names() == MODULES.names() == ["cnn", "cosmos", "transformer"]
    for name in MODULES.names():
        assert config_class(name).model_fields["type"].default == name
        assert module_class(name).__annotations__["config"] == config_class(name).__name__


def test_the_type_picks_the_config() -> None:
    assert isinstance(section({"type": "transformer"}).model, TransformerModel)
    assert isinstance(section({"patch": 16}).model, CnnModel)
    assert section({"type": "cnn", "patch": 16}).model_dump()["model"]["patch"] == 16


def test_unknown_name_lists_the_known_ones() -> None:
    message = refusal({"type": "cosmic"}).message
    assert "unknown tokenizer 'cosmic'; known: cnn, cosmos, transformer" in message
    assert "config'" not in message


@pytest.mark.parametrize("registry", [CONFIGS, MODULES])
def test_messages_say_tokenizer(registry: Any) -> None:
    with pytest.raises(ValueError, match=r"^unknown tokenizer 'x'; known: cnn, cosmos, transformer$"):
        registry.load("x")


@pytest.mark.parametrize("model", ["cnn", 3, ["cnn"], {"type": 3}, {"type": ["cnn"]}, {"type": None}])
def test_what_is_no_table_with_a_name(model: Any) -> None:
    assert "a table" in refusal(model).message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"type": "cnn", "patch": "8"}, 'tokenizer.patch is "8"; expected an integer from 2 to 64'),
        ({"type": "cnn", "patch": True}, "patch is true; expected an integer"),
        ({"type": "cnn", "patch": 128}, "patch is 128; expected an integer from 2 to 64"),
        ({"type": "cnn", "patch": 12}, "patch must be a power of two, found 12"),
        ({"type": "cnn", "dim": 64}, "unknown key model.dim"),
        ({"type": "transformer", "dim": 99}, "dim 99 must be an even multiple of num_heads 4"),
    ],
)
def test_values_are_taken_as_they_are(model: Any, message: str) -> None:
    assert message.removeprefix("tokenizer.") in refusal(model).message


def test_another_package_adds_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = types.ModuleType("elsewhere_tokenizers")
    elsewhere.FlatModel, elsewhere.FlatTokenizer = FlatModel, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere_tokenizers", elsewhere)
    groups = {
        "ahriuwu.tokenizer-config": [("flat", "elsewhere_tokenizers:FlatModel"), ("cnn", "elsewhere_tokenizers:No")],
        "ahriuwu.tokenizer": [("flat", "elsewhere_tokenizers:FlatTokenizer")],
    }
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda *, group: [importlib.metadata.EntryPoint(*entry, group) for entry in groups.get(group, [])],
    )
    assert config_class("flat") is FlatModel
    assert module_class("flat") is object
    assert section({"type": "flat", "depth": 5}).model == FlatModel(depth=5)
    assert section({"type": "flat"}).model_dump()["model"] == {"type": "flat", "depth": 2}
    assert config_class("cnn") is CnnModel  # the built-in one stays
    assert "known: cnn, cosmos, flat, transformer" in refusal({"type": "x"}).message
