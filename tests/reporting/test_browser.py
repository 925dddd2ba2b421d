"""The page as a browser sees it, opened from disk: layers, dial of the threshold, viewer, pages; without errors or requests."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from wsol.reporting import write_report
from wsol.reporting.layers import Layers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt install chromium)")

WATCH = """<script>
const said = [];
addEventListener("error", (event) => said.push(event.message));
addEventListener("unhandledrejection", (event) => said.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => said.push("asked for " + event.blockedURI));
</script>"""
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src data: blob: 'unsafe-inline'">"""
ACT = """<script>
const wait = (ms) => new Promise((done) => setTimeout(done, PATIENCE * ms));
const numbers = () => document.querySelector(".card .numbers").textContent;
(async () => {
  const result = {};
  try {
    document.querySelector(".pictures").scrollIntoView();
    await wait(800);
    const canvas = document.querySelector(".card canvas"), form = document.querySelector("form.layers");
    const at = (x, y) => [...canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
    Object.assign(result, { chosen: numbers(), left: at(0.3, 0.6) });
    Object.assign(result, { right: at(0.9, 0.6), above: at(0.9, 0.1), mask: at(0.5, 0.1) });
    form.elements.threshold.value = 50;
    form.elements.threshold.dispatchEvent(new Event("input", { bubbles: true }));
    await wait(500);
    result.moved = numbers();
    form.elements.chosen.click();
    form.elements.map[0].click();
    await wait(500);
    Object.assign(result, { nothing: numbers(), bare: at(0.9, 0.6) });
    form.elements.map[1].click();
    document.querySelector("button.open").click();
    await wait(1500);
    result.open = document.getElementById("viewer").open;
    result.name = document.getElementById("viewer-name").textContent;
    result.scale = document.querySelector(".scale").textContent;
    result.overlay = document.querySelectorAll("#viewer .stage canvas").length;
    document.querySelector("#viewer [data-step='1']").click();
    await wait(1000);
    result.next = document.getElementById("viewer-name").textContent;
    document.querySelector("#viewer [data-close]").click();
    const shown = () => [...document.querySelectorAll(".pictures[data-section] .card")].map((card) => !card.hidden);
    result.first = shown();
    document.querySelector(".pager [data-step='1']").click();
    result.second = shown();
  } catch (error) { said.push(String(error)); }
  document.body.replaceChildren(document.createTextNode("RESULT" + JSON.stringify({ ...result, said }) + "END"));
})();
</script>"""


def look(asked, sample):
    """Heat rises from 0 on the left to 1 on the right, and is not drawn in the upper fifth; the mask is the right half."""
    heat = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (100, 1))
    heat[:20] = np.nan
    mask = np.zeros((100, 200), bool)
    mask[:, 100:] = True
    return Layers(np.full((200, 400, 3), 230, np.uint8), [heat] * len(asked), mask, 2.0)


@pytest.fixture(scope="module")
def seen(tmp_path_factory, make_study):
    """What the browser found on the page of 24 samples; with more patience where its clock ran ahead of its drawing."""
    folder = tmp_path_factory.mktemp("browser")
    write_report(folder / "index.html", make_study(None, folds=2), look=look)
    for patience in (1, 4, 16):
        found = act(folder, patience)
        if found.get("left", [0] * 4)[3] and "≈" in found.get("moved", ""):
            break
    return found


def act(folder, patience):
    """Acts on the page; `patience` times as long as a free machine needs."""
    text = (folder / "index.html").read_text()
    script = ACT.replace("PATIENCE", str(patience))
    text = text.replace("<head>", f"<head>{POLICY}{WATCH}", 1).replace("</body>", f"{script}</body>")
    (folder / "acted.html").write_text(text)
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1200,900", f"--virtual-time-budget={30000 * patience}", "--dump-dom", f"file://{folder / 'acted.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"RESULT(.*)END", html.unescape(done.stdout), re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-1500:]
    return json.loads(found[1])


def test_nothing_fails_and_nothing_is_asked_for(seen):
    assert seen["said"] == []


def test_heat_has_the_color_and_the_opacity_of_its_score(seen):
    from matplotlib import colormaps

    for place, score in (("left", 0.3), ("right", 0.9)):
        *color, alpha = seen[place]
        expected = [255 * v for v in colormaps["viridis"](score)[:3]]
        assert np.abs(np.array(color) - expected).max() < 16, place
        assert abs(alpha - 0.7 * 255 * score) < 8, place
    assert seen["above"][3] == 0  # nothing was drawn there
    assert seen["bare"][3] == 0  # nothing is laid over the image


def test_the_outline_of_the_mask_lies_where_it_ends(seen):
    assert seen["mask"][1] > 150
    assert seen["mask"][3] > 150


def test_a_moved_threshold_says_its_dice(seen):
    assert re.fullmatch(r"Dice \d+\.\d · PxAP \d+\.\d", seen["chosen"])
    dice = float(re.fullmatch(r"Dice ≈ ([\d.]+) at 50\.0", seen["moved"])[1])
    assert abs(dice - 100 * 2 * 80 / (80 + 100)) < 1.0
    assert seen["nothing"] == ""


def test_the_viewer_opens_names_the_sample_and_goes_on(seen):
    assert seen["open"]
    assert seen["name"]
    assert seen["next"] != seen["name"]
    assert seen["overlay"] >= 2  # the image, and what lies over it
    assert re.fullmatch(r"(1|2|5)0* µm", seen["scale"])


def test_pages_of_the_gallery_follow_each_other(seen):
    assert seen["first"] == [True] * 12 + [False] * 12
    assert seen["second"] == [False] * 12 + [True] * 12
