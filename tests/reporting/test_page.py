"""The page: every number is on it, it needs nothing beside it, and odd inputs do not break it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from wsol.reporting import rows, write_report
from wsol.reporting.figures import history_figure, threshold_figure
from wsol.reporting.gallery import telling
from wsol.reporting.layers import data_uri
from wsol.reporting.svg import Palette


@pytest.fixture(scope="module")
def page(tmp_path_factory, scores, pictures, make_history):
    folder = tmp_path_factory.mktemp("report")
    statuses = [{"slide": "s3", "status": "empty", "reason": "no tissue"}, {"slide": "s4", "status": "ok", "reason": "fine"}]
    histories = [make_history("gap"), make_history("lse")]
    write_report(folder / "index.html", scores, title="A <study> & more", histories=histories, statuses=statuses, root=pictures)
    return folder / "index.html"


def test_every_number_is_on_the_page(page, scores):
    text = page.read_text()
    for row in rows(scores):
        for name in ("pxap", "pxap:benign", "pxap:malignant", "ap", "dice", "oracle_dice", "threshold"):
            value = row.value(name)
            assert f"{100 * value.mean:.1f}" in text, (row.name, name)
            assert f'data-v="{value.mean!r}"' in text, (row.name, name)
        for name in ("pxap", "dice"):
            assert f"{100 * row.value(name).low:.1f}–{100 * row.value(name).high:.1f}" in text
    assert ">92.5<" in text
    assert "6 patients" in text


def test_the_page_needs_nothing_beside_it_and_its_references_lead_somewhere(page, check_html):
    check_html(page.read_text())


def test_it_warns_names_and_lists(page, scores):
    text = page.read_text()
    assert "A &lt;study&gt; &amp; more" in text
    assert "<study>" not in text
    assert scores[0]["note"] in text
    assert "lose to the stain map" in text
    assert "below stain map" in text
    assert "no tissue" in text
    assert "s3 (empty)" in text
    assert "s4 (ok)" not in text
    assert "What the badges mean" in text
    assert "a3f00c7725d1be42" in text
    assert "Mixed code versions" not in text
    assert (page.parent / "leaderboard.csv").is_file()
    assert not list(page.parent.glob(".*.part*"))


def test_mixed_and_dirty_code_is_warned_about(tmp_path, make_study):
    files = make_study(None)
    files[0]["provenance"]["code"] = "0.1.0+gaaaaaaaaaaaa.dirty"
    write_report(tmp_path / "x.html", files)
    text = (tmp_path / "x.html").read_text()
    assert "Mixed code versions" in text
    assert "uncommitted" in text


def test_slides_with_negatives_and_undefined_numbers(tmp_path, make_study):
    files = make_study(None, negatives=True)
    for one in files:
        one["mask_means"], one["note"] = "class", ""
        for result in one["methods"].values():
            result["groups"]["benign"] = {k: ([None, None] if "interval" in k else None) for k in result["groups"]["benign"]}
            result["oracle"] = None
            result["curve"]["precision"][100] = None
    write_report(tmp_path / "x.html", files)
    text = (tmp_path / "x.html").read_text()
    assert "Flagged on negatives" in text
    assert "13.7" in text
    assert "PxAP benign" not in text
    assert "About these masks" not in text


def test_folds_and_splits(tmp_path, make_study, make_history):
    files = make_study(None, folds=2, splits=("valcl", "test"))
    write_report(tmp_path / "x.html", files, histories=[make_history("gap", f) for f in range(2)])
    text = (tmp_path / "x.html").read_text()
    assert text.index("split test") < text.index("split valcl")
    assert "± standard deviation over runs" in text
    assert "2 runs" in text


def test_no_scores_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"at least one scores\.json"):
        write_report(tmp_path / "x.html", [])


def test_the_same_scores_give_the_same_page(tmp_path, make_study):
    for name in ("a", "b"):
        write_report(tmp_path / f"{name}.html", make_study(None))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_figures_are_svg_in_the_colors_of_the_page(scores, make_history):
    table = rows(scores)
    for svg in (threshold_figure(table[:3], "f", Palette.of(table), table[-1]), history_figure([make_history("gap")], "h")):
        ET.fromstring(svg)
        assert "#0a0b" not in svg
        assert "var(--c1)" in svg
        assert "currentColor" in svg
    assert history_figure([], "h") == ""


def test_history_columns_have_several_spellings():
    rows = [{"epoch": e, "train/loss": 1 / e, "valcl_loss": 2 / e, "valcl_accuracy": 0.5, "lr": 1.0} for e in (1.0, 2.0)]
    svg = history_figure([{"key": {"model": "gap", "fold": 0, "seed": 0}, "rows": rows}], "h")
    assert "loss: training, validation dashed" in svg
    assert "validation accuracy (%)" in svg
    assert ">lr<" not in svg


def test_best_median_and_worst_are_telling(scores):
    row = next(r for r in rows(scores) if r.model == "lse" and r.method == "cam")
    dice = {name: v["dice"] for name, v in scores[1]["methods"]["cam"]["samples"].items()}
    order = sorted(dice, key=lambda name: -dice[name])
    assert telling(row) == {"best": order[0], "median": order[5], "worst": order[-1]}


def test_of_samples_without_foreground_the_most_flagged_is_telling(make_study):
    files = make_study(None)
    samples = files[1]["methods"]["cam"]["samples"]
    for i, (name, area) in enumerate({"test A": 0.1, "test B": 0.3}.items()):
        samples[name] = {**list(samples.values())[i], "dice": None, "flagged_area": area}
    row = next(r for r in rows(files) if r.model == "lse" and r.method == "cam")
    assert telling(row)["most flagged negative"] == "test B"


def test_pictures_are_made_small(tmp_path):
    Image.new("RGBA", (3000, 1500), (200, 10, 10, 255)).save(tmp_path / "big.png")
    import base64
    import io

    uri = data_uri(tmp_path / "big.png", side=300)
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as small:
        assert small.size == (300, 150)
