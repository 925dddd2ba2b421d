"""The fast path against OpenSlide itself, to the bit."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from wsol.slides import Box, SlideError, open_slide
from wsol.slides.native import CACHE
from wsol.slides.subpixel import shifted, split

_spec = importlib.util.spec_from_file_location("jpeg_tiff", Path(__file__).with_name("jpeg_tiff.py"))
_jpeg_tiff = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_jpeg_tiff)
write_jpeg_tiff = _jpeg_tiff.write_jpeg_tiff

KINDS = ["444", "422", "420", "440", "411", "rgb", "gray"]
APERIO = "Aperio Image Library v11.2.1\r\n|AppMag = 20|MPP = 0.5"
SIZE = (304, 332)


@pytest.fixture(scope="module")
def colorful():
    """Blurred noise that spans the range: every tile has color at every scale."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8), (0, 0), 2)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)


def boxes(count, seed=0, size=SIZE, multiple=1):
    """Boxes on, over and beyond the edges, the first of them whole tiles."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x, y = (int(rng.integers(-n // 4, 5 * n // 4)) // multiple * multiple for n in size[::-1])
        yield Box(x, y, *(int(n) for n in rng.integers(1, 200, 2)))


def from_openslide(handle, box, level=0):
    down = round(handle.level_downsamples[level])
    return on_white(handle, (box.x, box.y), level, (max(1, round(box.width / down)), max(1, round(box.height / down))))


def on_white(handle, corner, level, size):
    """What OpenSlide paints, on white, by an independent formula."""
    rgba = np.asarray(handle.read_region(corner, level, size)).astype(float)
    alpha = rgba[..., 3:] / 255
    return np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def without_openslide(slide, monkeypatch):
    """Probes every level, then forbids OpenSlide to paint."""
    agreed = [slide._reader._agreed(level) is not None for level in range(len(slide.downsamples))]
    monkeypatch.setattr(slide._reader, "_painted", lambda *a: pytest.fail(f"OpenSlide was asked for {a}"))
    return agreed


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_is_read_as_openslide_reads_it(tmp_path, monkeypatch, colorful, kind, shared):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, kind=kind, shared=shared, levels=3)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert without_openslide(slide, monkeypatch) == [True, True, True]
        assert slide.tiles == ((64, 64),) * 3
        for level, down in enumerate([1, 2, 4]):
            for box in boxes(25, seed=level, multiple=down):
                box = Box(box.x, box.y, box.width * down, box.height * down)
                np.testing.assert_array_equal(slide.read(box, 0.5 * down), from_openslide(handle, box, level))


@pytest.mark.parametrize("tile", [(16, 16), (48, 112), (304, 336), (512, 512)])
def test_every_size_of_tile(tmp_path, monkeypatch, colorful, tile):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, tile=tile)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert without_openslide(slide, monkeypatch) == [True]
        assert slide.tiles == (tile[::-1],)
        for box in [Box(0, 0, *SIZE[::-1]), Box(tile[1], tile[0], *tile[::-1]), *boxes(30)]:
            np.testing.assert_array_equal(slide.read(box, 0.5), from_openslide(handle, box))


@pytest.mark.parametrize("down", [2, 3])
def test_every_resolution_is_the_same_with_and_without(tmp_path, colorful, down):
    """Off the px of a coarse level OpenSlide interpolates; levels of down=3 lie at 2.98 and 8.97."""
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, levels=3, down=down)
    with open_slide(path) as fast, open_slide(path, fast=False) as slow:
        assert not any(slow._reader._tiles)
        for i, box in enumerate(boxes(100)):
            mpp = [0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 4.4][i % 7]
            np.testing.assert_array_equal(fast.read(box, mpp), slow.read(box, mpp))


def test_stored_tiles_in_level_0_px(tmp_path, colorful):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, levels=3, tile=(48, 64))
    with open_slide(path) as slide:
        assert [slide.stored_tile(mpp) for mpp in (0.3, 0.5, 0.9, 1.0, 2.0)] == [(64, 48)] * 3 + [(128, 96), (256, 192)]
    with open_slide(write_jpeg_tiff(tmp_path / "t.tiff", colorful, levels=2, down=3)) as slide:
        assert slide.stored_tile(1.5) is None


@pytest.mark.parametrize(("tile", "down"), [((64, 64), 4), ((32, 48), 2), ((48, 16), 3), ((256, 256), 2)])
def test_between_two_px_as_openslide_interpolates(tmp_path, monkeypatch, tile, down):
    """Levels at 4.004, 2.002 and 2.994 px: nearly every box is between px, and its seams between tiles are too."""
    noise = np.random.default_rng(0).integers(0, 256, (509, 512, 3), dtype=np.uint8)
    path = write_jpeg_tiff(tmp_path / "s.tiff", noise, kind="444", tile=tile, levels=2, down=down)
    rng = np.random.default_rng(1)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert without_openslide(slide, monkeypatch) == [True, True]
        assert not slide.downsamples[1].is_integer()
        for _ in range(60):
            x, y = (int(rng.integers(0, 300)) for _ in range(2))
            width, height = (int(rng.integers(1, (505 - start) // down)) for start in (x, y))
            theirs = on_white(handle, (x, y), 1, (width, height))
            np.testing.assert_array_equal(slide._reader.read(1, x, y, width, height), theirs)


@pytest.mark.parametrize("length", [8600, 8599])
def test_what_openslide_paints_in_parts(tmp_path, length):
    """It paints 4096 px at once: at a downsample that is no whole number each part has a fraction of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (40, length, 3), dtype=np.uint8)
    path = write_jpeg_tiff(tmp_path / "s.tiff", noise, kind="444", levels=2)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert slide._reader._agreed(1) is not None
        for x, width in ((0, 4290), (1, 4200), (1, 4096), (90, 4097)):
            theirs = on_white(handle, (x, 3), 1, (width, 16))
            np.testing.assert_array_equal(slide._reader.read(1, x, 3, width, 16), theirs)


