"""Optimisers with a run axis: against plain computations, and N runs against N single ones."""

import math

import pytest
import torch

from softprompt.training.optim import Adafactor, Adam, gradient_norm_N, make_optimizer
from softprompt.training.settings import TrainSettings


def settings(**changes):
    return TrainSettings(steps=10, **changes)


def gradients(shape, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(steps)]


def run(optimizer_class, tensor, grads, chosen):
    tensor = tensor.clone().requires_grad_(True)
    optimizer = optimizer_class({"prompt": tensor}, chosen)
    for step, gradient in enumerate(grads):
        tensor.grad = gradient.clone()
        optimizer.step(step, gradient_norm_N({"prompt": tensor}))
    return tensor.detach(), optimizer


def test_adafactor_equals_the_written_rule():
    chosen = settings(optimizer="adafactor", learning_rate=0.3, weight_decay=1e-5)
    start = torch.randn(1, 4, 3)
    grads = gradients((1, 4, 3), 5)
    found, _ = run(Adafactor, start, grads, chosen)
    value, second = start.double(), torch.zeros(1, 4, 3, dtype=torch.float64)
    for t, gradient in enumerate(grads, start=1):
        decay = 1 - t**-0.8
        second = decay * second + (1 - decay) * gradient.double() ** 2
        update = gradient.double() / second.sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt()))
        value = value * (1 - 1e-5) - 0.3 * update
    torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-6)


def test_a_restored_step_counter_ends_elsewhere():
    start, grads = torch.randn(1, 4, 3), gradients((1, 4, 3), 5)
    fresh, _ = run(Adafactor, start, grads, settings())
    restored, _ = run(Adafactor, start, grads, settings(adafactor_step_offset=1_100_000))
    assert (fresh - restored).abs().max() > 0.05


def test_adafactor_update_is_clipped_to_unit_rms():
    start = torch.zeros(1, 8, 8)
    found, _ = run(
        Adafactor, start, [torch.randn(1, 8, 8)], settings(adafactor_step_offset=1_100_000, weight_decay=0.0)
    )
    assert found.square().mean().sqrt().item() == pytest.approx(0.3, rel=1e-4)


def test_adam_equals_torch():
    chosen = settings(optimizer="adam", learning_rate=0.01, weight_decay=0.0)
    start, grads = torch.randn(1, 4, 3), gradients((1, 4, 3), 6)
    found, _ = run(Adam, start, grads, chosen)
    reference = start[0].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([reference], lr=0.01)
    for gradient in grads:
        reference.grad = gradient[0].clone()
        optimizer.step()
    torch.testing.assert_close(found[0], reference.detach())


@pytest.mark.parametrize("kind", ["adafactor", "adam"])
def test_runs_are_updated_as_if_alone(kind):
    chosen = settings(optimizer=kind, learning_rate=0.1, warmup_steps=3, clip_norm=1.0)
    # One run with gradients a thousand times larger: any statistic shared between runs would show.
    scale = torch.tensor([1.0, 1000.0, 1e-3]).reshape(3, 1, 1)
    start = torch.randn(3, 4, 2)
    grads = [g * scale for g in gradients((3, 4, 2), 5)]
    optimizer_class = {"adafactor": Adafactor, "adam": Adam}[kind]
    together, _ = run(optimizer_class, start, grads, chosen)
    for n in range(3):
        alone, _ = run(optimizer_class, start[n : n + 1], [g[n : n + 1] for g in grads], chosen)
        # Bits are promised for the same grouping alone: sums over other shapes may be added up in another order.
        torch.testing.assert_close(together[n], alone[0], rtol=1e-5, atol=1e-6)


def test_keep_takes_the_state_of_the_runs_that_stay():
    chosen = settings(optimizer="adam", learning_rate=0.1)
    start, grads = torch.randn(3, 4, 2), gradients((3, 4, 2), 6)
    whole, _ = run(Adam, start, grads, chosen)
    half, optimizer = run(Adam, start, grads[:3], chosen)
    kept = half[[2, 0]].clone().requires_grad_(True)
    smaller = optimizer.keep({"prompt": kept}, [2, 0])
    for step, gradient in enumerate(grads[3:], start=3):
        kept.grad = gradient[[2, 0]].clone()
        smaller.step(step, gradient_norm_N({"prompt": kept}))
    torch.testing.assert_close(kept.detach(), whole[[2, 0]], rtol=1e-5, atol=1e-6)


def test_warmup_is_linear_then_constant():
    tensor = torch.zeros(1, 1, 1, requires_grad=True)
    optimizer = make_optimizer({"prompt": tensor}, settings(learning_rate=0.3, warmup_steps=4))
    assert [optimizer.rate(step) for step in range(6)] == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.3, 0.3])


def test_tensors_without_gradient_are_left_alone():
    frozen, tuned = torch.ones(1, 2), torch.ones(1, 2, requires_grad=True)
    optimizer = make_optimizer({"frozen": frozen, "tuned": tuned}, settings(weight_decay=0.5))
    tuned.grad = torch.ones(1, 2)
    optimizer.step(0, torch.tensor([1.0]))
    assert torch.equal(frozen, torch.ones(1, 2))
    assert not torch.equal(tuned.detach(), torch.ones(1, 2))


def test_gradient_norm_is_over_all_tensors_of_a_run():
    one, other = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 2, 2, requires_grad=True)
    one.grad, other.grad = torch.ones(2, 3), torch.full((2, 2, 2), 2.0)
    assert gradient_norm_N({"one": one, "other": other}).tolist() == pytest.approx([math.sqrt(3 + 16)] * 2)


def test_gradients_above_the_clip_norm_are_scaled_to_it_and_others_left_alone():
    start, plain = torch.zeros(2, 1, 2), settings(optimizer="adafactor", weight_decay=0.0, clip_norm=0.0)
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    both = torch.stack([long, short])[:, None]
    # The decay of the first second moment is 0, so what is stored is the square of the gradient that was used.
    _, free = run(Adafactor, start, [both], plain)
    _, clipped = run(Adafactor, start, [both], settings(optimizer="adafactor", weight_decay=0.0, clip_norm=1.0))
    torch.testing.assert_close(free.second["prompt"].sum((1, 2)), torch.tensor([25.0, 0.25]))
    torch.testing.assert_close(clipped.second["prompt"].sum((1, 2)), torch.tensor([1.0, 0.25]))


def test_the_settings_choose_the_rule_and_only_what_is_tuned_is_held():
    tuned, still = torch.zeros(1, 2).requires_grad_(), torch.zeros(1, 2)
    made = {kind: make_optimizer({"a": tuned, "b": still}, settings(optimizer=kind)) for kind in ("adafactor", "adam")}
    assert (type(made["adafactor"]), type(made["adam"])) == (Adafactor, Adam)
    assert all(set(optimizer.tensors) == {"a"} for optimizer in made.values())
    assert {name.partition(".")[2] for name in made["adam"].state()} == {"a"}
