"""What holds for every test: threads that sleep while they wait, no time limit on examples; shared small worlds."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded; 5x faster on a shared machine

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ahriuwu-cache-")  # what tests find out is nobody else's

import atexit
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from ahriuwu_cli.core.device import Runtime
    from ahriuwu_cli.dynamics.checkpoint import WorldSpecs
    from ahriuwu_cli.latents.windows import LatentBatch
    from ahriuwu_cli.pipeline.config import Run

atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

pytest_plugins = ["hand_made", "minuscule_run"]

settings.register_profile("house", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("house")

PACKED = (
    "run.device='cpu'",
    "run.precision='fp32'",
    "data.episodes=6",
    "data.noise=0.2",
    "data.max_episode_steps=30",
    "data.heldout_fraction=0.34",
    'tokenizer.model={type="cnn", patch=16, dim_token=4, base_channels=4, blocks_per_stage=0}',
    "dynamics.model={dim=16, num_layers=2, num_heads=2, num_kv_heads=1, time_every=2, num_registers=1, k_max=8}",
    "dynamics.sampler={steps=2, context_length=4}",
    "dynamics.short_length=5",
    "dynamics.long_length=6",
    "dynamics.long_every=2",
    "dynamics.train={steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=0}",
    "agent.heads={dim_hidden=8, mtp_length=3, num_buckets=11}",
    "agent.batch_length=6",
    "agent.train={steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=0}",
    "imagine.context_length=3",
    "imagine.horizon=3",
    "imagine.sampling_steps=2",
    "imagine.train={steps=4, batch_size=3, learning_rate=1e-2, warmup_steps=0}",
    "eval.contexts=3",
    "eval.context_length=4",
    "eval.horizon=4",
    "eval.episodes=3",
)
"""The preset tiny with the smallest models there can be: 4 tokens of 4 channels a frame, width 16."""


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[[Any, Path], None]:
    """Write a tokenizer as its training stage has it, untrained."""
    from ahriuwu_cli.core.artifact import write_weights

    def write(stage: Any, path: Path) -> None:
        fields = stage.describe()
        write_weights(
            path,
            "tokenizer",
            stage.module.state_dict(),
            config=fields.config,
            specs=fields.specs,
            parents=fields.parents,
            info=fields.info,
        )

    return write


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory, write_tokenizer: Callable[[Any, Path], None]) -> Run:
    """A run as far as packed latents: 6 episodes of the built-in game (4 train, 2 held out), untrained tokenizer.

    Read only. Later stages write into folders of the test's own.
    """
    from ahriuwu_cli.core.device import resolve_runtime
    from ahriuwu_cli.latents.build import build_latents
    from ahriuwu_cli.latents.pack import pack_latents
    from ahriuwu_cli.pipeline.config import preset_run
    from ahriuwu_cli.sources.record import record
    from ahriuwu_cli.tokenizer.train import TokenizerStage

    run = preset_run("tiny", tmp_path_factory.mktemp("packed_run"), PACKED)
    config, runtime = run.config, resolve_runtime(run.config.run)
    record(run.episodes, config.data, config.run.seed, policy=None, append=False, progress=None)
    stage = TokenizerStage(config.tokenizer, run.episodes, runtime, config.run.seed)
    write_tokenizer(stage, run.tokenizer)
    build_latents(run.episodes, run.tokenizer, run.latents, config.latents, runtime)
    pack_latents(run.episodes, run.latents, run.packed, config.latents)
    return run


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without TensorBoard, whose import takes seconds."""
    monkeypatch.setattr("ahriuwu_cli.core.training.sinks._open_tensorboard", lambda folder, step: None)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, int], None]:
    """Make a stage's training stop, as by Ctrl-C, after so many steps (0: never)."""
    originals: dict[type, Any] = {}

    def patch(stage: type, steps: int) -> None:
        original = originals.setdefault(stage, stage.loss)  # type: ignore[attr-defined]

        def loss(self: Any, step: int, batch: Any) -> Any:
            if step + 1 == steps:
                signal.raise_signal(signal.SIGINT)
            return original(self, step, batch)

        monkeypatch.setattr(stage, "loss", loss)

    return patch


