"""Serving: many prompts, one frozen backbone, one batch."""
