"""The dream of `bench sampler`: made-up weights, a made-up past, and a stream that decodes what is dreamed.

Shapes: B dreams, N latent tokens, C channels, A action width.
"""

from __future__ import annotations

import torch

from ahriuwu_cli.bench.config import BenchConfig
from ahriuwu_cli.bench.dynamics import build_dynamics, given_batch
from ahriuwu_cli.bench.tokenizer import build_tokenizer
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.training.compilation import Tell, compile_dreams
from ahriuwu_cli.dynamics.sampler import Dream, noise_from
from ahriuwu_cli.tokenizer.protocol import Tokenizer, to_frames


class DecodedDream:
    """A dream with its whole context behind it, and a stream that makes frames of its latents.

    Args:
        config: the work; its seed makes past, noise and actions.
        runtime: device and precision.
        compiled: compile the blocks of the dynamics; takes the line that says why not. None to leave them as they are.

    Attributes:
        z: (B, N, C), the newest frame's latents in the model's space.
    """

    def __init__(self, config: BenchConfig, runtime: Runtime, compiled: Tell | None = None) -> None:
        settings, shape = config.sampler, config.latent
        self.runtime = runtime
        self.tokenizer = runtime.serve(fitting_tokenizer(config).requires_grad_(False).eval().to(runtime.device))
        self.model = runtime.serve(build_dynamics(config).requires_grad_(False).eval().to(runtime.device))
        if compiled is not None:
            compile_dreams(self.model, compiled)
        self._generator = torch.Generator().manual_seed(config.run.seed)
        self._dream = Dream(self.model, settings, noise=noise_from(self._generator))
        self._stream = self.tokenizer.decode_stream()
        self._num_actions, self._batch = shape.num_actions, settings.batch_size
        past = given_batch(config, settings.batch_size, settings.context_length).to(runtime.device)
        with runtime.autocast():
            self._dream.observe(self.model.normalise(past.latents), past.action, past.action_valid)
        self.z = self.model.normalise(past.latents[:, -1])

    def dream(self) -> None:
        """One more frame, made part of the past, after a random action."""
        action = torch.randint(self._num_actions, (self._batch, 1), generator=self._generator)  # (B, A)
        with self.runtime.autocast():
            self.z = self._dream.step(action.float().to(self.runtime.device)).z

    @torch.no_grad()
    def decode(self) -> torch.Tensor:
        """The newest frame as uint8 (B, 1, H, W, 3) on the CPU."""
        with self.runtime.autocast():
            pixels = self._stream.decode(self.model.denormalise(self.z)[:, None])
        return to_frames(pixels).cpu()

    def frame(self) -> None:
        """Dream and decode."""
        self.dream()
        self.decode()


def fitting_tokenizer(config: BenchConfig) -> Tokenizer:
    """The tokenizer of the work, which must give the latents that the dynamics take.

    Raises:
        ConfigError: it does not.
    """
    tokenizer = build_tokenizer(config, config.tokenizer.model)
    spec, shape = tokenizer.latent_spec, config.latent
    if (spec.num_tokens, spec.dim_token) != (shape.num_tokens, shape.dim_token):
        raise ConfigError(
            f"the tokenizer gives latents of {spec.num_tokens} x {spec.dim_token} a frame; "
            f"latent says {shape.num_tokens} x {shape.dim_token}",
            hint=f"use --set latent.num_tokens={spec.num_tokens} --set latent.dim_token={spec.dim_token}, "
            "or change tokenizer.model",
        )
    return tokenizer