@pytest.fixture(scope="session")
def cosmos_files() -> Callable[..., Path]:
    """Write TorchScript stand-ins of a Cosmos tokenizer into a folder, of the signature of the published ones.

    Channels 0-7 of a video's latent are the mean brightness of its 8 frames, in order (of latent 0: of frame 0), on
    each 8x8 square; the decoder paints these. `memory` latents before it are mixed into each; `causal=False` makes
    latent 0 of all 8 frames. Images have random filters.
    """

    def write(
        folder: Path,
        kind: str = "CV8x8x8",
        dtype: str = "float32",
        as_tuple: bool = False,
        memory: int = 0,
        causal: bool = True,
        seed: int = 0,
    ) -> Path:
        import torch
        from torch import nn
        from torch.nn import functional as F

        class Mixed(nn.Module):
            """Each latent and a quarter of those before it."""

            def forward(self, z: Tensor) -> Tensor:
                before = [F.pad(z, (0, 0, 0, 0, k, 0))[:, :, : z.shape[2]] for k in range(1, memory + 1)]
                return z + 0.25 * torch.stack(before).sum(dim=0) if before else z

        class VideoEncoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv3d(3, 16, 8, stride=8)
                self.conv.weight.data[:8] = 0
                for k in range(8):
                    self.conv.weight.data[k, :, k] = 1 / (3 * 64)
                self.conv.bias.data.zero_()
                self.mixed = Mixed()

            def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                front = x[:, :, :1] if causal else x[:, :, 1:2]
                z = self.mixed(self.conv(torch.cat([front] * 7 + [x], dim=2)))
                return (z, z.mean()) if as_tuple else z

        class VideoDecoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.ConvTranspose3d(16, 3, 8, stride=8, bias=False)
                self.conv.weight.data.zero_()
                for k in range(8):
                    self.conv.weight.data[k, :, k] = 1
                self.mixed = Mixed()

            def forward(self, z: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                x = self.conv(self.mixed(z))[:, :, 7:]
                return (x, x.mean()) if as_tuple else x

        torch.manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        patch = int(kind.rpartition("x")[2])
        if kind.startswith("CV"):
            encoder, decoder = VideoEncoder(), VideoDecoder()
            example = torch.rand(1, 3, 9, 16, 16), torch.rand(1, 16, 2, 2, 2)
        else:
            encoder, decoder = nn.Conv2d(3, 16, patch, stride=patch), nn.ConvTranspose2d(16, 3, patch, stride=patch)
            example = torch.rand(1, 3, 16, 16), torch.rand(1, 16, 16 // patch, 16 // patch)
        for name, module, given in (("encoder", encoder, example[0]), ("decoder", decoder, example[1])):
            number = getattr(torch, dtype)
            traced = torch.jit.trace(module.to(number).eval(), given.to(number))
            torch.jit.save(traced, folder / f"{name}.jit")
        return folder

    return write


@pytest.fixture(scope="session")
def cpu_runtime() -> Runtime:
    """The CPU in fp32."""
    import torch

    from ahriuwu_cli.core.device import Runtime

    return Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="session")
def toy_specs() -> WorldSpecs:
    """A world with an action of every type (width 5), 3 tokens of 4 channels, and two tasks."""
    from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec, LatentSpec
    from ahriuwu_cli.dynamics.checkpoint import WorldSpecs

    action = ActionSpec(
        components=(
            ActionComponent(name="move", type="categorical", num_classes=4),
            ActionComponent(name="keys", type="binary", dim=2),
            ActionComponent(name="aim", type="continuous", dim=2, low=-1.0, high=3.0),
        )
    )
    latent = LatentSpec(
        num_tokens=3, dim_token=4, layout="grid 1x3", mean=(0.5, -1.0, 0.0, 2.0), std=(2.0, 0.5, 1.0, 0.1)
    )
    return WorldSpecs(action, FrameSpec(height=32, width=32, fps=15.0), latent, ("play", "rest"))


@pytest.fixture(scope="session")
def toy_batch(toy_specs: WorldSpecs) -> Callable[..., LatentBatch]:
    """Make random windows of the toy world: (count, length, lookahead, seed) -> LatentBatch, nothing missing."""
    import numpy as np
    import torch

    from ahriuwu_cli.episodes.actions import random_row
    from ahriuwu_cli.latents.windows import LatentBatch

    def make(count: int, length: int, lookahead: int = 0, seed: int = 0) -> LatentBatch:
        rng, blocks = np.random.default_rng(seed), length + lookahead
        rows = [[random_row(toy_specs.action, rng) for _ in range(blocks)] for _ in range(count)]
        latent = toy_specs.latent
        z = rng.standard_normal((count, length, latent.num_tokens, latent.dim_token))
        return LatentBatch(
            latents=torch.from_numpy((z * latent.std + latent.mean).astype(np.float32)).to(torch.get_default_dtype()),
            action=torch.from_numpy(np.array(rows)).to(torch.get_default_dtype()),
            action_valid=torch.ones(count, blocks, dtype=torch.bool),
            reward=torch.from_numpy(rng.integers(-1, 3, (count, blocks)).astype(np.float32)),
            reward_valid=torch.ones(count, blocks, dtype=torch.bool),
            terminal=torch.from_numpy(rng.random((count, blocks)) < 0.2),
            valid=torch.ones(count, length, dtype=torch.bool),
            task=torch.from_numpy(rng.integers(0, 2, count)),
        )

    return make


@pytest.fixture
def exact() -> Iterator[None]:
    """Numbers are float64 in this test, the modules' weights included.

    Two ways to compute one thing differ by their rounding, which depends on the processor; weights that are large
    enough for everything to show make a hundred times more of it. In float64 what is left is below any real fault.
    """
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A backend of torch.compile that runs the captured graph as it is; lists how many operations each one has."""
    import torch

    from ahriuwu_cli.core.training import compilation

    graphs: list[int] = []

    def run(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        del inputs
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", run)
    yield graphs
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def awake() -> Callable[[nn.Module], nn.Module]:
    """Give a module large random weights: what a test perturbs must be able to show."""
    import torch

    def wake(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim > 1 else 1))
        return module.eval()

    return wake


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch by name, those of batches in it too."""
    found: dict[str, Tensor] = {}
    for name, value in vars(batch).items():
        if hasattr(value, "__dataclass_fields__"):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors_of(value).items()}
        elif value is not None:
            found[name] = value
    return found


@pytest.fixture(scope="session")
def draws_by_step() -> Callable[[Callable[[int], Any]], None]:
    """Check that a stage, made for a seed, has batches of (seed, step, micro-batch) that depend on nothing else."""
    import torch

    def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
        return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)

    def check(make: Callable[[int], Any]) -> None:
        keys = [(0, 0), (0, 1), (1, 0), (1, 1), (6, 0)]
        stage, other = make(0), make(0)
        state = torch.get_rng_state()
        found = [tensors_of(stage.batch(*key)) for key in keys]
        again = [tensors_of(other.batch(*key)) for key in reversed(keys)][::-1]
        assert torch.equal(torch.get_rng_state(), state)
        assert all(equal(left, right) for left, right in zip(found, again, strict=True))
        assert not any(equal(found[i], found[j]) for i in range(len(keys)) for j in range(i))
        assert not equal(tensors_of(make(1).batch(0, 0)), found[0])

    return check
