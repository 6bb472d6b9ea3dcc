"""torch.compile in place, of what trains or dreams; where it fails, a line says why and it goes on as it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.device import is_out_of_memory
from ahriuwu_cli.core.training.recompute import Recomputing, recomputing_parts

BACKEND = "inductor"
VARIANTS = 64
"""How often torch may compile the code of one block anew (batch shapes, with and without gradients, kinds of block)."""

Tell = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Where messages go."""
    print(line, file=sys.stderr)


def as_written() -> AbstractContextManager[object]:
    """Context in which compiled blocks run as they are written."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


class CompiledBlocks:
    """Modules that run compiled code, until `give_up`.

    Args:
        blocks: modules after `nn.Module.compile`.
        tell: takes the one line that says why they do so no longer.
    """

    def __init__(self, blocks: Sequence[nn.Module], tell: Tell) -> None:
        self.blocks, self._tell = blocks, tell

    def give_up(self, error: Exception) -> None:
        """Let all of them run as they are written from now on."""
        for block in self.blocks:
            block._compiled_call_impl = None  # what nn.Module.compile sets and nn.Module.__call__ reads
        self._tell(f"going on without run.compile: {_reason(error)}")

    def fall_back(self) -> None:
        """Give up by itself where compiled code fails: the block is computed again as it is written."""
        for block in self.blocks:
            compiled = block._compiled_call_impl
            assert compiled is not None
            block._compiled_call_impl = partial(self._try, block, compiled)  # type: ignore[assignment]

    def _try(self, block: nn.Module, compiled: Callable[..., Tensor], *args: object) -> Tensor:
        try:
            return compiled(*args)
        except Exception as error:  # a fault of the block itself comes again below
            if is_out_of_memory(error):
                raise
            self.give_up(error)
        result: Tensor = block(*args)
        return result


def compile_blocks(module: nn.Module, tell: Tell) -> CompiledBlocks | None:
    """Compile the stacks of a module in place: the blocks of its `Recomputing` parts.

    Blocks that lie in a `ModuleList` are compiled one by one, so that like blocks share their code however deep the
    stack is; a part without such a list is compiled whole. The state dict keeps its names.

    Args:
        module: a stage's module, its `requires_grad` set, or one that is not trained.
        tell: takes the one line that says why nothing is compiled.

    Returns:
        What was compiled; the work itself is done in the first calls, which may fail. None when there is nothing to
        compile or no compiler.
    """
    blocks = [block for part in recomputing_parts(module) for block in _blocks(part)]
    compiled = CompiledBlocks(blocks, tell)
    if not blocks:
        tell("run.compile has no effect: nothing here can be compiled")
        return None
    try:
        from torch._dynamo import config  # takes a second

        config.recompile_limit = max(config.recompile_limit, VARIANTS)
        for block in blocks:
            block.compile(backend=BACKEND, dynamic=False)  # there are few batch shapes
    except Exception as error:  # no compiler for this Python or on this platform
        compiled.give_up(error)
        return None
    return compiled


def compile_dreams(module: nn.Module, tell: Tell = to_stderr) -> None:
    """Compile the stacks of a module that is not trained any more, as `compile_blocks` does.

    Where that fails, in the first calls of its blocks at the latest, they run as they are written. A block may be
    called twice for that: what it writes must be the same the second time.
    """
    compiled = compile_blocks(module, tell)
    if compiled is not None:
        compiled.fall_back()


def is_compiled(module: nn.Module) -> bool:
    """Tell whether a part of a module runs compiled code."""
    return any(part._compiled_call_impl is not None for part in module.modules())


def without_kept_code() -> AbstractContextManager[object]:
    """Context in which torch finds no code that it compiled in an earlier process: to measure how long it takes."""
    from torch._inductor.utils import fresh_cache

    empty: AbstractContextManager[object] = fresh_cache()
    return empty


def _blocks(part: Recomputing) -> list[nn.Module]:
    return [block for child in part.children() if isinstance(child, nn.ModuleList) for block in child] or [part]


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of a chain of exceptions."""
    *_, root = _chain(error)
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0]}" if lines else type(root).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__  # dynamo's own way of wrapping
