"""Dreams from held-out contexts: what is shown, under which actions, with which noise, and decoded how.

Shapes: M contexts, C context blocks, H dreamed blocks, T = C + H blocks, S frames per block (the latents' stride),
F = 1 + S (T - 1) frames, H' and W' frame size, N latent tokens, A action width. Where S is 1 a block is a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ahriuwu_cli.agent.checkpoint import load_agent, require_world
from ahriuwu_cli.core.artifact import Header, read_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ConfigError
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.training.compilation import compile_dreams
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.config import SamplerConfig
from ahriuwu_cli.dynamics.model import DynamicsModel
from ahriuwu_cli.dynamics.sampler import Dream, noise_from
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.metrics import Frames
from ahriuwu_cli.latents.windows import LatentBatch, LatentWindows
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer
from ahriuwu_cli.tokenizer.coding import decode_latents
from ahriuwu_cli.tokenizer.protocol import Tokenizer

DREAM_BATCH = 64  # contexts dreamed side by side; bounds the memory of the cache
DECODE_BATCH = 512  # frames decoded at once


@dataclass(frozen=True)
class DreamSource:
    """A world model to be judged, with its sampler and header."""

    model: DynamicsModel
    sampler: SamplerConfig
    header: Header


def load_dream_source(path: Path, device: torch.device) -> DreamSource:
    """The world model of a dynamics, agent or imagination file."""
    if read_header(path, ("dynamics", "agent", "imagination")).kind == "dynamics":
        world = load_world(path, device)
        return DreamSource(world.model, world.sampler, world.header)
    agent = load_agent(path, device)
    require_world(path, agent.header)
    return DreamSource(agent.model.world, agent.sampler, agent.header)


# ---------------------------------------------------------------- contexts


@dataclass(frozen=True)
class Contexts:
    """Held-out windows: what a dream is shown, and what really came.

    Attributes:
        batch: (M, T) blocks.
        frames: (M, F, H', W', 3) uint8, the true frames of these blocks.
        length: C, blocks that are shown.
        stride: S, frames per block.
        episodes: ids of all held-out episodes, from which the windows were drawn.
    """

    batch: LatentBatch
    frames: Tensor
    length: int
    stride: int
    episodes: tuple[str, ...]

    @property
    def num_shown(self) -> int:
        """Frames that are shown: 1 + S (C - 1); the dream begins after them."""
        return 1 + self.stride * (self.length - 1)

    @property
    def num_known(self) -> int:
        """Windows in which every action after the context is known."""
        return int(self.batch.action_valid[:, self.length :].all(dim=1).sum())

    def dreamed(self, frames: Frames) -> Frames:
        """The part of (M, F, H', W', 3) after the context: (M, S H, H', W', 3)."""
        return frames[:, self.num_shown :]


def draw_contexts(windows: LatentWindows, store: EpisodeStore, settings: EvalSection, seed: int) -> Contexts:
    """`settings.contexts` random windows of `context_length + horizon` blocks; equal seeds give equal windows.

    What was done in the part that is dreamed is known, where the split has such windows.

    Raises:
        DataError: held-out episodes are too short.
    """
    length = settings.context_length + settings.horizon
    stride = windows.latent_spec.stride
    places = windows.sampler.draw_whole(
        np.random.default_rng(seed),
        settings.contexts,
        length,
        setting="eval.context_length + eval.horizon",
        unknown_first=settings.context_length,
    )
    frames = [
        store.frames(windows.episodes[index].id).read(stride * start, stride * (start + length - 1) + 1)
        for index, start, _ in places
    ]
    return Contexts(
        batch=windows.read(places, length),
        frames=torch.from_numpy(np.stack(frames)),
        length=settings.context_length,
        stride=stride,
        episodes=tuple(episode.id for episode in windows.episodes),
    )


# ---------------------------------------------------------------- dreams


@torch.no_grad()
def dream_along(
    source: DreamSource,
    batch: LatentBatch,
    action: Tensor,
    context_length: int,
    runtime: Runtime,
    seed: int,
    num_steps: int | None = None,
) -> Tensor:
    """Dream the blocks after the context under given actions.

    Args:
        source: the world model.
        batch: (M, T) true windows; their first `context_length` blocks are shown.
        action: (M, T, A) block actions; those after the context drive the dream, where the batch's own are known.
        context_length: C.
        runtime: device and precision.
        seed: of all noise; equal seeds give equal noise whatever the actions and the step count.
        num_steps: K, where other than the sampler's own.

    Returns:
        (M, H, N, channels) latents as the tokenizer knows them, on the CPU.
    """
    model, noise = source.model, noise_from(torch.Generator().manual_seed(seed))
    z = model.normalise(batch.latents.to(runtime.device))  # (M, T, N, C)
    action, valid = action.to(runtime.device), batch.action_valid.to(runtime.device)
    dreamed = []
    for start in range(0, len(z), DREAM_BATCH):
        part = slice(start, start + DREAM_BATCH)
        dream = Dream(model, source.sampler, noise=noise, num_steps=num_steps)
        with runtime.autocast():
            shown = (part, slice(0, context_length))
            dream.observe(z[shown], action[shown], valid[shown])
            blocks = [dream.step(action[part, t], valid[part, t]).z for t in range(context_length, z.shape[1])]
        dreamed.append(model.denormalise(torch.stack(blocks, dim=1)).float().cpu())
    return torch.cat(dreamed)


def shuffled_actions(action: Tensor, context_length: int, seed: int) -> Tensor:
    """Every window keeps its context's actions and gets those after it from another window: (M, T, A), M >= 2."""
    order = torch.randperm(len(action), generator=torch.Generator().manual_seed(seed))
    donor = torch.empty_like(order)
    donor[order] = order.roll(1)  # one cycle through all windows: nobody keeps its own
    return torch.cat([action[:, :context_length], action[donor, context_length:]], dim=1)


