"""Architectures. To add one: write its folder, then name its config in ``ModelConfig`` — the whole registry.

Configs import no torch; ``build`` does. ``docs/add-an-architecture.md`` leads through it.
"""

from typing import Annotated

from pydantic import Discriminator

from equiscale.models.egnn import EGNNConfig
from equiscale.models.escaip import EScAIPConfig
from equiscale.models.esen import ESENConfig
from equiscale.models.gemnet_oc import GemNetOCConfig
from equiscale.models.mpnn import MPNNConfig
from equiscale.models.transformer import TransformerConfig

ModelConfig = Annotated[
    ESENConfig | EGNNConfig | MPNNConfig | EScAIPConfig | TransformerConfig | GemNetOCConfig, Discriminator("kind")
]


def name(config) -> str:
    """The architecture's name in tables: its kind, and what sets a variant apart (the config's ``variants`` fields)."""
    plain, words = type(config)(), [config.kind]
    for field in getattr(config, "variants", ()):
        value = getattr(config, field)
        if value != getattr(plain, field):
            word = field.replace("_", " ")
            words.append(word if value is True else f"no {word}" if value is False else f"{word}={value}")
    return " ".join(words)


__all__ = [
    "EGNNConfig",
    "ESENConfig",
    "EScAIPConfig",
    "GemNetOCConfig",
    "MPNNConfig",
    "ModelConfig",
    "TransformerConfig",
    "name",
]
