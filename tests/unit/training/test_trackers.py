"""TensorBoard scalars of a training, read back from the event files."""

import pytest

from softprompt.training.loop import Progress
from softprompt.training.trackers import both, tensorboard


def test_scalars_are_written_by_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = []
    observe = both(tensorboard(tmp_path), told.append)
    for step in (1, 2, 3):
        records = [
            {"run": "films-1", "step": step, "loss": 1.0 / step, "score": 10.0 * step, "metrics": {"accuracy": 1.0}}
        ]
        observe(Progress(step=step, steps=3, active=1, records=records if step != 2 else []))
    assert len(told) == 3
    events = EventAccumulator(str(tmp_path / "films-1"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(1, 1.0), (3, 0.333)]
    assert [e.value for e in events.Scalars("score")] == [10.0, 30.0]
