"""Kind `prototype-checkpoint`: models of the first prototype; what does not map is listed, and nothing is imported.

Weights come over where names and shapes map one to one. Of the prototype's models none do: REASONS says what each part
is there, and what is in its place here (the tests hold its names beside those of the models here).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.folders import inside
from ahriuwu_cli.sources.imports.protocol import Source
from ahriuwu_cli.sources.imports.torch_files import load_plain, mentions

STATE, CONFIG = "model_state_dict", "model_config"
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")
"""What torch.compile and data-parallel training put before names."""
ALONE = "alike here, and of no use without what is around it"
REASONS = (
    (r"\.bn\d?\.|running_(mean|var)|num_batches_tracked", "batch norm; there is none here"),
    (r"^encoder\.stem\.", "a 7x7 convolution; here frames begin as 4x4 patches"),
    (r"^(encoder|decoder)\.stage\d", "residual stages with batch norm; here other blocks"),
    (r"^decoder\.head\.", "convolutions and batch norm; here one convolution"),
    (r"inv_freq|positions_[xy]|pos_embed|_mask$|rope_indices", "positions and masks as tables; here worked out"),
    (r"norm\w*\.\w+$", "learned scales of norms; here norms have none"),
    (r"\.(q|k|v|kv)_proj\.", "queries, keys and values apart; here one matrix, with norms of another kind"),
    (r"\.out_proj\.|\.(ffn|mlp)\.|^mask_embed$|^bottleneck", ALONE),
    (r"patch_(un)?embed", "patches of 256x256 frames by convolution; here by a linear layer beside an anchor"),
    (r"patch_queries|latent_tokens|latent_queries|register", "learned tokens of another number and place"),
    (r"time_embed|tau_embed|step_embed|cond", "signal levels and step sizes, added to all tokens; here a token"),
    (r"action|movement", "a table for each key of the prototype; here what the action spec has"),
)
"""First pattern that is in a tensor's name, and why it does not map."""
OTHERWISE = "no part of that name here"
LISTED = 8


class PrototypeCheckpointImporter:
    """See Importer. It says what does not map, and refuses."""

    KIND = "prototype-checkpoint"
    SAYS = "checkpoints of the first prototype: refused with a list of what does not map"
    EXTRA: str | None = None

    def detect(self, source: Path) -> str | None:
        """See Importer."""
        try:
            found = _checkpoints(source)
        except (InputError, OSError):
            return None
        return f"{len(found)} checkpoints with {STATE}" if found else None

    def open_source(self, source: Path, options: Mapping[str, Any]) -> Source:
        """See Importer.

        Raises:
            InputError: always.
        """
        del options
        found = _checkpoints(source)
        if not found:
            raise InputError(
                f"{source} is no checkpoint of the first prototype, and has none in it",
                hint=f"give a .pt file that torch.save wrote, with {STATE} in it",
            )
        raise InputError(
            f"{found[0]} cannot be imported: {described(load_plain(found[0]))}",
            hint="import the frames (`ahriuwu data import prototype FOLDER`), then run `ahriuwu tokenizer train`",
        )


def _checkpoints(source: Path) -> list[Path]:
    paths = [source] if source.is_file() else inside(source)
    return [path for path in paths if path.suffix in (".pt", ".pth") and mentions(path, STATE)]


@dataclass
class _Part:
    """Tensors whose names differ in numbers only."""

    count: int
    shape: tuple[int, ...]
    reason: str


def described(checkpoint: Any) -> str:
    """What a checkpoint is of, and what of it does not map."""
    state = checkpoint.get(STATE) if isinstance(checkpoint, dict) else None
    tensors = {
        WRAPPERS.sub("", name): tuple(value.shape)
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(name, str) and hasattr(value, "shape")
    }
    if not tensors:
        return f"{STATE} holds no tensors"
    parts = sorted(_parts(tensors).items(), key=lambda item: -item[1].count)
    listed = [
        f"{name} ({part.count}, {'x'.join(map(str, part.shape)) or 'a number'}: {part.reason})"
        for name, part in parts[:LISTED]
    ]
    more = f"; and {len(parts) - LISTED} more parts" if len(parts) > LISTED else ""
    what = _model(tensors, has_config=CONFIG in checkpoint)
    return f"{what}; none of its {len(tensors)} tensors has its name and shape here: {'; '.join(listed)}{more}"


def _model(tensors: Mapping[str, tuple[int, ...]], *, has_config: bool) -> str:
    """Which model it is, by its names."""
    if any(name.startswith("encoder.stem.") for name in tensors):
        return "a convolutional tokenizer"
    if any(name.startswith("time_embed.") for name in tensors):
        return "a dynamics model whose signal levels run the other way (0 is clean)"
    if any(name.startswith("tau_embed.") for name in tensors):
        unknown = "" if has_config else f", and without {CONFIG} nobody can tell which way its signal levels run"
        return f"a dynamics model{unknown}"
    if any("patch_embed" in name for name in tensors):
        return "a transformer tokenizer"
    return "a model that is not known here"


def _parts(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    for name, shape in tensors.items():
        plain = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", ascii(name)[1:-1])[:80]
        reason = next((why for pattern, why in REASONS if re.search(pattern, name)), OTHERWISE)
        parts.setdefault(plain, _Part(0, shape, reason)).count += 1
    return parts
