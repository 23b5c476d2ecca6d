"""Report pages: self-contained, escaped, accessible markup; honest about what is pending; and alive in a browser."""

import base64
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.support.cli import call
from tests.support.published import read_table
from tests.support.results import ladder, pair_study
from tests.support.small_study import made as small_study
from tests.support.small_study import run as run_small_study

from softprompt.analysis.records import Results, RunScore
from softprompt.analysis.tables import Cell, Table
from softprompt.errors import UsageError
from softprompt.report import figures as draw
from softprompt.report.heatmaps import gain_heatmap, gain_limit, similarity_heatmap, similarity_limit
from softprompt.report.page import Section, TableBlock, Text, minus, render
from softprompt.report.quickstart import quickstart_page
from softprompt.report.study import Drawings, Findings, report_lines, report_study, study_page, write_report
from softprompt.study.settings import load_study

QUICKSTART = {
    "title": "A <first> look",
    "subtitle": "two & two",
    "summary": "One sentence.",
    "table": [
        {"target": "reviews", "scratch": 70.0, "from <b>": 80.5, "gain": 35.0, "seconds": 12.0},
        {"target": "nli", "scratch": [61.0, 1.2], "from <b>": None, "gain": None, "seconds": 1},
    ],
    "similarity": {
        "sources": ["s1", "s2"],
        "targets": ["reviews"],
        "average": [[0.5], [-0.25]],
        "per_token": [[0.1], [float("nan")]],
    },
    "curves": {"scratch": [[0, 50.0], [50, 60.0]], "moved": [{"step": 0, "score": 60.0}, {"step": 50, "score": 65.0}]},
    "settings": {"steps": 300, "inner": {"list": [1, 2], "nothing": None}},
    "provenance": {"command": "softprompt quickstart"},
    "next": ["softprompt search <task>"],
    "notes": ["400 rows."],
}


