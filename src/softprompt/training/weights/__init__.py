"""Weights as trained tensors: model tuning and LoRA, whole or in shards."""
