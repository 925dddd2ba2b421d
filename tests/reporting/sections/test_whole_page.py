"""The page of a study that has everything: each number of each section is on it; what a file lacks is left out."""

from __future__ import annotations

import copy
import html
import re

import pytest

from wsol.reporting import rows, write_report

HEADINGS = {
    "audit": "What was checked",
    "more": "More numbers",
    "carries": "Does the chosen threshold carry over?",
    "sources": "What each source of a threshold would give",
    "ranking": "Ranking over thresholds",
    "scales": "What would another scale of the maps change?",
    "differences": "Are the maps really different?",
    "activation": "Do the maps mark too much or too little?",
    "regions": "Which lesions are found?",
    "boxes": "Boxes</h4>",
    "classification": "How well do the models classify?",
    "faithfulness": "Do the maps say what the network does?",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory, full, beside, pictures):
    path = tmp_path_factory.mktemp("whole") / "index.html"
    write_report(path, full, root=pictures, **beside)
    return path.read_text()


@pytest.fixture(scope="module")
def text(page):
    return html.unescape(page)


def percent(value):
    return f"{100 * value:.1f}"


def between(text, start, end):
    """The page from one heading to another."""
    return text[text.index(start) : text.index(end, text.index(start))]


def test_the_page_is_sound(page, check_html):
    check_html(page)


def test_sections_stand_in_reading_order(text):
    places = [text.index(words) for words in HEADINGS.values()]
    assert places == sorted(places)


def test_audit_says_what_is_wrong_and_what_to_do_errors_first(text):
    part = between(text, '<section id="audit">', "</section>")
    assert "1 error, 1 warning, 1 note; 2 of 4 checks passed, 1 not made" in part
    assert part.index("3 patients are in train and test: p1, p2, p3") < part.index("no random floor")
    assert "What to do: split by patient" in part
    assert "manifest.parquet, fold 0" in part
    assert "Not made: opened masks. No record says which masks were opened." in part
    assert "Passed: valpx in training · constant maps." in part


def test_few_masks_and_failed_sanity_are_findings(text):
    assert text.count("6 masks of 4 patients: the threshold may lie anywhere from 31 to 52") == 2  # the best map of each model
    assert "do not explain the model: layer-cam of gap (b-cl) (cascading and independent), layer-cam of lse" in text


def test_more_numbers(text, full):
    part = between(text, HEADINGS["more"], "How much does the threshold matter?")
    for row in rows(full):
        for name in ("auc", "normalized_ap", "dice_background", "specificity", "image_pxap", "patient_pxap", "patient_dice"):
            assert f'data-v="{row.value(name).mean!r}">{percent(row.value(name).mean)}<' in part, (row.name, name)
    assert "by slide" not in part


def test_threshold_carries(text, full):
    part = between(text, HEADINGS["carries"], HEADINGS["sources"])
    assert "33.0–47.0<small>width 14.0" in part
    assert "36.0–55.5" in part
    assert "validation masks (6)" in part
    assert "+4.3" in part
    for row in (r for r in rows(full) if not r.floor):
        assert f'data-v="{row.value("threshold_gap").mean!r}"' in part
    assert 'left:36.0%;width:19.5%"></i><u style="left:42.0%"></u><b style="left:44.0%' in part


def test_sources_of_a_threshold(text, full):
    part = between(text, HEADINGS["sources"], HEADINGS["ranking"])
    entry = full[0]["methods"]["cam"]["thresholds"]
    for name in ("fixed", "per-image otsu", "test oracle"):
        assert f'data-v="{entry[name]["dice"]!r}"' in part
        assert f">{percent(entry[name]['dice'])}<small>flags {percent(entry[name]['flagged_area'])}<" in part
    assert 'title="a marginal bound at level 0.95 needs 19 negative patients, got 4">–<' in part
    assert 'title="label-free (per-image otsu): to be read with care"' in part
    assert "threshold 45.0, precision 60.0, recall 70.0, lost to the oracle" in part


def test_ranking_over_thresholds(text, beside):
    part = between(text, HEADINGS["ranking"], HEADINGS["scales"])
    ranks = beside["rankings"][0]["ranks"]
    first = sum(
        min(column) == own for own, column in zip(ranks["pixel-regression"], zip(*ranks.values(), strict=True), strict=True)
    )
    assert f"pixel-regression, the best by PxAP, is first (or tied) at {100 * first / 101:.0f} % of the thresholds." in part
    assert "17 times one map overtakes another" in part
    assert "Kendall's tau), median over thresholds: 0.90" in part
    assert "3 more maps are ranked but not drawn" in part
    assert part.count("<svg") == 1


def test_scales(text, full):
    part = between(text, HEADINGS["scales"], HEADINGS["differences"])
    for kind in ("fitted", "per-image min-max", "temperature"):
        assert f'data-v="{full[1]["methods"]["cam"]["scales"][kind]["pxap"]!r}"' in part
    assert "rank 1 · lost" in part
    assert 'title="images have no slide">–<' in part
    assert "The order of the maps is the same under every scale (this study: fitted)." in part


def test_differences_name_their_correction(text, beside):
    part = between(text, HEADINGS["differences"], HEADINGS["activation"])
    assert "PxAP against pixel-regression" in part
    for row in beside["differences"][0]["rows"]:
        assert f'data-v="{row["mean"]!r}"' in part
        assert f"{100 * abs(row['low']):.1f} to " in part
    near = [row["name"] for row in beside["differences"][0]["rows"][:2]]
    assert f"2 of 10 maps are not distinguishable from pixel-regression (the interval covers 0): {', '.join(near)}." in part
    assert part.count('unsure">not distinguishable') == 2
    assert "lower, but not after Holm" in part
    assert "lower, p 0.016 after Holm" in part
    assert "1 of 6" in part
    assert "significant" not in part


