"""Charts as inline SVG that takes the page's colours: lines, scatter, spots, dendrogram. Each has a title and a description."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from softprompt.report.axes import DASHES, SERIES, Frame, axes, figure, marker, shape_of, span, spread_labels


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series of points.

    Attributes:
        name: shown beside its end.
        points: (x, y) in rising x.
        flat: drawn as a horizontal rule over the whole width (a baseline, an oracle).
        spread: standard deviation of each y, drawn as a whisker; empty for none, NaN where one is not known.
    """

    name: str
    points: Sequence[tuple[float, float]]
    flat: bool = False
    spread: Sequence[float] = ()


def lines(
    name: str,
    series: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    width: int = 860,
    height: int = 330,
    sizes: bool = False,
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
        sizes: whether x counts parameters, drawn on a logarithmic axis with a number at every size there is.
    """
    drawn = [line for line in series if line.points]
    if not drawn:
        return f'<p class="pending">{escape(title)}: pending, no point is finished yet.</p>'
    known = sorted({x for line in drawn if not line.flat for x, _ in line.points}) or [0.0, 1.0]
    xs = [math.log10(x) for x in known] if sizes else known
    x_low, x_high = span(xs) if sizes else (xs[0], xs[-1] if xs[-1] > xs[0] else xs[0] + 1)
    y_low, y_high = span([end for line in drawn for _, low, high in _ends(line) for end in (low, high)])
    longest = max(len(line.name) for line in drawn)
    frame = Frame(
        width=width, height=height, left=52, right=min(30 + 6.4 * longest, 330), top=12, bottom=42,
        x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    marks = [(math.log10(x), f"{x / 1e6:.3g}M") for x in known] if sizes else None
    parts, ends = [axes(frame, x_name, y_name, x_ticks=marks)], []
    for i, line in enumerate(drawn):
        places = [(math.log10(x) if sizes and not line.flat else x, y) for x, y in line.points]
        parts.append(_line(frame, i, line, places))
        ends.append((frame.y(places[-1][1]), i))
    for y, text, colour in spread_labels(
        [(y, str(i), SERIES[i % 7]) for y, i in ends], 14.0, frame.top + 4, height - frame.bottom
    ):
        left, i = width - frame.right + 14, int(text)
        if not drawn[i].flat:
            parts.append(marker(shape_of(i), left, y, 3.4, colour, drawn[i].name))
        parts.append(f'<text x="{left + 9:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(drawn[i].name)}</text>')
    return figure(
        name, title, "".join(parts), width, height, "wide", f"{len(drawn)} series; {x_name} against {y_name}."
    )


def _ends(line: Line) -> list[tuple[float, float, float]]:
    """(x, lower end, upper end) of every point's whisker."""
    known = [0.0 if math.isnan(std) else std for std in line.spread] or [0.0] * len(line.points)
    return [(x, y - std, y + std) for (x, y), std in zip(line.points, known, strict=True)]


def _line(frame: Frame, i: int, line: Line, places: Sequence[tuple[float, float]]) -> str:
    """The i-th series, its places already those of the frame's axes."""
    colour, across = SERIES[i % 7], line.flat or len(places) == 1
    ends = [(frame.x_low, places[0][1]), (frame.x_high, places[0][1])] if line.flat else places
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in ends)
    dash = "2 4" if across else DASHES[(i + i // 7) % 7]
    stroke = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>'
    if line.flat or len(places) > 60:
        return stroke
    whiskers = "".join(
        f'<line x1="{frame.x(place):.1f}" x2="{frame.x(place):.1f}" y1="{frame.y(low):.1f}" y2="{frame.y(high):.1f}" '
        f'stroke="{colour}" stroke-width="1.2" opacity="0.55"/>'
        for (place, _), (_, low, high) in zip(places, _ends(line), strict=True)
        if high > low
    )
    return f"{stroke}{whiskers}" + "".join(
        marker(shape_of(i), frame.x(place), frame.y(y), 3.6, colour, f"{line.name}: {x:g}, {y:.1f}")
        for (place, y), (x, _) in zip(places, line.points, strict=True)
    )


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
    x_low, x_high = span(xs)
    y_low, y_high = span([*ys, 0.0])
    frame = Frame(
        width=width, height=height, left=46, right=8, top=8, bottom=38,
        x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    zero = frame.y(0.0)
    parts = [
        axes(frame, x_name, y_name, 4),
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
    return figure(name, title, "".join(parts), width, height, "", note, note)


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
    x_low, x_high = span(places)
    y_low, y_high = span([end for point in drawn for end in (point.low, point.high)])
    frame = Frame(
        width=width, height=height, left=52, right=min(24 + 6.4 * max(len(point.name) for point in drawn), 400), top=12,
        bottom=42, x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high,
    )  # fmt: skip
    fine = (1, 2, 5) if x_high - x_low > 0.9 else (1, 1.5, 2, 3, 5, 7)
    decades = range(math.floor(x_low), math.ceil(x_high) + 1)
    marks = [(math.log10(m) + d, f"{100 * m * 10.0**d:g}%") for d in decades for m in fine]
    parts = [axes(frame, x_name, y_name, x_ticks=[mark for mark in marks if x_low <= mark[0] <= x_high])]
    ends = []
    for i, (point, place) in enumerate(zip(drawn, places, strict=True)):
        colour, x = SERIES[i % 7], frame.x(place)
        label = f"{point.name}: {100 * point.x:.1f} %, {point.y:+.1f} [{point.low:+.1f}, {point.high:+.1f}]"
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.y(point.low):.1f}" y2="{frame.y(point.high):.1f}" '
            f'stroke="{colour}" stroke-width="1.2" opacity="0.55"/>'
        )
        parts.append(marker(shape_of(i), x, frame.y(point.y), 4.2, colour, label))
        ends.append((frame.y(point.y), i))
    for y, text, colour in spread_labels(
        [(y, str(i), SERIES[i % 7]) for y, i in ends], 15.0, frame.top + 4, height - 42.0
    ):
        left, i = width - frame.right + 14, int(text)
        parts.append(marker(shape_of(i), left, y, 3.6, colour, drawn[i].name))
        parts.append(f'<text x="{left + 9:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(drawn[i].name)}</text>')
    return figure(
        name, title, "".join(parts), width, height, "wide", f"{len(drawn)} methods; {x_name} against {y_name}."
    )


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
