"""Kinds `prototype-latents` and `prototype-checkpoint`: what is there is told, and why it is not imported."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
from ahriuwu_cli.dynamics.config import DynamicsModelConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.sources.imports.prototype_checkpoint import PrototypeCheckpointImporter
from ahriuwu_cli.sources.imports.prototype_latents import PrototypeLatentsImporter
from ahriuwu_cli.tokenizer.config import CnnModel, TransformerModel
from ahriuwu_cli.tokenizer.registry import module_class

CNN = {
    "encoder.stem.0.weight": (8, 3, 7, 7),
    "encoder.stem.1.running_mean": (8,),
    **{f"encoder.stage{n}.conv1.weight": (16, 8, 3, 3) for n in range(1, 5)},
    "encoder.stage1.bn1.weight": (16,),
    "decoder.head.3.weight": (3, 8, 3, 3),
}
TRANSFORMER = {
    "patch_embed.proj.weight": (64, 3, 16, 16),
    "encoder.latent_tokens": (1, 4, 64),
    **{f"encoder.blocks.{n}.attn.{p}_proj.weight": (64, 64) for n in range(3) for p in ("q", "k", "v", "out")},
    **{f"encoder.blocks.{n}.norm1.weight": (64,) for n in range(3)},
    **{f"encoder.blocks.{n}.ffn.w2.weight": (64, 128) for n in range(3)},
    "encoder.space_mask": (4, 4),
    "bottleneck.proj.weight": (8, 64),
    "mask_embed": (64,),
}
DYNAMICS = {
    "input_proj.weight": (64, 8),
    "register_tokens": (1, 1, 2, 64),
    "tau_embed.weight": (64, 64),
    "action_embed.Q.weight": (2, 64),
    "blocks.0.attn.q_proj.weight": (64, 64),
}


def save(path: Path, shapes: dict[str, tuple[int, ...]], prefix: str = "", **more: Any) -> Path:
    """A checkpoint as the prototype's training saved it."""
    state = {prefix + name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save({"epoch": 3, "global_step": 7, "model_state_dict": state, "loss": 0.5} | more, path)
    return path


def refused(importer: Any, source: Path) -> InputError:
    with pytest.raises(InputError) as told:
        importer.open_source(source, {})
    assert "\n" not in told.value.message
    return told.value


@pytest.mark.parametrize(
    ("shapes", "what", "listed"),
    [
        (
            CNN,
            "a convolutional tokenizer",
            ["encoder.stage1.bn1.weight (1, 16: batch norm", "encoder.stem.*.weight"],
        ),
        (
            TRANSFORMER,
            "a transformer tokenizer",
            ["encoder.blocks.*.attn.q_proj.weight (3, 64x64: queries, keys", "encoder.blocks.*.norm1.weight (3, 64:"],
        ),
        (DYNAMICS, "nobody can tell which way", ["tau_embed.weight (1, 64x64: signal", "action_embed.Q.weight (1"]),
    ],
)
def test_a_checkpoint_is_refused_with_what_does_not_map(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], what: str, listed: list[str]
) -> None:
    path = save(tmp_path / "best.pt", shapes, prefix="module._orig_mod.", args=Namespace(lr=1e-4))
    assert PrototypeCheckpointImporter().detect(tmp_path)
    error = refused(PrototypeCheckpointImporter(), path)
    assert what in error.message
    assert f"none of its {len(shapes)} tensors" in error.message
    for part in listed:
        assert part in error.message
    assert "data import prototype" in error.hint
    assert refused(PrototypeCheckpointImporter(), tmp_path).message == error.message


def test_the_way_of_signal_levels_is_known_where_a_config_or_an_older_name_is(tmp_path: Path) -> None:
    known = refused(PrototypeCheckpointImporter(), save(tmp_path / "a.pt", DYNAMICS, model_config={"dim": 64}))
    assert "nobody can tell" not in known.message
    older = {name.replace("tau_embed", "time_embed"): shape for name, shape in DYNAMICS.items()}
    assert "the other way" in refused(PrototypeCheckpointImporter(), save(tmp_path / "b.pt", older)).message


def test_no_tensor_of_the_prototype_has_its_name_and_shape_here() -> None:
    frame = FrameSpec(height=256, width=256, fps=20)
    action = ActionSpec(components=(ActionComponent(name="keys", type="binary", dim=8, aggregate="any"),))
    latent = LatentSpec(num_tokens=256, dim_token=32, layout="16x16")
    here: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        for model in (
            module_class("cnn")(CnnModel(), frame),  # type: ignore[call-arg]
            module_class("transformer")(TransformerModel(), frame),  # type: ignore[call-arg]
            DynamicsModel(DynamicsModelConfig(), latent, action),
        ):
            here |= {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(here) > 20
    there = CNN | TRANSFORMER | DYNAMICS
    assert not {name for name in there if here.get(name) == there[name]}
    assert not set(there) & set(here)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    path = save(tmp_path / "trap.pt", CNN, args=Trap(tmp_path / "sprung"))
    error = refused(PrototypeCheckpointImporter(), path)
    assert "more than tensors and plain values" in error.message
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    assert "no checkpoint" in refused(PrototypeCheckpointImporter(), tmp_path).message
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 broken")
    assert PrototypeCheckpointImporter().detect(tmp_path) is None
    assert "no checkpoint" in refused(PrototypeCheckpointImporter(), tmp_path).message
    torch.save({"model_state_dict": {}}, tmp_path / "empty.pt")
    assert "holds no tensors" in refused(PrototypeCheckpointImporter(), tmp_path / "empty.pt").message
    cut = save(tmp_path / "cut.pt", CNN)
    cut.write_bytes(cut.read_bytes()[:-300])
    assert "no checkpoint" in refused(PrototypeCheckpointImporter(), cut).message


def test_latents_are_refused_with_what_there_is(tmp_path: Path) -> None:
    for video in ("a", "b"):
        (tmp_path / video).mkdir()
        for number in range(3):
            np.save(tmp_path / video / f"latent_{number:06d}.npy", np.zeros((32, 16, 16), np.float16))
    assert PrototypeLatentsImporter().detect(tmp_path) == "latents of 2 videos, a file for each frame of 32x16x16"
    error = refused(PrototypeLatentsImporter(), tmp_path)
    assert "latents are no episodes" in error.message
    assert "latents build" in error.hint


def test_packed_latents_are_refused_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", latents=np.zeros((5, 32, 16, 16), np.float16), frame_indices=np.arange(5, dtype="i4"))
    assert PrototypeLatentsImporter().detect(tmp_path) == "latents of 1 videos, packed (v.npz: 5x32x16x16)"
    torch.save({"latents": torch.zeros(5, 32, 16, 16).half(), "frame_indices": torch.arange(5)}, tmp_path / "w.pt")
    assert "latents of 2 videos" in refused(PrototypeLatentsImporter(), tmp_path).message
    assert "latents of 1 videos, packed" in refused(PrototypeLatentsImporter(), tmp_path / "w.pt").message
    assert PrototypeCheckpointImporter().detect(tmp_path) is None
    np.savez(tmp_path / "v.npz", image=np.zeros((5, 8, 8, 3), np.uint8))
    (tmp_path / "w.pt").unlink()
    assert PrototypeLatentsImporter().detect(tmp_path) is None
    assert "has no latents" in refused(PrototypeLatentsImporter(), tmp_path).message