def test_activation(text):
    part = between(text, HEADINGS["activation"], HEADINGS["regions"])
    for number in ("42.5", "63.3", "29.4", "12.8", "41.7", "8.3"):
        assert f">{number}<" in part
    assert ">63.3<small>55.0–69.0<" in part
    assert 'title="of 12 images">41.7<' in part
    assert "Over-activated: activated area above 1.5 x the true area" in part
    assert part.count("<svg") == 2
    assert "malignant" in part


def test_regions_and_boxes(text, full):
    part = between(text, HEADINGS["regions"], HEADINGS["classification"])
    for row in (r for r in rows(full) if not r.floor):
        for name in ("lesions_hit", "froc"):
            assert f">{percent(row.value(name).mean)}<" in part
    assert "A lesion is hit when half of its area is flagged." in part
    for label in ("below 1,000 µm²", "1,000–10,000 µm²", "from 10,000 µm²", "18 lesions"):
        assert label in part
    assert "12 slides, 4 of them without a lesion" in part
    for number in ("47.2", "58.3", "41.7", "45.8", "66.7", "50.0", "25.0", "37.0", "62.3"):
        assert f">{number}<" in part
    assert "Percent of 12 images with a box." in part


def test_classification(text):
    part = between(text, HEADINGS["classification"], HEADINGS["faithfulness"])
    assert re.search(r">patient<.*?>6<.*?>92\.5<.*?>92\.1<.*?>98\.1<.*?>12\.3<.*?>0\.117<", part, re.DOTALL)
    assert "86.1–96.9" in part
    assert "lse (b-cl): 1.37; gap (b-cl): 1.37" in part
    assert '<td class="num wrong">1<small>17 %</small>' in part
    assert '<td class="num right">6<small>100 %</small>' in part


def test_faithfulness_and_sanity(text):
    part = between(text, HEADINGS["faithfulness"], "What the maps look like")
    for words in ("insertion ↑", "deletion ↓", "average-drop ↓", "adcc ↑", "saliency-metric ↓", "road ↑"):
        assert words in part
    assert re.search(r">61\.2<small>56\.2–67\.2<", part)
    assert re.search(r">0\.430<small>0\.380 to 0\.490<", part)
    assert "fold 0, seed 0, 8 images of split valcl" in part
    assert '<span class="chip bad" title="the map stays similar although the model knows nothing"><i>cascading</i> fails' in part
    assert '<span class="chip good" title="the map changes with the model"><i>labels</i> passes' in part
    assert '<b>control: edges</b> <span class="chip " title="a control has to fail' in part
    assert "trained on shuffled labels: cam 0.08." in part
    assert "control: eigen-cam" in part
    assert "stage4" in part


def test_provenance_counts_opened_masks(text):
    assert "6 of the validation split to choose with, 12 to score" in text


def test_older_files_leave_sections_out(tmp_path, make_study):
    write_report(tmp_path / "x.html", make_study(None))
    found = (tmp_path / "x.html").read_text()
    assert not [words for words in (*HEADINGS.values(), "Masks opened") if words in found]
    assert "How much does the threshold matter?" in found


def test_what_is_undefined_is_a_dash(tmp_path, make_full, beside, check_html):
    """Every number of the new parts is None at once, as at a split without any foreground."""

    def emptied(value):
        if isinstance(value, dict):
            return {k: emptied(v) for k, v in value.items()}
        return [emptied(v) for v in value] if isinstance(value, list) else None if isinstance(value, float) else value

    files = make_full()
    for one in files:
        one["classification"] = one["classification"] and one["classification"] | {
            "levels": emptied(one["classification"]["levels"]), 
            "reliability": {"confidence": [None], "accuracy": [None], "count": [0]},
            "temperature": None,
        }  # fmt: skip
        for result in one["methods"].values():
            for name in ("macro", "thresholds", "scales", "activation", "boxes"):
                result[name] = emptied(result[name])
            result["transfer"] = None
            result["regions"] = emptied(result["regions"]) | {"froc": None, "by_size": []}
            result["samples"] = {s: emptied(v) for s, v in result["samples"].items()}
    extras = copy.deepcopy(beside)
    for table in extras["differences"]:
        table["rows"] = emptied(table["rows"])
    extras["rankings"][0]["ranks"] = {k: [None] * 101 for k in extras["rankings"][0]["ranks"]}
    extras["probes"] = emptied(extras["probes"])
    write_report(tmp_path / "x.html", files, **extras)
    found = (tmp_path / "x.html").read_text()
    check_html(found)
    assert "nothing to score it on" in found
    assert not re.search(r"\b(nan|None)\b", re.sub(r'src="data:image[^"]*"', "", found))


def test_folds_seeds_and_splits_do_not_mix(tmp_path, make_full, beside, check_html):
    files = make_full(folds=2, splits=("test", "valcl"))
    extras = copy.deepcopy(beside)
    for name in ("differences", "rankings"):
        extras[name] += [one | {"fold": 1} for one in extras[name]]
    write_report(tmp_path / "x.html", files, **extras)
    found = (tmp_path / "x.html").read_text()
    check_html(found)
    assert found.count("1 more comparison<") == 1  # of the split test only
    assert "1 more folds and seeds" in found
    assert "fold 1, seed 0" in found
    assert ", 2 runs added up" in found
    assert "40 lesions" in found  # 20 in each fold


def test_the_survey_s_protocol_is_said(tmp_path, make_study):
    files = make_study(None)
    files[0]["protocol"] = "survey"
    write_report(tmp_path / "x.html", files)
    assert "Survey's protocol." in (tmp_path / "x.html").read_text()
