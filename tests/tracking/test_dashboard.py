"""The saved views, as JSON and as a browser shows them on a running server."""

from __future__ import annotations

import copy
import html.parser
import json
import re
import shutil
import subprocess
import warnings

import pytest

from wsol.tracking import init, links, log, records
from wsol.tracking.dashboard import views

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")


def test_a_link_opens_the_right_mode_and_does_not_override_its_view():
    found = links("http://a:1/", "3")
    assert next(iter(found.values())) == "http://a:1/#/experiments/3/runs?workflowType=machine_learning&viewStateShareKey=wsol"
    assert all("workflowType=machine_learning" in link and "orderBy" not in link for link in found.values())
    keys = [link.partition("viewStateShareKey=")[2].split("&")[0] for link in found.values()]
    assert keys == list(views(["test"]))


def test_views_show_the_split_that_was_scored():
    table = json.loads(views(["test", "valcl"])["wsol"])
    assert table["orderByKey"] == "metrics.`test/pxap`"
    other = json.loads(views(["valcl"])["wsol"])
    assert (other["orderByKey"], other["orderByAsc"]) == ("metrics.`valcl/pxap`", False)
    curves = json.loads(views(["valcl"])["wsol-curves"])
    assert "threshold_pct_valcl/dice" in [chart["metricKey"] for chart in curves["compareRunCharts"]]
    assert {chart["metricSectionId"] for chart in curves["compareRunCharts"]} == {s["uuid"] for s in curves["compareRunSections"]}
    assert json.loads(views([])["wsol"]) == table


def test_a_view_fits_in_a_tag_of_any_server():
    assert max(len(state) for state in views(["valcl"]).values()) < 5000  # the limit before MLflow 3


def test_every_column_is_something_that_is_logged(make_full):
    (record,) = records([make_full(methods=("cam",))])
    state = json.loads(views(["test"])["wsol-curves"])
    for column in state["selectedColumns"]:
        kind, name = column.split(".", 1)
        there = {"metrics": record.metrics, "params": record.params, "tags": record.tags | {"audit.errors": "0"}}
        assert kind == "attributes" or name.strip("`") in there[kind], column
    for chart in state["compareRunCharts"]:
        assert chart["metricKey"] in {**record.metrics, **record.curves, "train/loss": 0, "val/accuracy": 0, "val/loss": 0}


class Cells(html.parser.HTMLParser):
    """(row, column) -> the words in a cell of the table of runs."""

    def __init__(self, page):
        super().__init__()
        self.open, self.cells = [], {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("br", "img", "input", "hr", "meta", "link"):
            self.open.append(dict(attrs))

    def handle_endtag(self, tag):
        if self.open and tag not in ("br", "img", "input", "hr", "meta", "link"):
            self.open.pop()

    def handle_data(self, data):
        row = next((a["row-index"] for a in reversed(self.open) if "row-index" in a), None)
        column = next((a["col-id"] for a in reversed(self.open) if "col-id" in a), None)
        if row is not None and column is not None and data.strip():
            self.cells[int(row), column] = self.cells.get((int(row), column), "") + data


def shown(link, folder, ready):
    """The page as a browser has it after twenty seconds of its time, or later where `ready` is not drawn by then."""
    for seconds in (20, 60, 180):
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--window-size=2600,1400",
            f"--virtual-time-budget={seconds * 1000}", "--dump-dom", link,
        ]  # fmt: skip
        page = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
        if ready in page:
            break
    return page


@pytest.fixture(scope="module")
def logged(server, make_full):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401
    number = init(server[0], "shown")
    scores = [make_full(methods=("cam", "grad-cam"), seed=seed, pxap=0.6 + seed / 20) for seed in range(2)]
    scores.append(make_full(model="floors", methods=("random",), pxap=0.5))
    scores = copy.deepcopy(scores)
    log(records(scores, audit={"glas": {"errors": 0, "warnings": 1}}), server[0], "shown")
    return links(server[0], number)


@needs_browser
def test_a_browser_shows_the_runs_best_map_first(logged, tmp_path):
    page = shown(logged["runs, best map first"], tmp_path, "metrics.`test/patients`")
    assert "One row is one map method on one trained model" in page
    cells = Cells(page).cells
    best = [float(cells[row, "metrics.`test/pxap`"]) for row in range(5)]
    assert best == [65, 65, 60, 60, 50]
    assert [cells[row, "params.`method`"] for row in range(5)][-1] == "random"
    assert [cells[row, "tags.`kind`"] for row in range(5)] == ["localizer"] * 4 + ["floor"]
    assert (cells[0, "metrics.`test/pxap_low`"], cells[0, "metrics.`test/pxap_high`"]) == ("60", "69")
    assert cells[0, "metrics.`test/dice_lost_to_threshold`"] == "8.7654"
    shown_first = [column.split("/")[-1].strip("`") for row, column in cells if row == 0 and column.startswith("metrics.")]
    assert shown_first[:5] == ["pxap", "pxap_low", "pxap_high", "patients", "prevalence"]


@needs_browser
def test_a_browser_groups_by_method_and_averages(logged, tmp_path):
    cells = Cells(shown(logged["means by map method"], tmp_path, "(average)")).cells
    names = {row: words for (row, column), words in cells.items() if column == "attributes.`Run Name`"}
    groups = {found[1]: row for row, words in names.items() if (found := re.search(r"Group: ([a-z-]+)\d+$", words))}
    assert {name: cells[row, "metrics.`test/pxap`"] for name, row in groups.items()} == {
        "cam": "62.5 (average)", "grad-cam": "62.5 (average)", "random": "50 (average)",
    }  # fmt: skip


@needs_browser
def test_a_browser_draws_the_curves(logged, tmp_path):
    page = shown(logged["curves over threshold and epochs"], tmp_path, "threshold_pct/dice")
    sections = re.findall(r">(Scores|Over the threshold \(percent\))</div><div[^>]*>\((\d+)\)<", page)
    assert sections == [("Scores", "4"), ("Over the threshold (percent)", "4")]
    assert "threshold_pct/dice" in page
