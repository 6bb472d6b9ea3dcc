"""torch.compile behind a flag: the same training when it works, and when it does not."""

from __future__ import annotations

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from ahriuwu_cli.core.artifact import read_weights
from ahriuwu_cli.core.device import Runtime, resolve_runtime
from ahriuwu_cli.core.errors import DeviceError
from ahriuwu_cli.core.training import compilation
from ahriuwu_cli.core.training.compilation import compile_blocks, compile_dreams, is_compiled
from ahriuwu_cli.core.training.config import RunSection
from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.recompute import Recomputing, set_recompute
from ahriuwu_cli.core.training.sinks import read_metrics

COMPILED = Runtime(torch.device("cpu"), "fp32", compile=True)


def warnings(folder) -> list[str]:
    return [line["warning"] for line in read_metrics(folder / "metrics.jsonl") if "warning" in line]


def test_compiled_training_is_the_same_training(tmp_path, toy, settings, cpu, backend):
    """State dict keys, artifact and bits are those of the module as written."""
    plain = train(toy(), settings(), cpu, tmp_path / "plain", resume=False, seed=0)
    assert backend == []
    stage = toy()
    names = list(stage.module.state_dict())
    compiled = train(stage, settings(), COMPILED, tmp_path / "compiled", resume=False, seed=0)
    assert len(backend) >= 1
    assert warnings(tmp_path / "compiled") == []
    assert list(stage.module.state_dict()) == names
    assert compiled.header.fingerprint == plain.header.fingerprint


def absent() -> object:
    return "no-such-backend"


def first_call() -> object:
    def fail(graph, inputs):
        raise RuntimeError("no working C++ compiler found\ninstall one")

    return fail


def backward_pass() -> object:
    def fail(graph, inputs):
        raise RuntimeError("no working C++ compiler found\ninstall one")

    return aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=fail)


def second_graph() -> object:
    graphs = []

    def once(graph, inputs):
        graphs.append(graph)
        if len(graphs) > 1:
            raise RuntimeError("no working C++ compiler found\ninstall one")
        return graph.forward

    return once


class Broken(Recomputing):
    """A net of two graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.dropout = nn.Linear(4, 8), nn.Linear(8, 4), nn.Dropout(0.1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        hidden = self.call(lambda y: self.dropout(torch.tanh(self.inner(y))), x)
        torch._dynamo.graph_break()
        return self.call(self.outer, hidden)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend_of", [absent, first_call, backward_pass, second_graph])
def test_training_goes_on_without_what_cannot_be_compiled(
    tmp_path, toy, settings, cpu, monkeypatch, backend_of, recompute
):
    """One line says why, and the result is to the bit that of a run that never compiled.

    Pitfall 25: also when a block that was computed by compiled code would be recomputed without.
    """

    class TwoGraphs(toy):
        def __init__(self) -> None:
            super().__init__()
            self.module = Broken()

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", backend_of())
    changes = {"steps": 3, "accumulate": 2, "recompute": recompute, "ema_decay": 0.9}
    compiled = train(TwoGraphs(), settings(**changes), COMPILED, tmp_path / "compiled", resume=False, seed=0)
    plain = train(TwoGraphs(), settings(**changes), cpu, tmp_path / "plain", resume=False, seed=0)
    [text] = warnings(tmp_path / "compiled")
    assert text.startswith("going on without run.compile: ")
    assert "\n" not in text
    assert ("no-such-backend" if backend_of is absent else "no working C++ compiler found") in text
    assert "install one" not in text
    assert compiled.header.fingerprint == plain.header.fingerprint
    torch._dynamo.reset()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


class Part(Recomputing):
    def __init__(self, learns: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).requires_grad_(learns)

    def forward(self, x):
        return self.layer(x)


class Deep(Recomputing):
    """Like blocks in a list, and a layer beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Layer() for _ in range(6))
        self.out = nn.Linear(3, 3)

    def forward(self, x):
        for block in self.blocks:
            x = self.call(block, x)
        return self.out(x)


def test_like_blocks_are_compiled_once(backend):
    """A deep stack takes no longer to compile than a shallow one."""
    stack, told, x = Deep(), [], torch.ones(2, 3, requires_grad=True)
    wanted = stack(x)
    compiled = compile_blocks(stack, told.append)
    torch.testing.assert_close(stack(x), wanted)
    assert compiled.blocks == list(stack.blocks)
    assert len(backend) == 1
    assert told == []