class Checker(HTMLParser):
    """Collects what the tests ask about and checks that tags are balanced."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.seen if name == tag]


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.stack == []
    # Nothing is fetched: no address but fragments and data.
    for _, attrs in checker.seen:
        for name in ("src", "href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:")), value
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    ids = [attrs["id"] for _, attrs in checker.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    for anchor in checker.all("a"):
        if (anchor.get("href") or "").startswith("#"):
            assert (anchor["href"] or "")[1:] in ids
    for use in checker.all("use"):
        assert (use.get("xlink:href") or "")[1:] in ids
    # Headers of tables have scopes; parts that scroll can be reached and say what they are; figures have a name.
    assert all(th.get("scope") in ("row", "col") for th in checker.all("th"))
    assert all(
        box.get("aria-label") and box.get("tabindex") == "0"
        for box in checker.all("div")
        if "scroll" in (box.get("class") or "")
    )
    assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in checker.all("svg"))
    return checker


@pytest.mark.slow
def test_quickstart_page() -> None:
    page = quickstart_page(QUICKSTART)
    checker = check(page)
    assert "A &lt;first&gt; look" in page
    assert "<b>" not in page
    assert "softprompt search &lt;task&gt;" in page
    assert "pending" in checker.text  # None and NaN
    assert "80.5" in checker.text
    assert "61.0±1.2" in checker.text
    saved = next(a["href"] for a in checker.all("a") if (a.get("download") or "").endswith(".csv"))
    assert saved is not None
    assert "reviews,70.0" in base64.b64decode(saved.split(",")[1]).decode()


def test_an_empty_quickstart_page_is_still_a_page() -> None:
    check(quickstart_page({}))
    check(quickstart_page({"table": [], "curves": {"x": []}, "similarity": None}))


@pytest.mark.slow
def test_study_page_of_the_published_table(tmp_path: Path) -> None:
    results = read_table()
    page = study_page(Findings.of(results), Drawings(tmp_path), title="Published")
    checker = check(page)
    assert "74.7" in checker.text
    assert "79.4" in checker.text
    assert "No task embedding is at hand" in checker.text
    assert page.index('class="verdicts"') < page.index("<table")  # the verdict first
    figure = page[page.index('id="gain_heatmap"') :]
    assert ">58.9<" in figure[: figure.index("</figure>")]  # mnli to cb; text stays text


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    results = pair_study()
    named = replace(
        results, sources=(evil, "b"), embeddings={},
        runs=tuple(replace(r, source=(evil, r.source[1])) if r.source and r.source[0] == "a" else r for r in results.runs),
    )  # fmt: skip
    found = Findings.of(named, provenance={evil: [evil]}, contamination=[("x", evil, 1)])
    page = study_page(found, Drawings(tmp_path), title=evil)
    check(page)
    assert evil not in page
    assert "&lt;script&gt;alert" in page
    assert f"1 validation input of x stands among the training inputs of {evil}" in check(page).text


@pytest.mark.slow
def test_unfinished_cells_are_pending_on_the_page(tmp_path: Path) -> None:
    page = study_page(Findings.of(pair_study(drop=3)), Drawings(tmp_path))
    checker = check(page)
    assert "3 of 8 transfer runs are not finished" in checker.text
    assert checker.text.count("pending") > 5
    empty = Results(sources=("a",), targets=("x",), seeds=(0,), runs=())
    drawings = Drawings(tmp_path)
    text = check(study_page(Findings.of(empty), drawings)).text
    assert "Not drawn: the gain heatmap cannot be drawn yet: 0 of 1 pairs" in text
    assert any(line.startswith("gain_heatmap: ") for line in drawings.left_out)


def test_diverged_runs_and_settings(tmp_path: Path) -> None:
    results = pair_study()
    runs = (replace(results.runs[0], diverged=True), *results.runs[1:])
    page = study_page(Findings.of(replace(results, runs=runs), small_study()))
    assert "1 runs met a loss that is not finite (scratch to x, seed 0)" in check(page).text
    folded = page[page.index('id="settings"') :]
    assert folded.index("<details>") < folded.index("<table")  # folded away


@pytest.mark.slow
def test_report_study_from_a_ledger(tmp_path: Path) -> None:
    run_small_study(small_study(embedding={"step": 5, "other_steps": [2]}), tmp_path / "ledger")
    report = report_study(tmp_path / "ledger", tmp_path / "out")
    assert report.left_out == ()
    page = report.page.read_text()
    check(page)
    for words in (
        "Methods by target task",
        "How well predictors rank",
        "rows were not found",
    ):
        assert words in page, words
    assert "train-alpha" in page  # provenance: the data's fingerprint
    names = {path.name for path in (*report.tables, *report.figures)}
    assert {
        "scores.csv", "scores.tex", "strategies.csv", "gain_heatmap.png", "gain_heatmap.svg", "correlation_average.svg",
        "score_against_cost.svg", "targets.svg", "searches.tex", "methods_cost.csv", "predictors.csv",
    } <= names  # fmt: skip
    for path in report.figures:
        head = path.read_bytes()[:2000]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in head
    # The page shows the very figures that lie beside it.
    for name in ("targets", "similarity_tasks_average"):
        inside = re.findall(r">([^<>]+)</text>", page[page.index(f'<figure id="{name}"') :].split("</figure>")[0])
        assert inside == re.findall(r">([^<>]+)</text>", (tmp_path / "out" / "figures" / f"{name}.svg").read_text())


def test_report_of_kept_lines(repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = str(repo / "benchmarks" / "results" / "generic" / "cells.jsonl")
    named = ("study", "report", lines, "--study", "generic-spot-small", "--out", str(tmp_path), "--no-figures")
    code, told, _ = call(capsys, *named)
    assert (code, "report.html" in told) == (0, True)
    text = check((tmp_path / "report.html").read_text()).text
    assert "GLUE (5 of 8 tasks)" in text
    code, _, why = call(capsys, "study", "report", lines, "--out", str(tmp_path / "no"))
    assert code == 2
    assert "name the study they are of with --study" in why


def test_the_panels_mark_what_retrieval_chooses_where_its_gain_stands() -> None:
    results = ladder(race=True)
    found = Findings.of(results)
    figure = draw.target_panels(results, found.methods)
    panel = figure.axes[0]
    chosen = found.methods.named("best_of_top_k", "per_token", 2)
    assert chosen is not None
    filled = [
        line.get_xdata()[0]
        for line in panel.lines
        if line.get_marker() == "D" and line.get_markerfacecolor() == line.get_markeredgecolor()
    ]
    assert filled == [pytest.approx(chosen.score_T[0] - found.methods.choices.scratch(0))]
    assert [panel.get_title() for panel in figure.axes] == list(results.targets)


def test_figures_that_have_no_cells_are_named(tmp_path: Path) -> None:
    results = Results(sources=("a",), targets=("x",), seeds=(0,), runs=(RunScore(target="x", seed=0, score=1.0),))
    report = write_report(Findings.of(results), tmp_path)
    assert any("gain_heatmap: the gain heatmap cannot be drawn yet: 0 of 1 pairs" in text for text in report.left_out)
    with pytest.raises(UsageError, match="softprompt study run"):
        gain_heatmap(results)
    one = similarity_heatmap(["a"], ["b"], [[0.5]])
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        draw.save(one, tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="matrix"):
        similarity_heatmap(["a"], ["b"], np.zeros((2, 2)))
    first, second = (draw.save(one, tmp_path / f"{name}.svg").read_bytes() for name in "xy")
    assert first == second  # the same figure gives the same file
    sizes: dict[str, list[tuple[float, float, float | None]]] = {
        "prompt tuning": [(6e7, 59.8, 0.8), (2.2e8, 63.1, 1.1)],
        "spot": [(2.2e8, 73.2, None)],
    }
    assert draw.save(draw.score_against_size(sizes), tmp_path / "size.png").exists()


def test_one_colour_scale_with_white_at_zero() -> None:
    results = ladder()
    for figure in (gain_heatmap(results), similarity_heatmap(["a", "b"], ["x"], [[0.9], [0.2]])):
        (image,) = figure.axes[0].images
        assert image.norm.vmin == -image.norm.vmax
        assert image.cmap(image.norm(0.0))[:3] == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    alike = np.array([[1.0, 0.92, 0.90], [0.92, 1.0, 0.94], [0.90, 0.94, 1.0]])
    assert similarity_limit(alike) == 0.94  # a row and itself would stretch it
    assert similarity_limit(np.full((2, 2), np.nan)) == 1.0
    assert gain_limit(np.array([[1.0, -400.0]])) == 40.0


@pytest.mark.slow
def test_sizes_on_the_page(tmp_path: Path) -> None:
    from tests.support.small_study import RUNNER

    from softprompt.analysis.sizes import sized_studies
    from softprompt.study.run import run_study

    for name, parameters, study in (
        ("big", 2_000_000, small_study()),
        ("little", 500_000, small_study()),
        ("other", 1_000_000, small_study(targets=["apple", "cherry"])),
        ("unknown", 0, small_study()),
    ):
        options = {"backbone": name, "parameters": parameters}
        run_study(study, tmp_path / name, runner=RUNNER, runner_options=options)
    alone = report_study(tmp_path / "big", tmp_path / "alone", figures=False).page.read_text()
    assert "One size was measured" in alone
    assert "<svg" not in alone
    report = report_study(tmp_path / "big", tmp_path / "out", beside=[tmp_path / "little"])
    page = report.page.read_text()
    check(page)
    assert "One size was measured" not in page
    assert 'id="model_sizes"' in page
    head, scratch = (tmp_path / "out" / "tables" / "model_sizes.csv").read_text().splitlines()[:2]
    assert head.index("(0M)") < head.index("(2M)")
    assert scratch.startswith("prompt tuning,")
    with pytest.raises(UsageError, match=r"compared on the same target tasks.*apple, cherry"):
        report_study(tmp_path / "big", tmp_path / "no", figures=False, beside=[tmp_path / "other"])
    with pytest.raises(UsageError, match="does not say how large"):
        sized_studies([tmp_path / "unknown"])


def test_numbers_of_a_table_as_they_are_read() -> None:
    assert minus("-0.4 [-1.0, +0.2] k-means, 2026-11-21, gpt-2") == "−0.4 [−1.0, +0.2] k-means, 2026-11-21, gpt-2"
    table = Table(
        name="t", title="t", columns=("method", "score", "told"), rules=(1,),
        rows=(("a", Cell(value=-0.04, mark="second"), "no row at hand"), ("b", Cell(value=-3.0, mark="best"), "5%")),
    )  # fmt: skip
    html = render("t", "", [Section(name="s", title="S", blocks=[TableBlock(table=table)])], "")
    check(html)
    assert '<td class="second" data-v="-0.04"><span class="value">0.0</span></td>' in html  # no minus before nothing
    assert '<td class="best" data-v="-3.0"><span class="value">−3.0</span></td>' in html
    assert html.count('<tr class="rule">') == 1
    assert html.index("no row at hand") < html.index('<tr class="rule">') < html.index("−3.0")


PROBE = """
<script>
addEventListener('load', () => {
  const out = {}, table = document.querySelector('table.sortable');
  const rows = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  out.before = rows();
  const head = [...table.tHead.rows[0].cells], cb = head.findIndex(th => th.textContent.trim() === 'cb');
  head[cb].querySelector('button').click();
  out.sorted = rows();
  out.aria = head[cb].getAttribute('aria-sort');
  out.wide = document.documentElement.scrollWidth <= innerWidth;
  out.hints = [...document.querySelectorAll('.scroll')].every(b => b.classList.contains('wide') === (b.scrollWidth > b.clientWidth + 1));
  out.scrolling = document.querySelectorAll('.scroll.wide').length;
  out.dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const page = getComputedStyle(document.documentElement);
  out.colours = [page.backgroundColor, page.color];
  const svgs = [...document.querySelectorAll('.card svg')].filter(s => s.getBoundingClientRect().width);
  out.text = svgs.every(s => s.getBoundingClientRect().width >= Math.min(parseFloat(s.style.getPropertyValue('--w')), 600));
  document.body.innerHTML = '<pre id="probe">' + JSON.stringify(out) + '</pre>';
});
</script></body>
"""


def browse(path: Path, *flags: str) -> str:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def probe(path: Path, page: str, *flags: str) -> dict[str, object]:
    import html
    import json

    path.write_text(page.replace("</body>", PROBE))
    dom = browse(path, *flags)
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[:2000]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
@pytest.mark.slow
def test_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    results = read_table()
    page = study_page(Findings.of(results), Drawings(tmp_path), title="Published")
    dark = scheme == "dark"
    flags = (f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},900")
    out = probe(tmp_path / "report.html", page, *flags)
    assert out["before"] == ["from scratch", *results.sources]
    assert out["sorted"][:3] == ["from scratch", "mnli", "sst2"]  # type: ignore[index]  # the baseline stays on top
    assert out["aria"] == "descending"
    assert out["wide"]  # the page itself never moves sideways
    assert out["hints"]  # and what does says so
    assert out["scrolling"] or width > 640
    assert out["dark"] is dark
    assert out["colours"] == (
        ["rgb(20, 23, 27)", "rgb(232, 234, 237)"] if dark else ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    )
    assert out["text"]  # a figure is not shrunk until it cannot be read


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_on_every_surface() -> None:
    page = render("t", "", [Section(name="s", blocks=[Text(text="t")])], "")
    themes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    for theme in themes[:2]:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        for text, surface in (
            ("ink", "bg"), ("ink", "panel"), ("soft", "bg"), ("soft", "panel"), ("accent", "bg"), ("yes", "panel"), ("no", "panel"),
        ):  # fmt: skip
            one, two = luminance(colours[text]), luminance(colours[surface])
            ratio = (max(one, two) + 0.05) / (min(one, two) + 0.05)
            assert ratio >= 4.5, (text, surface, ratio)


@pytest.mark.parametrize("cells", ["none", "all"])
def test_a_study_without_sources_has_a_report(repo: Path, tmp_path: Path, cells: str) -> None:
    lines = tmp_path / "cells.jsonl"
    kept = (repo / "benchmarks" / "results" / "smollm2" / "long_scratch.jsonl").read_text(encoding="utf-8")
    lines.write_text(kept if cells == "all" else "", encoding="utf-8")
    made = report_lines(lines, load_study("smollm2-long-scratch"), tmp_path / "report")
    assert any(told.startswith("targets: ") for told in made.left_out)
    shown = (tmp_path / "report" / "tables" / "scores.csv").read_text(encoding="utf-8")
    assert ("from scratch,83.0" in shown) == (cells == "all")