def test_shifts_known_beforehand():
    block = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    zero, half = np.float32(0), np.float32(0.5)
    np.testing.assert_array_equal(shifted(block, zero, zero, ([2], [1])), block[:-1, :-1])
    for seams in ([], []), ([1, 3], [2]):
        even = block // 2 * 2
        np.testing.assert_array_equal(shifted(np.full_like(block, 96), half, half, seams), np.full((4, 6, 3), 96))
        error = shifted(even, half, zero, seams) - (even[:-1, :-1].astype(int) + even[:-1, 1:]) / 2
        assert np.abs(error).max() <= 1
    assert split(-0.25) == (-1, np.float32(0.75))
    assert split(3 - 1e-9) == (3, 0)


@pytest.mark.parametrize("description", [None, APERIO])
def test_missing_tiles_are_what_openslide_makes_of_them(tmp_path, colorful, description):
    """White; Aperio's coarse ones are drawn from the finer level, and so is tile 8 of level 1, which lies over a missing one."""
    gone = {(0, 7), (0, 0), (0, 29), (1, 0), (1, 5)}
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, levels=2, missing=gone, shared=True, description=description)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert handle.properties["openslide.vendor"] == ("aperio" if description else "generic-tiff")
        assert [slide._reader._agreed(level) is not None for level in (0, 1)] == [True, description is None]
        assert (slide.read(Box(64, 64, 64, 64), 0.5) == 255).all()  # tile 7: 6 across
        for level in (0, 1):
            for box in boxes(40, multiple=2):
                box = Box(box.x, box.y, 2 * box.width, 2 * box.height)
                np.testing.assert_array_equal(slide.read(box, 0.5 * 2**level), from_openslide(handle, box, level))


def test_what_aperio_draws_over_a_missing_tile_is_found_without_the_probe(tmp_path, colorful):
    """Tile 14 of level 1 is whole, but lies over a missing one: OpenSlide draws it from level 0, and no specimen would tell."""
    options = {"levels": 2, "tile": (32, 32), "description": APERIO}
    with open_slide(write_jpeg_tiff(tmp_path / "whole.tiff", colorful, **options)) as slide:
        assert (2, 2) not in slide._reader._agreed(1).specimens()  # tile 14: 6 across
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, missing={(0, 4 * 11 + 4)}, **options)
    box = Box(128, 128, 64, 64)
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        np.testing.assert_array_equal(slide.read(box, 1.0), from_openslide(handle, box, 1))


def test_a_level_without_any_tile_is_left_to_openslide(tmp_path, colorful):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, missing={(0, n) for n in range(30)})
    with open_slide(path) as slide:
        assert slide._reader._agreed(0) is None
        assert (slide.thumbnail(0.5) == 255).all()