def test_giving_up_takes_the_compiled_code_out_of_every_block(backend):
    """Half a module compiled would be neither the one thing nor the other."""
    module, told, x = nn.Sequential(Part(), Deep(), Part()), [], torch.ones(2, 3)
    wanted = module(x)
    compiled = compile_blocks(module, told.append)
    assert len(compiled.blocks) == 8
    compiled.give_up(RuntimeError("no room\nfor another one"))
    assert all(block._compiled_call_impl is None for block in module.modules())
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=0)
    assert told == ["going on without run.compile: RuntimeError: no room"]
    assert backend == []


def test_the_stages_own_fault_comes_through(tmp_path, toy, settings, backend):
    """What is wrong without compiled code too ends the training as it always does."""
    with pytest.raises(RuntimeError, match="crash"):
        train(toy(crash_at=1), settings(), COMPILED, tmp_path, resume=False, seed=0)
    assert backend


def test_compiled_blocks_may_be_recomputed(backend):
    """Pitfall 25: gradients are those of the module as it is written."""
    stack, x, gradients = Deep(), torch.randn(2, 3, requires_grad=True), []
    for compiled, again in ((False, False), (True, False), (True, True)):
        if compiled and not backend:
            compile_blocks(stack, pytest.fail)
        set_recompute(stack, again)
        stack.zero_grad()
        stack(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in stack.parameters()])
    for found in gradients[1:]:
        for one, other in zip(gradients[0], found, strict=True):
            torch.testing.assert_close(one, other)
    assert backend


def test_what_is_no_stack_is_left_alone(backend):
    """A frozen stack is compiled like one that learns: imagination dreams through it."""
    module, told = nn.Sequential(Part(False), Part(True), nn.Linear(3, 3)), []
    assert compile_blocks(module, told.append).blocks == [module[0], module[1]]
    assert [part._compiled_call_impl is not None for part in module] == [True, True, False]
    assert compile_blocks(nn.Sequential(nn.Linear(3, 3)), told.append) is None
    assert told == ["run.compile has no effect: nothing here can be compiled"]


@pytest.mark.parametrize("backend_of", [absent, first_call, second_graph])
def test_dreams_go_on_without_what_cannot_be_compiled(monkeypatch, capsys, backend_of):
    """One line says why; whatever a block had been given, it gives what it gives as it is written."""
    module, x = nn.Sequential(Part(False), Deep(), Part(False)).eval(), torch.randn(2, 3)
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", backend_of())
    with torch.no_grad():
        wanted = module(x)
        compile_dreams(module)
        assert torch.equal(module(x), wanted)
        assert torch.equal(module(x), wanted)
    assert not is_compiled(module)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("going on without run.compile: ")
    torch._dynamo.reset()


def test_a_dreams_own_fault_comes_through(backend):
    module, told = nn.Sequential(Part(False)), []
    compile_dreams(module, told.append)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        module(torch.ones(2, 5))


def test_running_out_of_memory_is_no_reason_to_fall_back(tmp_path, toy, settings, monkeypatch):
    """Pitfall 26: the refusal and its hint are those of any other step."""

    def greedy(graph, inputs):
        def run(*args):
            raise torch.OutOfMemoryError("no")

        return run

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", greedy)
    with pytest.raises(DeviceError, match="out of memory in step 1") as caught:
        train(toy(), settings(), COMPILED, tmp_path, resume=False, seed=0)
    assert "recompute" in caught.value.hint
    assert warnings(tmp_path) == []
    torch._dynamo.reset()


def test_the_result_can_be_read_by_a_module_that_is_not_compiled(tmp_path, toy, settings, backend):
    """Pitfall 1: no wrapper's prefix in the names of the tensors."""
    train(toy(), settings(), COMPILED, tmp_path, resume=False, seed=0)
    _, stored = read_weights(tmp_path / "dynamics.safetensors", "dynamics")
    toy().module.load_state_dict(stored, strict=True)


def test_the_flag_is_off_unless_asked_for():
    assert not resolve_runtime(RunSection(device="cpu", precision="fp32")).compile
    run = RunSection(device="cpu", precision="fp32", compile=True, loader_workers=0)
    assert resolve_runtime(run) == COMPILED
