"""Charts as inline SVG that takes the page's colours: lines, scatter, dendrogram. Each has a title and a description."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SERIES = tuple(f"var(--s{i})" for i in range(7))
DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4", "1 3", "12 3 2 3 2 3")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down", "plus")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series of points.

    Attributes:
        name: shown beside its end.
        points: (x, y) in rising x.
        flat: drawn as a horizontal rule over the whole width (a baseline, an oracle).
    """

    name: str
    points: Sequence[tuple[float, float]]
    flat: bool = False


@dataclass(frozen=True, kw_only=True)
class _Frame:
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


def _span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * pad or max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def _axes(
    frame: _Frame, x_name: str, y_name: str, count: int = 5, x_ticks: Sequence[tuple[float, str]] | None = None
) -> str:
    out = []
    for value in ticks(frame.y_low, frame.y_high, count):
        y = frame.y(value)
        out.append(
            f'<line class="rule" x1="{frame.left:.1f}" x2="{frame.width - frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        out.append(f'<text class="dim" x="{frame.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
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
    return f"{value / 1000:g}K" if abs(value) >= 10_000 else f"{value:g}"


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


def lines(
    name: str, series: Sequence[Line], *, title: str, x_name: str, y_name: str, width: int = 860, height: int = 330
) -> str:
    """Lines with marks; each series has its own colour, dash and shape, and its name at its right end.

    Args:
        name: id in the page.
        series: what to draw; series without points are left out.
        title: read out, and shown above.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
        width: in CSS pixels.
        height: in CSS pixels.
    """
    drawn = [line for line in series if line.points]
    if not drawn:
        return f'<p class="pending">{escape(title)}: pending, no point is finished yet.</p>'
    xs = [x for line in drawn if not line.flat for x, _ in line.points] or [0.0, 1.0]
    y_low, y_high = _span([y for line in drawn for _, y in line.points])
    longest = max(len(line.name) for line in drawn)
    frame = _Frame(
        width=width, height=height, left=52, right=min(20 + 6.4 * longest, 300), top=12, bottom=42,
        x_low=min(xs), x_high=max(xs) if max(xs) > min(xs) else min(xs) + 1, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    parts = [_axes(frame, x_name, y_name)]
    ends: list[tuple[float, str, str]] = []
    for i, line in enumerate(drawn):
        colour, dash = SERIES[i % 7], DASHES[i % 7]
        points = [(frame.x_low, line.points[0][1]), (frame.x_high, line.points[0][1])] if line.flat else line.points
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        stroke = "2 4" if line.flat else dash
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{stroke}"/>'
        )
        if not line.flat and len(points) <= 60:
            parts += [
                marker(SHAPES[i % 7], frame.x(x), frame.y(y), 3.6, colour, f"{line.name}: {x:g}, {y:.1f}")
                for x, y in points
            ]
        ends.append((frame.y(points[-1][1]), line.name, colour))
    for y, text, colour in _spread(ends, 13.0, frame.top + 4, height - frame.bottom):
        parts.append(
            f'<text x="{width - frame.right + 9:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(text)}</text>'
        )
    return _figure(
        name, title, "".join(parts), width, height, "wide", f"{len(drawn)} series; {x_name} against {y_name}."
    )


def _spread(
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


def scatter(
    name: str,
    points: Sequence[tuple[float, float, str]],
    *,
    title: str,
    note: str,
    x_name: str,
    y_name: str,
    trend: bool = True,
    width: int = 270,
    height: int = 215,
) -> str:
    """Points with labels, a line at zero gain and the least-squares line.

    Args:
        name: id in the page.
        points: (x, y, label).
        title: above the chart.
        note: beside the title, e.g. r and p.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
        trend: whether the least-squares line is drawn.
        width: in CSS pixels.
        height: in CSS pixels.
    """
    if not points:
        return f'<figure id="{name}"><figcaption><strong>{escape(title)}</strong></figcaption><p class="pending">pending</p></figure>'
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_low, x_high = _span(xs)
    y_low, y_high = _span([*ys, 0.0])
    frame = _Frame(
        width=width, height=height, left=46, right=8, top=8, bottom=38,
        x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    zero = frame.y(0.0)
    parts = [
        _axes(frame, x_name, y_name, 4),
        f'<line class="zero" x1="{frame.left}" x2="{width - frame.right}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
    ]
    spread = sum((x - sum(xs) / len(xs)) ** 2 for x in xs)
    if trend and len(points) > 2 and spread > 0:
        x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
        slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
        a, b = (y_mean + slope * (x - x_mean) for x in (min(xs), max(xs)))
        parts.append(
            f'<line x1="{frame.x(min(xs)):.1f}" y1="{frame.y(a):.1f}" x2="{frame.x(max(xs)):.1f}" y2="{frame.y(b):.1f}" '
            'stroke="var(--s1)" stroke-width="1.6" stroke-dasharray="6 3"/>'
        )
    parts += [marker("circle", frame.x(x), frame.y(y), 3.4, "var(--s0)", label) for x, y, label in points]
    return _figure(name, title, "".join(parts), width, height, "", note, note)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A named point with the interval of its height.

    Attributes:
        name: shown at the right.
        x: above zero; drawn on a logarithmic axis.
        y: its height.
        low: lower end of the interval.
        high: its upper end.
    """

    name: str
    x: float
    y: float
    low: float
    high: float


def spots(
    name: str, points: Sequence[Spot], *, title: str, x_name: str, y_name: str, width: int = 860, height: int = 380
) -> str:
    """Named points with whiskers over a logarithmic axis; each has its own colour and shape, and its name at the right.

    Args:
        name: id in the page.
        points: what to draw; those without a place on a logarithmic axis are left out.
        title: read out, and shown above.
        x_name: of the horizontal axis, which counts in percent.
        y_name: of the vertical axis.
        width: in CSS pixels.
        height: in CSS pixels.
    """
    drawn = [point for point in points if point.x > 0]
    if not drawn:
        return f'<p class="pending">{escape(title)}: pending, no method is finished with its cost yet.</p>'
    places = [math.log10(point.x) for point in drawn]
    x_low, x_high = _span(places)
    y_low, y_high = _span([end for point in drawn for end in (point.low, point.high)])
    frame = _Frame(
        width=width, height=height, left=52, right=min(24 + 6.4 * max(len(point.name) for point in drawn), 400), top=12,
        bottom=42, x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    fine = (1, 2, 5) if x_high - x_low > 0.9 else (1, 1.5, 2, 3, 5, 7)
    decades = range(math.floor(x_low), math.ceil(x_high) + 1)
    marks = [(math.log10(m) + d, f"{100 * m * 10.0**d:g}%") for d in decades for m in fine]
    parts = [_axes(frame, x_name, y_name, x_ticks=[mark for mark in marks if x_low <= mark[0] <= x_high])]
    ends = []
    for i, (point, place) in enumerate(zip(drawn, places, strict=True)):
        colour, x = SERIES[i % 7], frame.x(place)
        label = f"{point.name}: {100 * point.x:.1f} %, {point.y:+.1f} [{point.low:+.1f}, {point.high:+.1f}]"
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.y(point.low):.1f}" y2="{frame.y(point.high):.1f}" '
            f'stroke="{colour}" stroke-width="1.2" opacity="0.55"/>'
        )
        parts.append(marker(_shape(i), x, frame.y(point.y), 4.2, colour, label))
        ends.append((frame.y(point.y), i))
    for y, text, colour in _spread([(y, str(i), SERIES[i % 7]) for y, i in ends], 15.0, frame.top + 4, height - 42.0):
        left, i = width - frame.right + 14, int(text)
        parts.append(marker(_shape(i), left, y, 3.6, colour, drawn[i].name))
        parts.append(f'<text x="{left + 9:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(drawn[i].name)}</text>')
    return _figure(
        name, title, "".join(parts), width, height, "wide", f"{len(drawn)} methods; {x_name} against {y_name}."
    )


def _shape(number: int) -> str:
    """After seven the colours come again, each with another shape."""
    return SHAPES[(number + number // 7) % 7]


def dendrogram(
    linkage: Sequence[Sequence[float]], leaves: int, order: Sequence[int], row: str, width: float = 110
) -> str:
    """A tree whose leaves stand at the rows of a table at its right, bottom beside bottom.

    Args:
        linkage: scipy's linkage matrix.
        leaves: how many.
        order: leaf numbers from top to bottom.
        row: CSS height of a table row, e.g. ``1.75rem``.
        width: of the drawing, CSS pixels.
    """
    if leaves < 2:
        return ""
    place = {leaf: (width, i + 0.5) for i, leaf in enumerate(order)}
    highest = max(float(merge[2]) for merge in linkage) or 1.0
    paths = []
    for i, merge in enumerate(linkage):
        (x1, y1), (x2, y2) = place[int(merge[0])], place[int(merge[1])]
        x = (1.0 - float(merge[2]) / highest) * (width - 8) + 4
        paths.append(f"M{x1:.1f} {y1:.3f}H{x:.1f}V{y2:.3f}H{x2:.1f}")
        place[leaves + i] = (x, (y1 + y2) / 2)
    return (
        f'<svg class="tree" style="width:{width:g}px;height:calc({leaves}*{row})" viewBox="0 0 {width:g} {leaves}" '
        'preserveAspectRatio="none" role="img" aria-label="Dendrogram: rows that join further right are more alike">'
        f'<path class="branch" vector-effect="non-scaling-stroke" d="{"".join(paths)}"/></svg>'
    )


def _figure(
    name: str, title: str, inner: str, width: int, height: int, kind: str, description: str, note: str = ""
) -> str:
    caption = f'<strong>{escape(title)}</strong> <span class="soft">{escape(note)}</span>'
    return (
        f'<figure id="{name}" class="{kind}"><figcaption>{caption}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>{inner}</svg></figure>'
    )
