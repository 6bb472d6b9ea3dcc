"""torch.compile while training, in place; where it fails, one line says why and training goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from ahriuwu_cli.core.training.recompute import Recomputing, learning_parts

BACKEND = "inductor"
VARIANTS = 64
"""How often torch may compile the code of one block anew (batch shapes, with and without gradients, kinds of block)."""

Tell = Callable[[str], None]


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


def compile_blocks(module: nn.Module, tell: Tell) -> CompiledBlocks | None:
    """Compile the stacks of a module in place: the blocks of its `Recomputing` parts that hold something that learns.

    Blocks that lie in a `ModuleList` are compiled one by one, so that like blocks share their code however deep the
    stack is; a part without such a list is compiled whole. The state dict keeps its names. A part in which nothing
    learns is left alone: dreams run through it with a cache that grows, for which torch would compile again and again.

    Args:
        module: a stage's module, its `requires_grad` set.
        tell: takes the one line that says why nothing is compiled.

    Returns:
        What was compiled; the work itself is done in the first calls, which may fail. None when there is nothing to
        compile or no compiler.
    """
    blocks = [block for part in learning_parts(module) for block in _blocks(part)]
    compiled = CompiledBlocks(blocks, tell)
    if not blocks:
        tell("run.compile has no effect: nothing that learns here can be compiled")
        return None
    try:
        from torch._dynamo import config  # takes a second

        config.recompile_limit = max(config.recompile_limit, VARIANTS)
        for block in blocks:
            block.compile(backend=BACKEND, dynamic=False)  # a training has few batch shapes
    except Exception as error:  # no compiler for this Python or on this platform
        compiled.give_up(error)
        return None
    return compiled


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
