"""Which tokenizers there are: a model config class and a module class for each name."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ahriuwu_cli.core.registry import Registry

if TYPE_CHECKING:
    from ahriuwu_cli.tokenizer.config import TokenizerModel
    from ahriuwu_cli.tokenizer.protocol import Tokenizer

CONFIGS = Registry(
    "tokenizer-config",
    {
        "cnn": "ahriuwu_cli.tokenizer.config:CnnModel",
        "cosmos": "ahriuwu_cli.tokenizer.cosmos_config:CosmosModel",
        "transformer": "ahriuwu_cli.tokenizer.config:TransformerModel",
    },
    what="tokenizer",
)
MODULES = Registry(
    "tokenizer",
    {
        "cnn": "ahriuwu_cli.tokenizer.cnn:CnnTokenizer",
        "cosmos": "ahriuwu_cli.tokenizer.cosmos:CosmosTokenizer",
        "transformer": "ahriuwu_cli.tokenizer.transformer:TransformerTokenizer",
    },
)


def config_class(name: str) -> type[TokenizerModel]:
    """The pydantic model config of a tokenizer (imports no torch for the built-in ones)."""
    return cast("type[TokenizerModel]", CONFIGS.load(name))


def module_class(name: str) -> type[Tokenizer]:
    """The torch module of a tokenizer."""
    return cast("type[Tokenizer]", MODULES.load(name))
