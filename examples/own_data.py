"""Your own rows to answers: tune a soft prompt on a DataFrame, score it, answer new texts, keep it for PEFT.

python examples/own_data.py            # the embedded backbone: shows how it works, not how good it gets
python examples/own_data.py smollm2    # a real language model of 135 M parameters
"""

from __future__ import annotations

import sys
from pathlib import Path

import softprompt as sp

GOOD = ("a lovely quiet room", "the staff was kind", "great breakfast", "clean and bright", "we will come back")
BAD = ("a dirty noisy room", "the staff was rude", "cold breakfast", "dark and damp", "never again")


def frame():
    """Forty reviews; put ``pandas.read_csv("my.csv")`` here."""
    import pandas

    rows = [(f"{text}, {when}", stars) for texts, stars in ((GOOD, "good"), (BAD, "bad")) for text in texts
            for when in ("last week", "in May", "on our trip", "this year")]  # fmt: skip
    return pandas.DataFrame(rows, columns=["review", "verdict"])


def main(backbone: str = "builtin", out: str = "runs/own_data", **settings: int) -> None:
    """Train, score, answer, keep."""
    model = sp.load_backbone(backbone)
    task = sp.Task.from_rows(frame(), text="review", label="verdict", name="reviews")
    print(task)

    prompt = sp.tune(model, task, **settings)
    print(sp.evaluate(model, prompt, task))

    for answer in prompt.predict(["the bed was lovely", "rude and noisy"]):
        print(answer.label, {label: round(share, 2) for label, share in answer.probabilities.items()})

    stored = sp.Library(Path(out) / "library").add(prompt, replace=True)
    prompt.to_peft(Path(out) / "peft", replace=True)
    print(f"{stored} serves with: softprompt serve {out}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
