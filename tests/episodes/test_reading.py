"""Raw frames are bytes of the size that the manifest says, whatever the file holds."""

from pathlib import Path

import pytest
import torch

from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.tensorfile import write_tensors
from ahriuwu_cli.episodes.reading import RawFrames

SPEC = FrameSpec(height=8, width=10, fps=10.0)


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (torch.zeros(5, 8, 10, 3), "F32"),
        (torch.zeros(4, 8, 10, 3, dtype=torch.uint8), "U8 (4, 8, 10, 3)"),
        (None, "missing"),
    ],
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: torch.Tensor | None, found: str) -> None:
    path = tmp_path / "000000.safetensors"
    write_tensors(path, {"rewards": torch.zeros(4)} | ({} if frames is None else {"frames": frames}), {})
    with pytest.raises(ArtifactError, match="frames is") as caught:
        RawFrames(path, 5, SPEC)
    assert found in caught.value.message
