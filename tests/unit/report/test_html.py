"""Report pages: self-contained, escaped, accessible markup; honest about what is pending; and alive in a browser."""

import base64
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.unit.study.test_analysis import made as small_results
from tests.unit.study.test_run import made as small_study
from tests.unit.study.test_run import run as run_small_study

from softprompt.report.html import quickstart_page
from softprompt.report.study import report_study, study_page, text_summary, write_report
from softprompt.study.records import Results, RunScore, read_table
from softprompt.study.retrieval import strategy_rows

TABLE_6 = Path(__file__).parents[3] / "docs" / "published" / "spot_table6.csv"

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
    assert "url(" not in page
    ids = [attrs["id"] for _, attrs in checker.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    for anchor in checker.all("a"):
        if (anchor.get("href") or "").startswith("#"):
            assert (anchor["href"] or "")[1:] in ids
    # Headers of tables have scopes; cells that can be focused say what they are.
    assert all(th.get("scope") in ("row", "col") for th in checker.all("th"))
    assert all(td.get("aria-label") for td in checker.all("td") if "tabindex" in td)
    return checker


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


def test_study_page_of_the_published_table() -> None:
    results = read_table(TABLE_6)
    page = study_page(results, strategy_rows(results, (1, 3)), title="Published")
    checker = check(page)
    assert "74.7" in checker.text
    assert "79.4" in checker.text
    assert "20.9 %" in checker.text
    assert "mnli to cb: +58.9 % relative error reduction" in page
    assert "No task embedding is finished yet" in checker.text


def test_unfinished_cells_are_pending_on_the_page() -> None:
    results = small_results(drop=3)
    page = study_page(results, strategy_rows(results, (1,)))
    checker = check(page)
    assert "3 of 8 transfer runs are not finished" in checker.text
    assert "b to y: pending (0 of 2 runs)" in page
    assert checker.text.count("pending") > 5
    empty = Results(sources=("a",), targets=("x",), seeds=(0,), runs=())
    check(study_page(empty, strategy_rows(empty)))
    assert "pending" in text_summary(empty)


def test_contamination_is_shown() -> None:
    results = small_results()
    page = study_page(results, [], noted={"contamination": [["x", "a", 7]]})
    assert "7 validation inputs of x stand among the training inputs of a" in page


def test_report_study_from_a_ledger(tmp_path: Path) -> None:
    run_small_study(small_study(embedding={"step": 5, "other_steps": [2]}), tmp_path / "ledger")
    report = report_study(tmp_path / "ledger", tmp_path / "out")
    assert report.left_out == ()
    page = report.page.read_text()
    check(page)
    assert "Methods by target task" in page
    assert "How well predictors rank" in page
    assert "The figures in one place" in page
    assert "A race over all source prompts" in page
    assert "which needs the targets&#x27; rows" in page or "which needs the targets' rows" in page
    assert "train-alpha" in page  # provenance: the data's fingerprint
    names = {path.name for path in (*report.tables, *report.figures)}
    assert {
        "scores.csv",
        "scores.tex",
        "strategies.csv",
        "gain_heatmap.png",
        "gain_heatmap.svg",
        "correlation_average.svg",
        "score_against_cost.svg",
        "figures.csv",
        "bargain.tex",
        "race.csv",
        "methods_cost.csv",
    } <= names
    for path in report.figures:
        head = path.read_bytes()[:300]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in head + path.read_bytes()[300:2000]


def test_figures_that_have_no_cells_are_named(tmp_path: Path) -> None:
    from softprompt.errors import UsageError
    from softprompt.study.curves import score_against_size
    from softprompt.study.heatmaps import gain_heatmap, similarity_heatmap

    results = Results(sources=("a",), targets=("x",), seeds=(0,), runs=(RunScore(target="x", seed=0, score=1.0),))
    report = write_report(results, tmp_path)
    assert any("gain_heatmap: the gain heatmap cannot be drawn yet: 0 of 1 pairs" in text for text in report.left_out)
    with pytest.raises(UsageError, match="softprompt study run"):
        gain_heatmap(results, tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        similarity_heatmap(["a"], ["b"], [[0.5]], tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="matrix"):
        similarity_heatmap(["a"], ["b"], np.zeros((2, 2)), tmp_path / "x.png")
    assert similarity_heatmap(["a"], ["b"], [[0.5]], tmp_path / "x.svg").read_text().count("<svg") == 1
    sizes: dict[str, list[tuple[float, float, float | None]]] = {
        "prompt tuning": [(6e7, 59.8, 0.8), (2.2e8, 63.1, 1.1)],
        "spot": [(2.2e8, 73.2, None)],
    }
    assert score_against_size(sizes, tmp_path / "size.png").exists()


def test_similarities_are_coloured_over_their_own_range() -> None:
    from softprompt.study.heatmaps import colour_range

    alike = np.array([[1.0, 0.92, 0.90], [0.92, 1.0, 0.94], [0.90, 0.94, 1.0]])
    assert colour_range(alike) == (0.90, 0.94)  # a row and itself would stretch it
    assert colour_range(np.array([[0.2, 0.5]])) == (0.2, 0.5)
    assert colour_range(np.full((2, 2), np.nan)) == (0.0, 1.0)
    low, high = colour_range(np.ones((3, 3)))
    assert low < 1.0 < high
    results = small_results()
    page = study_page(results, strategy_rows(results, (1,)))
    plain = page.replace("\u2212", "-")
    legends = re.findall(r"<span>(-?[0-9.]+), least alike</span>.*?<span>(-?[0-9.]+)(?: and above)?, most alike", plain)
    assert len(legends) == 3
    assert all(-1 <= float(a) < float(b) <= 1 for a, b in legends)


def test_spots() -> None:
    from softprompt.report.axes import SERIES
    from softprompt.report.charts import Spot, spots

    points = [
        Spot(name=f"<{i}>", x=10.0 ** (i / 5 - 2), y=float(i), low=float(i) - 1, high=float(i) + 1) for i in range(10)
    ]
    chart = spots("c", [*points, Spot(name="free", x=0.0, y=1, low=1, high=1)], title="t", x_name="x", y_name="y")
    checker = check(chart)
    assert "10 methods" in checker.text
    assert "free" not in chart
    assert "&lt;3&gt;: 4.0 %, +3.0 [+2.0, +4.0]" in chart
    assert all(f">{word}%</text>" in chart for word in ("1", "10", "50"))
    drawn = re.findall(r'<path class="mark" d="[^"]*" fill="([^"]*)"><title>&lt;\d&gt;: ', chart)
    assert drawn == [*SERIES, *SERIES[:3]]
    assert "pending" in spots("c", [], title="t", x_name="x", y_name="y")


def test_sizes(tmp_path: Path) -> None:
    from tests.unit.study.test_run import RUNNER

    from softprompt.errors import UsageError
    from softprompt.report.sizes import report_sizes
    from softprompt.study.run import run_study

    for name, parameters in (("big", 2_000_000), ("small", 1000), ("unknown", 0)):
        options = {"backbone": name, "parameters": parameters}
        run_study(small_study(), tmp_path / name, runner=RUNNER, runner_options=options)
    files = report_sizes([tmp_path / "big", tmp_path / "small"], tmp_path / "out")
    assert {path.name for path in files} == {"sizes.csv", "sizes.tex", "sizes.png", "sizes.svg"}
    head, scratch = (tmp_path / "out" / "sizes.csv").read_text().splitlines()[:2]
    assert head.index("(0M)") < head.index("(2M)")
    assert scratch.startswith("from scratch,")
    with pytest.raises(UsageError, match="does not say how large"):
        report_sizes([tmp_path / "unknown"], tmp_path / "out")


def test_score_against_size_on_the_page(tmp_path: Path) -> None:
    from tests.unit.study.test_run import RUNNER

    from softprompt.errors import UsageError
    from softprompt.study.run import run_study

    for name, parameters, study in (
        ("big", 2_000_000, small_study()),
        ("little", 500_000, small_study()),
        ("other", 1_000_000, small_study(targets=["apple", "cherry"])),
    ):
        options = {"backbone": name, "parameters": parameters}
        run_study(study, tmp_path / name, runner=RUNNER, runner_options=options)
    alone = report_study(tmp_path / "big", tmp_path / "alone", figures=False).page.read_text()
    assert "One size was measured" in alone
    assert 'id="score-size"' not in alone
    report = report_study(tmp_path / "big", tmp_path / "out", figures=False, beside=[tmp_path / "little"])
    page = report.page.read_text()
    check(page)
    assert "One size was measured" not in page
    chart = page[page.index('id="score-size"') :]
    chart = chart[: chart.index("</figure>")]
    assert chart.index(">0.5M</text>") < chart.index(">2M</text>")
    scores = re.findall(r"<title>prompt tuning: ([0-9e+.]+), ([0-9.]+)</title>", chart)
    assert [float(size) for size, _ in scores] == [500_000, 2_000_000]
    head, scratch = (tmp_path / "out" / "tables" / "model_sizes.csv").read_text().splitlines()[:2]
    assert head.index("(0M)") < head.index("(2M)")
    assert f"{float(scratch.split(',')[1]):.1f}" == scores[0][1]
    with pytest.raises(UsageError, match=r"compared on the same target tasks.*apple, cherry"):
        report_study(tmp_path / "big", tmp_path / "no", figures=False, beside=[tmp_path / "other"])


def test_numbers_of_a_table_as_they_are_read() -> None:
    from softprompt.report.parts import minus, table_html
    from softprompt.study.tables import Cell, Table

    assert minus("-0.4 [-1.0, +0.2] k-means, 2026-11-21, gpt-2") == "−0.4 [−1.0, +0.2] k-means, 2026-11-21, gpt-2"
    table = Table(
        name="t", title="t", columns=("method", "score", "told"), rules=(1,),
        rows=(("a", Cell(value=-0.04, mark="second"), "no row at hand"), ("b", Cell(value=-3.0, mark="best"), "5%")),
    )  # fmt: skip
    html = table_html(table)
    check(html)
    assert '<td class="second" data-v="-0.04"><span class="value">0.0</span></td>' in html  # no minus before nothing
    assert '<td class="best" data-v="-3.0"><span class="value">−3.0</span></td>' in html
    assert html.count('<tr class="rule">') == 1
    assert html.index("no row at hand") < html.index('<tr class="rule">') < html.index("−3.0")
    assert "<td class=words>no row at hand</td>" in html  # words among numbers may wrap


PROBE = """
<script>
addEventListener('load', () => {
  const out = {}, box = document.querySelector('#gain-map'), table = box.querySelector('table');
  const rows = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  const key = (cell, name) => cell.dispatchEvent(new KeyboardEvent('keydown', {key: name, bubbles: true}));
  out.before = rows();
  table.tHead.querySelectorAll('button')[9].click();          // sort by cb
  out.sorted = rows();
  out.aria = table.tHead.rows[0].cells[10].getAttribute('aria-sort');
  box.querySelector('[data-order=given]').click();
  out.given = rows();
  const first = table.tBodies[0].rows[0].cells[1];
  first.focus(); key(first, 'ArrowDown'); key(document.activeElement, 'ArrowRight');
  out.focused = document.activeElement.getAttribute('aria-label');
  out.detail = box.querySelector('.detail').textContent;
  out.wide = document.documentElement.scrollWidth <= innerWidth;
  out.dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const cell = getComputedStyle(first), page = getComputedStyle(document.documentElement);
  out.colours = [page.backgroundColor, page.color];
  const sortable = document.querySelector('table.sortable');
  sortable.querySelectorAll('thead button')[1].click();
  out.lead = sortable.tBodies[0].rows[0].cells[0].textContent;
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
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
             f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(tmp_path: Path, scheme: str) -> None:
    import html
    import json

    results = read_table(TABLE_6)
    page = study_page(results, strategy_rows(results, (1, 3)), title="Published")
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", PROBE))
    dom = browse(path, f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[:2000]
    out = json.loads(html.unescape(found[1]))
    assert out["before"] == out["given"] == list(results.sources)
    assert out["sorted"][:2] == ["mnli", "sst2"]  # 58.9 and 2.7 on cb
    assert out["aria"] == "descending"
    assert out["focused"] == out["detail"]
    assert out["focused"].startswith("doc_nli to cola: -0.4 %")
    assert out["wide"]
    assert out["lead"] == "from scratch"  # the baseline stays on top
    assert out["dark"] is (scheme == "dark")
    assert out["colours"] == (
        ["rgb(20, 23, 27)", "rgb(232, 234, 237)"] if scheme == "dark" else ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    )


def test_words_wrap_before_a_table_has_to_be_moved_sideways(tmp_path: Path) -> None:
    from softprompt.report.parts import page, table_html
    from softprompt.study.tables import Table

    def table(name: str, columns: int, head: str, label: str, number: str) -> str:
        row = (label, *[number] * (columns - 2), "no row of it was at hand when this was told of it")
        return table_html(Table(name=name, title=name, columns=("search", *[head] * (columns - 1)), rows=(row, row)))

    words = table(
        "words", 8, "excess over as many seeds from scratch", "best_of_top_k of the one or the other " * 4, "1.0"
    )
    numbers = table("numbers", 40, "score", "best_of_top_k", "-175% [-1043, 81]")
    probe = """<script>addEventListener('load', () => {
      const wide = [...document.querySelectorAll('.scroll')].filter(part => part.scrollWidth > part.clientWidth);
      document.body.innerHTML = '<pre id="probe">' + wide.map(part => part.querySelector('caption').textContent) + '</pre>';
    });</script></body>"""
    path = tmp_path / "page.html"
    path.write_text(page("Tables", "", [("t", "Tables", words + numbers)], "").replace("</body>", probe))
    assert '<pre id="probe">numbers</pre>' in browse(path)


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_on_every_cell_and_surface() -> None:
    from softprompt.report.style import CSS

    themes = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme)) for theme in themes[:2])
    for theme in (light, dark):
        for text, surface in (
            ("ink", "bg"), ("ink", "panel"), ("soft", "bg"), ("soft", "panel"), ("accent", "bg"), ("ink", "pos"),
            ("ink", "neg"), *((f"s{i}", "bg") for i in range(7)),
        ):  # fmt: skip
            one, two = luminance(theme[text]), luminance(theme[surface])
            ratio = (max(one, two) + 0.05) / (min(one, two) + 0.05)
            assert ratio >= 4.5, (text, surface, ratio)
