"""How probable each label of a task is for each row: the backbone's own probabilities, set against one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.inference.evaluate import DEFAULT_BATCH_TOKENS, EvalJob, length_batches, prompts_for
from softprompt.prompts.prompter import Prompter


@torch.no_grad()
def label_probabilities(
    backbone: Backbone,
    prompter: Prompter | None,
    job: EvalJob,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The probability of each label among the labels, for each row of a job.

    Args:
        backbone: the frozen model.
        prompter: makes the prompts; None for none.
        job: its task has labels.
        batch_tokens: most padded positions in one pass.
        progress: called with (rows done, rows in all).

    Returns:
        float32 [rows, labels] in 0..1, each row sums to 1; labels in index order. It is the softmax of the summed
        log-probabilities of each label's tokens: labels of more tokens are not made longer or shorter.

    Raises:
        UsageError: the task has no labels.
    """
    if not job.task.labels:
        raise UsageError(f"task {job.task.name!r} has no labels: its answers are free text, without probabilities.")
    labels = backbone.tokenize_targets(list(job.task.labels))
    rows = job.row_numbers()
    behind = sum(len(ids) for ids in labels)
    lengths = np.asarray([len(job.split.inputs(int(row))) for row in rows], dtype=np.int64)
    found = torch.zeros(len(rows), len(labels))
    done = 0
    prompt_length = prompter.prompt_length if prompter is not None else 0
    for part in length_batches(lengths + behind, prompt_length, batch_tokens):
        chosen = [(job, int(rows[i])) for i in part]
        batch = TokenBatch.of([job.split.inputs(row) for _, row in chosen], device=backbone.device)
        scores = backbone.label_scores(batch, prompts_for(backbone, prompter, chosen), [labels] * batch.size)
        found[torch.from_numpy(part)] = torch.stack([row.float().softmax(0).cpu() for row in scores])
        done += len(part)
        if progress is not None:
            progress(done, len(rows))
    return found
