"""Reading a tokenizer from its file: built from the file alone, strictly, bit for bit the one that was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ahriuwu_cli.core.artifact import write_weights
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.protocol import Tokenizer

CPU = torch.device("cpu")
Draw = Callable[..., torch.Tensor]


def save(path: Path, tokenizer: Tokenizer, tensors: dict | None = None, model: dict | None = None, **specs: object):
    """As `tokenizer train` writes it, with parts to change."""
    return write_weights(
        path,
        "tokenizer",
        tokenizer.state_dict() if tensors is None else tensors,
        config={"model": tokenizer.config.model_dump() if model is None else model, "clip_length": 1},
        specs={"frame": tokenizer.frame.model_dump(), "latent": tokenizer.latent_spec.model_dump(), **specs},
        parents={"episodes": "0123456789abcdef"},
    )


def test_outputs_are_bit_equal(tmp_path: Path, tokenizer: Tokenizer, draw_pixels: Draw) -> None:
    """Pitfall 1: a model rebuilt from anything but its file, loaded loosely, gives other outputs."""
    header = save(tmp_path / "t.safetensors", tokenizer)
    torch.manual_seed(99)
    loaded, found = load_tokenizer(tmp_path / "t.safetensors", CPU)
    assert found.fingerprint == header.fingerprint
    assert type(loaded) is type(tokenizer)
    assert loaded.config == tokenizer.config
    assert loaded.frame == tokenizer.frame
    assert loaded.latent_spec == tokenizer.latent_spec
    pixels = draw_pixels(2, 3)
    latents = tokenizer.requires_grad_(False).encode(pixels)
    assert torch.equal(loaded.encode(pixels), latents)
    assert torch.equal(loaded.decode(latents), tokenizer.decode(latents))


def test_it_comes_ready_for_use(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(tmp_path / "t.safetensors", tokenizer.train())
    loaded, _ = load_tokenizer(tmp_path / "t.safetensors", CPU)
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("fault", ["missing", "unknown", "reshaped"])
def test_tensors_must_fit_exactly(tmp_path: Path, tokenizer: Tokenizer, fault: str) -> None:
    """Pitfall 1: strict=False dropped 36 norm tensors without a word."""
    tensors = tokenizer.state_dict()
    name = next(iter(tensors))
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        name = "encoder.extra"
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = tensors[name][:1].clone()
    path = tmp_path / "t.safetensors"
    save(path, tokenizer, tensors)
    with pytest.raises(ArtifactError, match=rf"t.safetensors does not fit .*{name}"):
        load_tokenizer(path, CPU)


@pytest.mark.parametrize(
    "model",
    [{}, {"type": "elsewhere"}, {"type": "cnn", "patch": 7}, {"type": "cnn", "flavour": 1}, {"type": 3}],
    ids=["no type", "type of another package", "value refused", "unknown key", "no text"],
)
def test_a_config_from_elsewhere_is_one_clear_line(
    tmp_path: Path, make_cnn: Callable[..., Tokenizer], model: dict
) -> None:
    path = tmp_path / "t.safetensors"
    save(path, make_cnn(), model=model)
    with pytest.raises(ArtifactError, match="describes no tokenizer that is known here") as caught:
        load_tokenizer(path, CPU)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_file_changed_after_writing_is_refused(tmp_path: Path, make_cnn: Callable[..., Tokenizer]) -> None:
    path = tmp_path / "t.safetensors"
    save(path, make_cnn())
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="fingerprint"):
        load_tokenizer(path, CPU)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        load_tokenizer(tmp_path / "none.safetensors", CPU)
    assert "ahriuwu tokenizer train" in caught.value.hint
