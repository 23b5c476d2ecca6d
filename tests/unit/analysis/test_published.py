"""From published Table 6 follow Table 7 and the best source per target (SPoT section 3.1, appendix E; SharPT Table 1)."""

import pytest
from tests.support.published import read_table

from softprompt.analysis.gains import best_sources, gain_table, positive_transfers, score_table
from softprompt.analysis.records import Results
from softprompt.analysis.tables import Cell, show

# Table 7 as printed: transfer and relative increase.
TABLE_7 = """
mnli cb 58.9; mnli copa 29.1; record wsc 20.0; mnli rte 19.2; record mrpc 18.7; squad mrpc 18.7; cxc wic 18.1;
mnli boolq 17.0; mnli mrpc 16.5; qnli wic 16.5; mnli wic 16.2; cxc stsb 16.0; drop mrpc 15.1; squad copa 14.5;
qqp mrpc 14.4; cxc mrpc 13.7; c4 mrpc 13.7; cosmos_qa mrpc 12.9; cosmos_qa copa 12.9; qqp copa 12.2; qnli mrpc 12.2;
qqp wic 11.8; mnli stsb 11.8; squad boolq 11.1; qqp stsb 10.9; qqp boolq 10.7; cxc boolq 10.7; drop wic 10.7;
qqp rte 10.5; c4 boolq 10.4
"""

# The oracle row of SharPT's Table 1, which is the best mean of Table 6.
ORACLE = {
    "boolq": 77.6, "cb": 97.0, "cola": 55.6, "copa": 69.3, "cr": 93.9,
    "mrpc": 88.7, "rte": 74.7, "stsb": 90.0, "wic": 70.2, "wsc": 77.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> Results:
    return read_table()


def test_grid(results: Results) -> None:
    assert (len(results.sources), len(results.targets), len(results.runs)) == (16, 10, 170)


def test_thirty_rows_of_table_7(results: Results) -> None:
    printed = {
        (s, t): v
        for s, t, v in (row.split() for row in TABLE_7.replace("\n", " ").strip(" ;").split(";") if row.strip())
    }
    assert len(printed) == 30
    computed = {}
    values = []
    for label, cell in positive_transfers(results).rows:
        assert isinstance(label, str)
        assert isinstance(cell, Cell)
        assert cell.value is not None
        source, target = label.split(" → ")
        computed[source, target] = f"{cell.value:.1f}"
        values.append(cell.value)
    assert computed == printed
    assert values == sorted(values, reverse=True)


def test_best_source_per_target(results: Results) -> None:
    best = best_sources(results)
    base, score, _ = best.average
    assert f"{base:.1f}" == "74.7"
    assert f"{score:.1f}" == "79.4"
    assert f"{best.mean_gain:.1f}" == "20.9"
    assert dict(zip(results.targets, best.score_T, strict=True)) == ORACLE
    assert best.source_T[results.targets.index("wsc")] == "record"


def test_tables_mark_positive_and_best(results: Results) -> None:
    table = score_table(results)
    assert table.rows[0][0] == "from scratch"
    mnli = dict(zip(table.columns, next(row for row in table.rows if row[0] == "mnli"), strict=True))
    assert isinstance(mnli["cb"], Cell)
    assert (mnli["cb"].mark, show(mnli["cb"])) == ("best", "97.0")
    c4 = dict(zip(table.columns, next(row for row in table.rows if row[0] == "c4"), strict=True))
    assert isinstance(c4["cb"], Cell)
    assert c4["cb"].mark == ""
    gain = dict(zip(table.columns, next(row for row in gain_table(results).rows if row[0] == "hellaswag"), strict=True))
    assert show(gain["cola"]) == "-42.9"