# ---------------------------------------------------------------- frames


@dataclass(frozen=True)
class Dreamer:
    """Everything that turns actions into frames to look at: one world model, one tokenizer, one set of contexts."""

    source: DreamSource
    tokenizer: Tokenizer
    contexts: Contexts
    runtime: Runtime
    seed: int

    def dream(self, *, shuffled: bool = False, num_steps: int | None = None) -> Frames:
        """Whole sequences (M, F, H', W', 3) uint8, the context as the tokenizer gives it back.

        Args:
            shuffled: under the actions of other windows.
            num_steps: K, where other than the sampler's own; the noise is the same for every K.
        """
        batch, length = self.contexts.batch, self.contexts.length
        action = shuffled_actions(batch.action, length, self.seed) if shuffled else batch.action
        dreamed = dream_along(self.source, batch, action, length, self.runtime, self.seed, num_steps)
        return self._decode(torch.cat([batch.latents[:, :length], dreamed], dim=1))

    def reconstruction(self) -> Frames:
        """What the tokenizer makes of the true latents, the ceiling of every dream: (M, F, H', W', 3) uint8."""
        return self._decode(self.contexts.batch.latents)

    def persistence(self) -> Frames:
        """The last frame shown, for ever: (M, F, H', W', 3) uint8."""
        frames, shown = self.contexts.frames, self.contexts.num_shown
        still = frames[:, shown - 1 : shown].expand(-1, frames.shape[1] - shown, -1, -1, -1)
        return torch.cat([frames[:, :shown], still], dim=1).numpy()

    def _decode(self, latents: Tensor) -> Frames:
        """(M, T, N, channels) -> (M, F, H', W', 3) uint8."""
        frames: Frames = decode_latents(self.tokenizer, latents, self.runtime, DECODE_BATCH).numpy()
        return frames


def load_dreamer(
    checkpoint: Path,
    tokenizer_path: Path,
    packed: Path,
    episodes: Path,
    settings: EvalSection,
    runtime: Runtime,
    *,
    seed: int,
) -> Dreamer:
    """Read everything that a judgement of `checkpoint` needs.

    Args:
        checkpoint: dynamics, agent or imagination weights.
        tokenizer_path: the tokenizer they stand on.
        packed: the packed latents they were trained on.
        episodes: the episodes of these latents.
        settings: how many contexts, how long.
        runtime: device and precision.
        seed: of contexts and noise.

    Raises:
        ConfigError: the context is longer than the model's, or a step count is above its k_max.
        DataError: held-out episodes are too short.
        ArtifactError: the artifacts do not belong together.
    """
    source = load_dream_source(checkpoint, runtime.device)
    runtime.serve(source.model)
    if runtime.compile:
        compile_dreams(source.model)
    tokenizer, tokenizer_header = load_tokenizer(tokenizer_path, runtime.device)
    runtime.serve(tokenizer)
    windows = LatentWindows(packed, "heldout")
    store = EpisodeStore.open(episodes)
    require_parent(checkpoint, source.header, tokenizer_path, tokenizer_header)
    require_parent(checkpoint, source.header, packed, windows.header)
    require_parent(packed, windows.header, episodes, store.header)
    require_dreamable(source, settings, checkpoint)
    return Dreamer(source, tokenizer, draw_contexts(windows, store, settings, seed), runtime, seed)


def require_dreamable(source: DreamSource, settings: EvalSection, checkpoint: Path) -> None:
    """Raise ConfigError for contexts or step counts that the world model of `checkpoint` does not know."""
    if settings.context_length > source.sampler.context_length:
        raise ConfigError(
            f"eval.context_length is {settings.context_length}; "
            f"the model attends to {source.sampler.context_length} past frames",
            hint="lower eval.context_length",
        )
    for name, steps in (("sampling_steps", settings.sampling_steps), ("fine_steps", settings.fine_steps)):
        if steps is not None and steps > source.model.config.k_max:
            raise ConfigError(
                f"eval.{name} is {steps}; {checkpoint} was trained for {source.model.config.k_max} at most",
                hint=f"give eval.{name} a power of two up to {source.model.config.k_max}",
            )
