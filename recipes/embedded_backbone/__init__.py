"""Pre-training of backbones on plain text; see ``PretrainSettings`` and ``pretrain``."""

from __future__ import annotations

from embedded_backbone.settings import PretrainSettings

__all__ = ["PretrainSettings"]
