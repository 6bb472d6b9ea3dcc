"""One TorchScript file of a Cosmos tokenizer: hashed, loaded when first used, run in its own number format.

TorchScript files are programs: loading and running one runs the code in it. Nothing is opened here but the file
that the config names, and only with the content that was hashed.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.errors import ArtifactError, InputError

PUBLISHED_DTYPE = torch.bfloat16
"""Of the published files; taken where a file has no tensor of its own to tell."""

MISSING_HINT = (
    "put encoder.jit and decoder.jit of the tokenizer there, or name their folder in tokenizer.model.path "
    "and run `ahriuwu tokenizer train`"
)


class ScriptFile:
    """A TorchScript module in a file.

    Args:
        path: the file.

    Raises:
        InputError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist; expected a TorchScript file there", hint=MISSING_HINT)
        self.path = path
        self.sha256 = hash_file(path)
        self._module: Any = None
        self._device: torch.device | None = None
        self._dtype = PUBLISHED_DTYPE

    def __call__(self, x: Tensor) -> Tensor:
        """Run the module on x, on its device: fp32 in, the first (or only) output back in fp32, no gradients.

        Raises:
            ArtifactError: the file changed since it was hashed, is no TorchScript, or fails on such an input.
        """
        self._load(x.device)
        try:
            # The module brings its own number format: autocast would run an fp32 module in another.
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                out = self._module(x.to(self._dtype))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ArtifactError(
                f"{self.path} fails on an input of shape {tuple(x.shape)}: {_last_line(error)}",
                hint="check that tokenizer.model.kind is that of the files, and that they run on this device",
            ) from error
        first: Tensor = out[0] if isinstance(out, tuple | list) else out
        return first.float()

    def _load(self, device: torch.device) -> None:
        """Have the module on `device`."""
        if self._module is None:
            content = self.path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != self.sha256:
                raise ArtifactError(
                    f"{self.path} has sha256 {found}, but had {self.sha256} a moment ago",
                    hint="leave the tokenizer's files alone while they are used, and run the command again",
                )
            self._module = _load_script(self.path, content, device)
            tensors = (*self._module.parameters(), *self._module.buffers())
            self._dtype = next((t.dtype for t in tensors if t.is_floating_point()), PUBLISHED_DTYPE)
        elif device != self._device:
            self._module.to(device)
        self._device = device


def _load_script(path: Path, content: bytes, device: torch.device) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what these tokenizers come as
            return torch.jit.load(io.BytesIO(content), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not a TorchScript file that can be read here: {_last_line(error)}",
            hint="download the file again; it must be the .jit file of a Cosmos tokenizer",
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
