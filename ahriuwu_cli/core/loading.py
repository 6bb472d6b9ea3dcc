"""From what a file holds to something that can be used: one error for what makes no sense, sizes compared first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ahriuwu_cli.core.device import is_out_of_memory
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, DeviceError

M = TypeVar("M", bound=nn.Module)

NAMED = 3  # tensors that a message names


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while the content of `path` is made sense of into one ArtifactError.

    What a file says is somebody's input, sealed or not: a key that is missing, a value of another type or a size that
    no model has must not come out as a fault of ours.
    """
    try:
        yield
    except AhriuwuError:
        raise
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise _senseless(path, f"{place}: {fault['msg']}" if place else fault["msg"]) from error
    except KeyError as error:
        raise _senseless(path, f"{error} is missing") from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise _senseless(path, str(error)) from error


def _senseless(path: Path, detail: str) -> ArtifactError:
    return ArtifactError(
        f"{path} does not hold what an artifact of its kind holds: {' '.join(detail.split())[:300]}",
        hint="it was changed, or written by another version of this program; make it again",
    )


# ---------------------------------------------------------------- modules


def build_module(path: Path, build: Callable[[], M], tensors: Mapping[str, Tensor]) -> M:
    """The module that a file's config describes, with the file's weights.

    It is first built without memory (on the meta device) and compared with the tensors that are there: a config of
    256 layers of 8192 takes 9 GB, the file that claims it may have 200 KB.

    Args:
        path: of the file, for messages.
        build: makes the module; it must not look at values (true of all that `estimate_step_memory` takes).
        tensors: of the file.

    Raises:
        ArtifactError: the config makes no sense, or the tensors are not those of its module.
        DeviceError: it is sound, and larger than the memory there is.
    """
    with reading(path), torch.device("meta"):
        shell = build()
    require_fit(shell, tensors, path)
    try:
        module = build()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"there is not enough memory for the model in {path}", hint="close other programs, or use another machine"
        ) from error
    load_strictly(module, tensors, path)
    return module


def require_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors of other names, shapes or types than those of a module."""
    wanted = module.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name} is unknown" for name in tensors if name not in wanted]
    for name, tensor in wanted.items():
        found = tensors.get(name)
        if found is not None and (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            faults.append(f"{name} is {_kind(found)}, expected {_kind(tensor)}")
    if faults:
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise ArtifactError(
            f"{path} does not fit the model its own config describes: {'; '.join(faults[:NAMED])}{more}",
            hint="the file was changed, or written by another version of the model; make it again",
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module; names, shapes and types must match exactly.

    Raises:
        ArtifactError: they do not.
    """
    require_fit(module, tensors, path)
    module.load_state_dict(dict(tensors), strict=True)


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity: whatever is made with them would be no result (pitfall 15).

    Raises:
        ArtifactError: the tensor is named.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ArtifactError(
                f"{path} holds numbers that are not finite in {name}",
                hint="training broke down before it was written; make it again with a lower learning rate",
            )
