"""Reading a tokenizer from its file: the model is built from what the file says and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch

from ahriuwu_cli.core.artifact import Header, read_weights
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.loading import build_module, load_strictly, reading
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.tokenizer.frozen import FrozenTokenizer, require_files
from ahriuwu_cli.tokenizer.protocol import Tokenizer
from ahriuwu_cli.tokenizer.registry import config_class, module_class


def load_tokenizer(path: Path, device: torch.device) -> tuple[Tokenizer, Header]:
    """The tokenizer in eval mode on `device`, without gradients, and its header.

    Raises:
        InputError: the file is missing.
        ArtifactError: it is damaged, of another kind, or does not fit its own config, or a file outside it that
            it stands on was changed.
    """
    header, tensors = read_weights(path, "tokenizer")
    try:
        model = header.config["model"]
        config = config_class(model["type"]).model_validate(model)
        build = module_class(config.type)
        frame = FrameSpec.model_validate(header.specs["frame"])
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} describes no tokenizer that is known here: {' '.join(str(error).split())}",
            hint="install the package that its type comes from, or train a tokenizer with this version",
        ) from error
    if issubclass(build, FrozenTokenizer):  # its weights lie elsewhere
        with reading(path):
            tokenizer: Tokenizer = build(config, frame)
        load_strictly(tokenizer, tensors, path)
        assert isinstance(tokenizer, FrozenTokenizer)
        require_files(path, header, tokenizer)
    else:
        tokenizer = build_module(path, lambda: build(config, frame), tensors)
    return tokenizer.requires_grad_(False).eval().to(device), header
