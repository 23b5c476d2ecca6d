"""Pre-training of backbones on plain text; see ``PretrainSettings`` and ``pretrain``."""

from __future__ import annotations

from softprompt.pretraining.settings import PretrainSettings

__all__ = ["PretrainSettings"]
