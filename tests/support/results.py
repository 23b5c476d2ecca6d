"""Small studies whose answers are known."""

import numpy as np

from softprompt.analysis.records import Cost, Floats, Results, RunScore, StrategyScore, Validation

SOURCES, TARGETS, SEEDS = tuple("abcdef"), ("x", "y", "z"), (0, 1)
STEPS = 90


def one(target: str, seed: int, pair: tuple[float, float], source: tuple[str, int] | None = None) -> RunScore:
    """A run with these scores on the halves, and a curve that rises to the first."""
    curve = tuple(
        Validation(step=step, score=pair[0] - (STEPS - step) / 10, loss=1.0) for step in range(10, STEPS + 1, 10)
    )
    return RunScore(
        target=target, seed=seed, score=pair[1], source=source, halves=pair, steps=STEPS, curve=curve, seconds=9.0,
        train_tokens=900.0, validation_tokens=90.0,
    )  # fmt: skip


def direction(degrees: float) -> Floats:
    """A task embedding of one token."""
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), np.sin(angle)]])


def raced(target: str, seed: int) -> StrategyScore:
    """A race at a twelfth of the oracle's cost."""
    return StrategyScore(
        strategy="race", similarity="", k=0, target=target, seed=seed, score=69.0, halves=(71.0, 69.0),
        cost=Cost(steps=100, tokens=990.0, seconds=3), survivor="f.0", race_field=(13, 3, 1),
    )  # fmt: skip


def ladder(*, scratch: int = 2, gain: float = 1.0, race: bool = False) -> Results:
    """Six source tasks, three targets, two seeds; source i gains 2 i points, more on later targets, and embeddings say so."""
    runs = [one(t, seed, (60.0 + seed, 60.0 + seed)) for t in TARGETS for seed in range(scratch)]
    for t, target in enumerate(TARGETS):
        for i, source in enumerate(SOURCES):
            for seed in SEEDS:
                score = 60.0 + gain * (2 * i + 0.1 * seed + 0.1 * t)
                runs.append(one(target, seed, (score, score), (source, seed)))
    embeddings = {(source, seed): direction(75 - 15 * i + seed) for i, source in enumerate(SOURCES) for seed in SEEDS}
    embeddings |= {(target, seed): direction(0) for target in TARGETS for seed in SEEDS}
    price = Cost(steps=30, tokens=300, seconds=3)
    sizes = {(s, r): dict.fromkeys(TARGETS, -float(i)) for i, s in enumerate(SOURCES) for r in SEEDS}
    sharpt = tuple(
        StrategyScore(
            strategy="sharpt", similarity="", k=0, target=t, seed=seed, score=68.0 + i, halves=(68.0 + i, 68.0 + i),
            cost=Cost(steps=45, tokens=400, seconds=5), tuned_parameters=99, source_steps=80,
        )
        for i, t in enumerate(TARGETS)
        for seed in SEEDS
    )  # fmt: skip
    return Results(
        sources=SOURCES, targets=TARGETS, seeds=SEEDS, runs=tuple(runs), embeddings=embeddings,
        predictors={"backwards": sizes}, report_half=1,
        embedding_costs={(target, seed): price for target in TARGETS for seed in SEEDS},
        predictor_costs={"backwards": dict.fromkeys(TARGETS, Cost())}, source_steps=1200, prompt_parameters=640,
        strategies=(*sharpt, *(raced(t, seed) for t in TARGETS for seed in SEEDS if race)),
        planned=(("race", "", 0),) if race else (),
    )  # fmt: skip


def pair_study(drop: int = 0, embeddings: bool = True) -> Results:
    """Two sources, two targets, two seeds; `drop` transfers at the end are unfinished."""
    base = {("x", 0): 50.0, ("x", 1): 60.0, ("y", 0): 80.0, ("y", 1): 80.0}
    new = {
        ("a", 0, "x"): 75.0, ("a", 1, "x"): 65.0, ("b", 0, "x"): 40.0, ("b", 1, "x"): 60.0,
        ("a", 0, "y"): 80.0, ("a", 1, "y"): 82.0, ("b", 0, "y"): 90.0, ("b", 1, "y"): 88.0,
    }  # fmt: skip
    runs = [RunScore(target=t, seed=s, score=v) for (t, s), v in base.items()]
    runs += [
        RunScore(target=t, seed=s, score=v, source=(source, s), halves=(v + 1, v - 1))
        for (source, s, t), v in new.items()
    ][: len(new) - drop]
    keys = {("a", 0): [1, 0], ("a", 1): [1, 0.1], ("b", 0): [0, 1], ("b", 1): [0.1, 1]}
    keys |= {("x", 0): [1, 0.2], ("x", 1): [1, 0.3], ("y", 0): [0.2, 1], ("y", 1): [0.3, 1]}
    prompts = {key: np.array([value, value], dtype=np.float64) for key, value in keys.items()}
    return Results(
        sources=("a", "b"), targets=("x", "y"), seeds=(0, 1), runs=tuple(runs), embeddings=prompts if embeddings else {}
    )


def noise_study(sources: int = 12, scratch: int = 12) -> Results:
    """Transfers that are nothing but fresh draws of the baseline: there is no gain to find."""
    random = np.random.default_rng(7)
    runs = []
    for target in ("x", "y", "z"):
        for seed in range(scratch):
            a, b = 70 + random.normal(size=2)
            runs.append(RunScore(target=target, seed=seed, score=(a + b) / 2, halves=(a, b)))
        for source in range(sources):
            a, b = 70 + random.normal(size=2)
            runs.append(RunScore(target=target, seed=0, score=(a + b) / 2, halves=(a, b), source=(f"s{source}", 0)))
    return Results(
        sources=tuple(f"s{i}" for i in range(sources)), targets=("x", "y", "z"), seeds=(0,), runs=tuple(runs)
    )
