"""`bench tokenizer`: training steps, and encoding and decoding of frames as they arrive, at one or two patch sizes.

Shapes: B clips, T frames per clip, H and W frame size, N latent tokens, C channels per token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.flops import decode_pass, encode_pass, num_parameters, tokenizer_training
from ahriuwu_cli.bench.machine import Machine
from ahriuwu_cli.bench.measured import Findings, Item
from ahriuwu_cli.bench.profile import profile_work
from ahriuwu_cli.bench.timing import PeakMemory, Spread, measure
from ahriuwu_cli.bench.training import Loss, TrainingWork, measure_training
from ahriuwu_cli.core.device import apply_threads, resolve_runtime
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.core.training.stage import seed_everything
from ahriuwu_cli.nn.running_rms import RunningRms
from ahriuwu_cli.tokenizer.config import TokenizerModel
from ahriuwu_cli.tokenizer.frozen import FrozenTokenizer
from ahriuwu_cli.tokenizer.loss import reconstruction_loss
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames, to_pixels
from ahriuwu_cli.tokenizer.registry import module_class

FPS = 15.0
"""Frame rate of made-up frames; nothing that is measured depends on it."""
STREAM_LATENTS = 16
"""Latents in one repeat of a stream."""


def bench_tokenizer(config: BenchConfig, *, profile: bool = False) -> Report:
    """Measure every patch size: a training step without LPIPS, and both streams at batch 1.

    A frozen tokenizer has no training step.

    Raises:
        ConfigError: the frames do not fit the tokenizer.
        DeviceError: the device is absent, cannot compute in the precision, or is too small.
    """
    apply_threads(config.run)
    machine, findings = Machine(resolve_runtime(config.run), config.timing), Findings()
    models = _models(config)
    for model in models.values():
        build_tokenizer(config, model)  # what does not fit is refused before anything is measured
    machine.visit()
    for name, model in models.items():
        if not issubclass(module_class(model.type), FrozenTokenizer):
            measure_training(_step(name, config, model), config, machine, findings, profile=profile)
            machine.visit()
        _measure_streams(name, config, model, machine, findings, profile=profile)
        machine.visit()
    return findings.report("tokenizer", config, ("frame", "train", "tokenizer"), machine)


def _models(config: BenchConfig) -> dict[str, TokenizerModel]:
    """What is measured, by name: the model, and the same with the other patch size."""
    model, other = config.tokenizer.model, config.tokenizer.also_patch
    patch = getattr(model, "patch", None)
    if patch is None:  # a tokenizer without patches
        return {model.type: model}
    models = {f"patch {patch}": model}
    if other and other != patch:
        models[f"patch {other}"] = type(model).model_validate(model.model_dump() | {"patch": other})
    return models


def build_tokenizer(config: BenchConfig, model: TokenizerModel) -> Tokenizer:
    """A tokenizer with fresh weights for the frames of the work, on the CPU."""
    frame = FrameSpec(height=config.frame.height, width=config.frame.width, fps=FPS)
    return module_class(model.type)(model, frame)


def given_frames(config: BenchConfig, batch: int, length: int) -> Tensor:
    """Made-up frames (B, T, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(config.run.seed)
    shape = (batch, length, config.frame.height, config.frame.width, 3)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def look_back(tokenizer: Tokenizer) -> int:
    """Past frames that a stream of this tokenizer attends to."""
    return int(getattr(tokenizer.config, "context_length", 0))


def _step(name: str, config: BenchConfig, model: TokenizerModel) -> TrainingWork:
    """The training step on one batch of clips."""
    shape = (config.tokenizer.batch_size, config.tokenizer.clip_length)

    def loss(module: nn.Module, device: torch.device) -> Loss:
        assert isinstance(module, Tokenizer)
        frames, rms = given_frames(config, *shape).to(device), RunningRms()

        def once() -> tuple[Tensor, dict[str, Tensor]]:
            pixels = to_pixels(frames)
            guess = module.reconstruct_for_training(pixels, 0)
            return reconstruction_loss(pixels, guess, rms, None, 0.0)

        return once

    def flops(module: nn.Module) -> int:
        assert isinstance(module, Tokenizer)
        return tokenizer_training(module, *shape)

    return TrainingWork(
        name=f"{name}, training step",
        kind="tokenizer",
        shape=shape,
        build=lambda: build_tokenizer(config, model),
        loss=loss,
        flops=flops,
    )


@torch.no_grad()
def _measure_streams(
    name: str, config: BenchConfig, model: TokenizerModel, machine: Machine, findings: Findings, *, profile: bool
) -> None:
    """Encoding and decoding at batch 1, one latent at a time, with all behind it that the stream looks back on."""
    runtime, timing, device = machine.runtime, config.timing, machine.runtime.device
    memory = PeakMemory(device)
    seed_everything(config.run.seed)
    tokenizer = machine.runtime.serve(build_tokenizer(config, model).requires_grad_(False).eval().to(device))
    encoder, decoder = tokenizer.encode_stream(), tokenizer.decode_stream()
    stride, past = tokenizer.latent_spec.stride, look_back(tokenizer)
    frames = given_frames(config, 1, stride)  # (1, T, H, W, 3), the frames of one latent

    def encode(frames: Tensor = frames) -> Tensor:
        with runtime.autocast():
            return encoder.encode(to_pixels(frames.to(device)))

    latents = encode(frames[:, :1])  # (1, 1, N, C)

    def decode() -> Tensor:
        with runtime.autocast():
            return to_frames(decoder.decode(latents)).cpu()

    works = []
    for what, once, cost in (("encoded", encode, encode_pass), ("decoded", decode, decode_pass)):
        for _ in range(past + 1):  # a first latent stands for one frame only
            once()
        title, work = f"{name}, {STREAM_LATENTS * stride} frames {what} as they come", partial(_often, once)
        seconds = measure(work, timing.repeats, timing.warmup, device, between=machine.sample)
        item = Item(
            title,
            Spread.of(seconds),
            frames=STREAM_LATENTS * stride,
            flops=STREAM_LATENTS * cost(tokenizer, 1, stride if what == "encoded" else 1, past).flops,
            peak_bytes=memory.bytes(),
            parameters=num_parameters(tokenizer),
        )
        findings.items.append(item)
        works.append((title, work))
    if profile:
        findings.profiles += [profile_work(title, work, device) for title, work in works]


def _often(once: Callable[[], object]) -> None:
    for _ in range(STREAM_LATENTS):
        once()