DAMAGE = {
    "cut": lambda stream: stream[: len(stream) // 2],
    "zeros": lambda stream: stream[: len(stream) // 2] + bytes(len(stream) - len(stream) // 2),
    "no JPEG": lambda stream: bytes(len(stream)),
    "two bytes": lambda stream: stream[:2],
    "another size": lambda stream: _jpeg_tiff._encode(np.zeros((32, 64, 3), np.uint8), "420"),
    "no end": lambda stream: stream[:-2],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tiles_end_as_with_openslide_and_spoil_no_other(tmp_path, colorful, damage):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, damage=(8, DAMAGE[damage]))
    whole = write_jpeg_tiff(tmp_path / "whole.tiff", colorful)
    bad, beside = Box(128, 64, 64, 64), Box(64, 64, 64, 64)
    with open_slide(path) as fast, open_slide(path, fast=False) as slow, open_slide(whole, fast=False) as truth:
        outcomes = [_outcome(slide, bad) for slide in (fast, slow)]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0] == "s.tiff: cannot be read"
        for slide in (fast, slow):
            np.testing.assert_array_equal(slide.read(beside, 0.5), truth.read(beside, 0.5))


def _outcome(slide, box):
    try:
        return slide.read(box, 0.5).tobytes()
    except SlideError as error:
        return str(error).split("/")[-1].split(" (")[0]


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_end_as_with_openslide(tmp_path, colorful, seed):
    """25 flips in the first tile's bytes: each is read alike, or refused alike."""
    rng = np.random.default_rng(seed)
    whole = write_jpeg_tiff(tmp_path / "whole.tiff", colorful[:64, :128]).read_bytes()
    for i in range(25):
        data = bytearray(whole)
        data[int(rng.integers(8, 2000))] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{i}.tiff"
        path.write_bytes(data)
        with open_slide(path) as fast, open_slide(path, fast=False) as slow:
            for box in (Box(0, 0, 64, 64), Box(10, 0, 100, 64)):
                a, b = _outcome(fast, box), _outcome(slow, box)
                assert a == b, f"flip {i} of seed {seed}"


def test_a_level_that_openslide_reads_otherwise_is_left_to_it(tmp_path, colorful):
    """Streams that say YCbCr in a directory that says RGB: OpenSlide goes by the directory, libjpeg by the stream."""
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, kind="mislabeled")
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert slide._reader._tiles[0] is not None
        assert slide._reader._agreed(0) is None
        for box in boxes(10):
            np.testing.assert_array_equal(slide.read(box, 0.5), from_openslide(handle, box))


def test_two_directories_of_one_size_are_not_guessed_between(tmp_path, colorful):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, levels=2, down=1)
    with open_slide(path) as slide:
        assert slide._reader._tiles == [None] * len(slide.downsamples)


def test_threads_read_what_one_reads(tmp_path, monkeypatch, colorful):
    monkeypatch.setattr("wsol.slides.native.CACHE", 0)  # 2 tiles: they push each other out all the time
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, tile=(16, 16))
    some = list(boxes(80))
    with open_slide(path) as slide, open_slide(path, fast=False) as slow, ThreadPoolExecutor(8) as pool:
        for box, pixels in zip(some, pool.map(lambda box: slide.read(box, 0.5), some), strict=True):
            np.testing.assert_array_equal(pixels, slow.read(box, 0.5))


def test_a_forked_process_reads_on(tmp_path, colorful):
    """Natively and through OpenSlide (at 1.0, between two px of level 1), while the parent reads too."""
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful, levels=2)
    code = f"""
import os, numpy as np
from wsol.slides import Box, open_slide
boxes = [Box(x, y, 90, 90) for x in range(1, 240, 31) for y in range(1, 200, 37)]
read = lambda slide: [slide.read(box, mpp).tobytes() for box in boxes for mpp in (0.5, 1.0)]
with open_slide({str(path)!r}) as slide:
    expected = read(slide)
    child = os.fork()
    same = read(slide) == expected
    if not child:
        slide.close()
        os._exit(0 if same else 1)
    assert same and os.waitpid(child, 0)[1] == 0
    assert read(slide) == expected
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_pixels_are_the_callers_own(tmp_path, colorful):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful)
    with open_slide(path) as slide:
        first = slide.read(Box(0, 0, 64, 64), 0.5)
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), 0.5), kept)


def test_the_cache_is_bounded(tmp_path, colorful):
    path = write_jpeg_tiff(tmp_path / "s.tiff", colorful)
    with open_slide(path) as slide:
        slide.thumbnail(0.5)
        info = slide._reader._tiles[0]._decoded.cache_info()
    assert info.currsize == 30
    assert info.maxsize * 64 * 64 * 3 <= CACHE


def test_real_slide_is_read_as_openslide_reads_it(shared_data, monkeypatch):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        assert without_openslide(slide, monkeypatch) == [True]
        for box in [Box(240, 480, 240, 240), *boxes(300, size=(2967, 2220))]:
            np.testing.assert_array_equal(slide.read(box, 0.499), from_openslide(handle, box))


def test_a_closed_slide_gives_its_memory_back(tmp_path, colorful):
    """Without the garbage collector, as in a training that passes thousands of slides."""
    path, held = write_jpeg_tiff(tmp_path / "s.tiff", np.tile(colorful, (4, 4, 1))), []
    tracemalloc.start()
    gc.disable()
    try:
        for _ in range(4):
            with open_slide(path, mpp=0.5) as slide:
                slide.read(Box(0, 0, 4 * SIZE[1], 4 * SIZE[0]), 0.5)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        gc.enable()
        tracemalloc.stop()
    assert held[-1] - held[0] < 6 * SIZE[0] * SIZE[1]  # one image has 48 bytes for each of these px
