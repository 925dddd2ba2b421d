"""The gallery: which samples are on the page, in what order, with which layers, and what it says of the others."""

from __future__ import annotations

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from wsol.reporting import rows, write_report
from wsol.reporting.gallery import evenly
from wsol.reporting.layers import Album, Layers, heat_uri, image_uri, mask_uri
from wsol.reporting.part import parts
from wsol.reporting.sections.gallery import section

SIZE = (48, 64)


def opened(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def look(asked, sample):
    """Heat that rises from left to right, a mask of the right half, nothing drawn in the first rows."""
    heat = np.tile(np.linspace(0, 1, SIZE[1], dtype=np.float32), (SIZE[0], 1))
    heat[:10] = np.nan
    mask = np.zeros(SIZE, bool)
    mask[:, 32:] = True
    rgb = np.full((96, 128, 3), (200, 120, 180), np.uint8)
    return Layers(rgb, [heat] * len(asked), mask, 2.0, [f"maps/{sample}.ome.tiff"])


def of(files, album):
    (part,) = parts(rows(files), album=album)
    return section(part)


def test_layers_are_what_they_were_up_to_what_webp_loses():
    layers = look([None], "s")
    heat = opened(heat_uri(layers.heats[0]))
    assert np.array_equal(heat[..., 3] == 255, np.isfinite(layers.heats[0]))
    assert np.abs(heat[12:, :, 0] / 255 - layers.heats[0][12:]).max() < 0.02
    assert np.array_equal(opened(mask_uri(layers.mask)), layers.mask)
    assert np.abs(opened(image_uri(layers.image)).astype(int) - layers.image).max() < 6


def test_a_whole_map_has_no_transparency():
    assert opened(heat_uri(np.full(SIZE, 0.5, np.float32))).shape == (*SIZE, 3)


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 50, 100]), (2, [0, 100]), (1, [0]), (200, list(range(101)))])
def test_evenly_keeps_both_ends(count, expected):
    assert evenly([str(i) for i in range(101)], count) == [str(i) for i in expected]


def test_cards_go_from_best_to_worst_and_carry_the_numbers_of_every_map(make_study):
    files = make_study(None)
    made = of(files, Album(look))
    table = [r for r in rows(files) if not r.floor]
    best = table[0].parts[0][1]["samples"]
    assert [card["sample"] for card in made["cards"]] == sorted(best, key=lambda s: -best[s]["dice"])
    assert [m["method"] for m in made["maps"]][:8] == [r.method for r in table]
    assert made["maps"][8] == {"method": "blue-minus-red", "model": "floor"}  # the best stain map
    for card in made["data"]:
        for row, numbers in zip(table, card["numbers"], strict=False):
            known = row.parts[0][1]["samples"][card["sample"]]
            assert (numbers["dice"], numbers["pxap"], numbers["threshold"]) == (known["dice"], known["pxap"], 0.42)
        assert len(card["heats"]) == 9


def test_a_threshold_of_its_own_is_that_of_the_sample(make_study):
    files = make_study(None)
    for one in files[:2]:
        for result in one["methods"].values():
            result["threshold"]["values"] = {"testA_0": 0.17}
    made = {card["sample"]: card["numbers"][0]["threshold"] for card in of(files, Album(look))["cards"]}
    assert made["testA_0"] == 0.17
    assert made["testB_1"] == 0.42


def test_few_pictures_are_the_telling_ones_and_the_page_says_so(make_study):
    made = of(make_study(None), Album(look, pictures=6))
    assert len(made["cards"]) == 6
    assert {rank.split(" of ")[0] for card in made["cards"] for rank in card["ranks"]} == {"best", "median", "worst"}
    assert made["words"][0].startswith("6 of 12 samples, from the best Dice to the worst by")


def test_a_budget_ends_the_gallery_openly(make_study):
    cost = sum(
        len(uri) for card in of(make_study(None), Album(look))["cards"] for uri in (card["image"], card["mask"], *card["heats"])
    )
    made = of(make_study(None), Album(look, budget=cost // 2))
    assert 1 <= len(made["cards"]) <= 6
    assert "More pictures would make this page too large." in made["words"]


def test_samples_of_other_folds_have_the_maps_of_their_own_run(make_study):
    made = of(make_study(None, folds=2), Album(look))
    assert {card["run"] for card in made["cards"]} == {"fold 0, seed 0", "fold 1, seed 0"}
    assert len(made["cards"]) == 24


def test_without_pictures_the_overlay_is_shown_and_without_overlay_nothing(scores, pictures, make_study):
    (part,) = parts(rows(scores), root=pictures, album=Album(lambda asked, sample: None))
    made = section(part)
    assert made["layered"] is False
    assert all(card["image"].startswith("data:image/jpeg;base64,") for card in made["cards"])
    assert of(make_study(None), Album(lambda asked, sample: None)) is None


def test_the_page_holds_layers_viewer_and_license(tmp_path, make_study, check_html):
    files = make_study(None)
    write_report(tmp_path / "x.html", files, look=look)
    text = (tmp_path / "x.html").read_text()
    viewer = text[text.index("/*!") : text.index("</script>", text.index("/*!"))]
    assert "OpenSeadragon contributors" in viewer
    assert "Redistributions in binary form must reproduce the above copyright notice" in viewer
    assert "sourceMappingURL" not in viewer
    check_html(text.replace(viewer, ""))  # names of formats that the viewer knows are addresses
    stored = json.loads(html.unescape(re.search(r'id="s0-layers">(.*?)</script>', text, re.DOTALL)[1]))
    assert stored[0]["sample"] == re.search(r'<figure class="card">.*?alt="([^"]*)"', text, re.DOTALL)[1]
    assert stored[0]["files"] == [f"maps/{stored[0]['sample']}.ome.tiff"]


def test_names_cannot_break_out_of_the_data(tmp_path, make_study, check_html):
    files = make_study(None)
    for one in files:
        for result in one["methods"].values():
            result["samples"] = {f"</script><b>{name}": v for name, v in result["samples"].items()}
    write_report(tmp_path / "x.html", files, look=look)
    text = (tmp_path / "x.html").read_text()
    assert "</script><b>" not in text


def test_a_page_without_layers_carries_no_viewer(tmp_path, make_study):
    write_report(tmp_path / "x.html", make_study(None))
    assert "OpenSeadragon" not in (tmp_path / "x.html").read_text()


def test_a_thousand_images_make_a_page_of_bounded_size(tmp_path, make_study):
    """Noise, which no codec makes small, at the size of slides: the budget decides."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1000, 1600, 3), np.uint8)
    layers = Layers(noise, [rng.random((500, 800), np.float32)] * 9, rng.random((500, 800)) < 0.5)
    files = make_study(None)
    for one in files:
        for result in one["methods"].values():
            some = list(result["samples"].values())
            result["samples"] = {f"i{i:04d}": some[i % 12] | {"dice": 1 - i / 1000} for i in range(1000)}
    write_report(tmp_path / "x.html", files, look=lambda asked, sample: layers)
    text = (tmp_path / "x.html").read_text()
    assert len(text) < 26_000_000
    assert "of 1000 samples, from the best Dice to the worst" in text
    assert "More pictures would make this page too large." in text
