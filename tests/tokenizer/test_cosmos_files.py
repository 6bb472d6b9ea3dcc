"""The config of the cosmos tokenizer and its TorchScript files: what is refused, and when code runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ahriuwu_cli.core.config import validate
from ahriuwu_cli.core.errors import ArtifactError, ConfigError, InputError
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.config import TokenizerSection
from ahriuwu_cli.tokenizer.cosmos import CosmosTokenizer
from ahriuwu_cli.tokenizer.cosmos_config import CosmosModel

FRAME = FrameSpec(height=16, width=32, fps=10)
TRAIN = {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}


def noise(length: int) -> Tensor:
    return 2 * torch.rand(1, length, 3, FRAME.height, FRAME.width) - 1


def refusal(model: dict) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        validate(TokenizerSection, {"model": {"type": "cosmos"} | model, "train": TRAIN}, "run.toml")
    return caught.value


def test_bad_configs_are_refused() -> None:
    assert "path is missing" in refusal({}).message
    assert "pool" in refusal({"path": "x", "pool": 8}).message  # averaged tokens could not be decoded
    assert "kind" in refusal({"path": "x", "kind": "DV8x8x8"}).message
    assert "set both or none" in refusal({"path": "x", "resize_height": 64}).message
    assert "clip_overlap 6 must be below" in refusal({"path": "x", "clip_overlap": 6}).message


def test_missing_files_say_what_to_do(make_cosmos, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"encoder\.jit does not exist") as caught:
        CosmosTokenizer(CosmosModel(path=str(tmp_path)), FRAME)
    assert "tokenizer.model.path" in caught.value.hint


def test_nothing_is_loaded_before_it_is_used(cosmos_folder, tmp_path: Path) -> None:
    """A file's code runs when it is first needed, not when a header is looked at."""
    for name in ("encoder.jit", "decoder.jit"):
        (tmp_path / name).write_bytes(b"no TorchScript")
    tokenizer = CosmosTokenizer(CosmosModel(path=str(tmp_path)), FRAME)
    assert tokenizer.state_dict() == {}
    assert list(tokenizer.parameters()) == []
    with pytest.raises(ArtifactError, match=r"encoder\.jit is not a TorchScript file"):
        tokenizer.encode(noise(1))


def test_a_file_that_changes_while_it_is_used_is_refused(cosmos_files, tmp_path: Path) -> None:
    tokenizer = CosmosTokenizer(CosmosModel(path=str(cosmos_files(tmp_path))), FRAME)
    cosmos_files(tmp_path, seed=1)
    with pytest.raises(ArtifactError, match=tokenizer.encoder.sha256):
        tokenizer.encode(noise(1))


@pytest.mark.parametrize(
    ("stand_in", "said", "message"),
    [
        ("CI8x8", "CV8x8x8", "fails on an input of shape"),
        ("CV8x8x8", "CI8x8", "fails on an input of shape"),
        ("CI8x8", "CI16x16", r"encoder\.jit gives \(2, 16, 2, 4\); expected \(2, 16, 1, 2\) of a CI16x16"),
    ],
)
def test_files_of_another_kind_are_refused(cosmos_folder, stand_in: str, said: str, message: str) -> None:
    tokenizer = CosmosTokenizer(CosmosModel(path=str(cosmos_folder(kind=stand_in)), kind=said), FRAME)
    with pytest.raises(ArtifactError, match=message) as caught:
        tokenizer.check(noise(2))
    assert "tokenizer.model.kind" in caught.value.hint


def test_files_that_are_not_causal_are_refused(make_cosmos) -> None:
    """Pitfall 34: if latent 0 were not frame 0 alone, every action would stand at the wrong latent."""
    make_cosmos().check(noise(9))
    with pytest.raises(ArtifactError, match="is not causal: latent 0 moves"):
        make_cosmos(stand_in={"causal": False}).check(noise(9))
