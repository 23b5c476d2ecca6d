"""What charts are made of: a frame with its axes, marks that say what they are, names that do not cover each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from softprompt.report.parts import minus

SERIES = tuple(f"var(--s{i})" for i in range(7))
DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4", "1 3", "12 3 2 3 2 3")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down", "plus")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A drawing area: its size and margins in CSS pixels, and the ends of its axes in the values' own units."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low or 1.0)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low or 1.0)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two ends."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """The ends of an axis: those of the values, and a little room."""
    low, high = min(values), max(values)
    room = (high - low) * pad or max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def axes(
    frame: Frame, x_name: str, y_name: str, count: int = 5, x_ticks: Sequence[tuple[float, str]] | None = None
) -> str:
    """Rules, numbers and names of both axes; `x_ticks` are (place, word) where the horizontal one is not linear."""
    out = []
    for value in ticks(frame.y_low, frame.y_high, count):
        y = frame.y(value)
        out.append(
            f'<line class="rule" x1="{frame.left:.1f}" x2="{frame.width - frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        out.append(
            f'<text class="dim" x="{frame.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{minus(f"{value:g}")}</text>'
        )
    base = frame.height - frame.bottom
    for value, word in x_ticks or [(value, _short(value)) for value in ticks(frame.x_low, frame.x_high, count)]:
        out.append(
            f'<text class="dim" x="{frame.x(value):.1f}" y="{base + 15:.1f}" text-anchor="middle">{escape(word)}</text>'
        )
    out.append(f'<line class="axis" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{base}" y2="{base}"/>')
    middle = (frame.left + frame.width - frame.right) / 2
    out.append(f'<text x="{middle:.1f}" y="{frame.height - 4:.1f}" text-anchor="middle">{escape(x_name)}</text>')
    across = (frame.top + base) / 2
    out.append(f'<text transform="translate(11 {across:.1f}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    return "".join(out)


def _short(value: float) -> str:
    return minus(f"{value / 1000:g}K" if abs(value) >= 10_000 else f"{value:g}")


def marker(shape: str, x: float, y: float, size: float, colour: str, label: str) -> str:
    """A mark that can be hovered; its label is read out and shown by the browser."""
    s = size
    paths = {
        "circle": f"M{x - s:.1f} {y:.1f}a{s} {s} 0 1 0 {2 * s} 0a{s} {s} 0 1 0 {-2 * s} 0z",
        "square": f"M{x - s:.1f} {y - s:.1f}h{2 * s}v{2 * s}h{-2 * s}z",
        "triangle": f"M{x:.1f} {y - 1.2 * s:.1f}l{1.2 * s:.1f} {2.1 * s:.1f}h{-2.4 * s:.1f}z",
        "down": f"M{x:.1f} {y + 1.2 * s:.1f}l{1.2 * s:.1f} {-2.1 * s:.1f}h{-2.4 * s:.1f}z",
        "diamond": f"M{x:.1f} {y - 1.35 * s:.1f}l{1.35 * s:.1f} {1.35 * s:.1f}l{-1.35 * s:.1f} {1.35 * s:.1f}l{-1.35 * s:.1f} {-1.35 * s:.1f}z",
        "cross": f"M{x - s:.1f} {y - s:.1f}h{s * 0.8:.1f}l{s * 0.2:.1f} {s * 0.6:.1f}h{s:.1f}v{s * 1.4:.1f}h{-2 * s:.1f}z",
        "plus": f"M{x - s * 0.4:.1f} {y - 1.2 * s:.1f}h{0.8 * s:.1f}v{0.8 * s:.1f}h{0.8 * s:.1f}v{0.8 * s:.1f}h{-0.8 * s:.1f}v{0.8 * s:.1f}h{-0.8 * s:.1f}v{-0.8 * s:.1f}h{-0.8 * s:.1f}v{-0.8 * s:.1f}h{0.8 * s:.1f}z",
    }
    return f'<path class="mark" d="{paths[shape]}" fill="{colour}"><title>{escape(label)}</title></path>'


def shape_of(number: int) -> str:
    """After seven the colours come again, each with another shape."""
    return SHAPES[(number + number // 7) % 7]


def spread_labels(
    ends: Sequence[tuple[float, str, str]], gap: float, top: float, bottom: float
) -> list[tuple[float, str, str]]:
    """Labels moved apart so that none covers another."""
    ordered = sorted(ends)
    places: list[float] = []
    for y, _, _ in ordered:
        places.append(max(y, places[-1] + gap) if places else max(y, top))
    overflow = places[-1] - bottom if places else 0.0
    if overflow > 0:
        limit = bottom
        for i in range(len(places) - 1, -1, -1):
            places[i] = min(places[i], limit)
            limit = places[i] - gap
    return [(place, text, colour) for place, (_, text, colour) in zip(places, ordered, strict=True)]


def figure(
    name: str, title: str, inner: str, width: int, height: int, kind: str, description: str, note: str = ""
) -> str:
    """The whole chart with its caption, title and description."""
    caption = f'<strong>{escape(title)}</strong> <span class="soft">{minus(escape(note))}</span>'
    return (
        f'<figure id="{name}" class="{kind}"><figcaption>{caption}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>{inner}</svg></figure>'
    )
