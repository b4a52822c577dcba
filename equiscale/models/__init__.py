"""Architectures. To add one: write its folder, then name its config in ``ModelConfig`` — the whole registry.

Configs import no torch; ``build`` does. ``docs/add-an-architecture.md`` leads through it.
"""

from typing import Annotated

from pydantic import Discriminator

from equiscale.models.egnn import EGNNConfig
from equiscale.models.escaip import EScAIPConfig
from equiscale.models.esen import ESENConfig
from equiscale.models.mpnn import MPNNConfig
from equiscale.models.transformer import TransformerConfig

ModelConfig = Annotated[ESENConfig | EGNNConfig | MPNNConfig | EScAIPConfig | TransformerConfig, Discriminator("kind")]

__all__ = ["EGNNConfig", "ESENConfig", "EScAIPConfig", "MPNNConfig", "ModelConfig", "TransformerConfig"]
