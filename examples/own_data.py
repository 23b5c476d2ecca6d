"""Your own rows to answers: tune a soft prompt on a DataFrame, score it, answer new texts, keep it for PEFT.

python examples/own_data.py            # the embedded backbone: shows how it works, not how good it gets
python examples/own_data.py smollm2    # a real language model of 135 M parameters
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas

import softprompt as sp

ROWS = Path(__file__).with_name("reviews.csv")  # columns review and label; put your own file here


def main(backbone: str = "builtin", out: str = "runs/own_data", **settings: int) -> None:
    """Train, score, answer, keep."""
    model = sp.load_backbone(backbone)
    task = sp.Task.from_rows(pandas.read_csv(ROWS), text="review", label="label", name="reviews")
    print(task)

    prompt = sp.tune(model, task, **settings)
    print(sp.evaluate(model, prompt, task))

    for answer in prompt.predict(["What delightful staff.", "They should close the place down."]):
        print(answer.label, {label: round(share, 2) for label, share in answer.probabilities.items()})

    stored = sp.Library(Path(out) / "library").add(prompt, replace=True)
    prompt.to_peft(Path(out) / "peft", replace=True)
    print(f"{stored} serves with: softprompt serve {out}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
