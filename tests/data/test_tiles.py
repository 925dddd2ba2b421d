from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from wsol.data import BagBatches, ImageBatches, PixelCache, read_image, to_tensor, train_transform
from wsol.data.feed import epoch_order, work_ahead


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(picture, rows):
    return rows([picture(f"i{i}.png", shape=(8, 9)) for i in range(7)], [0, 0, 0, 0, 0, 1, 1])


@pytest.fixture
def slides(picture, rows):
    """Three plain-image slides at 0.5 um per px of constant 8 px tiles, valued by slide and tile; the third has no tile."""
    paths, tables = [], {}
    for i in range(3):
        tiles = np.arange(12, dtype=np.uint8).reshape(3, 4) + 100 * min(i, 1)
        paths.append(picture(f"slide{i}.png", np.repeat(np.kron(tiles, np.ones((8, 8), np.uint8))[..., None], 3, 2)))
        y, x = (v.ravel() * 8 for v in np.mgrid[:3, :4])
        table = pd.DataFrame({"x": x, "y": y, "width": 8, "height": 8, "tissue": 1.0})
        table = table.iloc[:0] if i == 2 else table
        table.attrs = {"mpp": 0.5, "tile_px": 8}
        tables[f"s{i}"] = table
    return rows(paths), tables


def drawn(batches):
    return [s for b in batches for s in b.samples]


def test_order_draws_everything():
    labels = np.array([0, 0, 0, 1])
    assert epoch_order(labels, None).tolist() == [0, 1, 2, 3]
    assert sorted(epoch_order(labels, generator(), repeats=2).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    balanced = epoch_order(labels, generator(), repeats=2, balanced=True)
    assert np.bincount(labels[balanced]).tolist() == [6, 6]
    assert np.bincount(balanced).tolist() == [2, 2, 2, 6]
    assert labels[epoch_order(labels, None, balanced=True)].tolist() == [0, 1] * 3


def test_without_a_generator_rows_come_in_order_and_exactly(images):
    batches = list(ImageBatches(images, batch_size=3))
    assert [len(b) for b in batches] == [3, 3, 1]
    assert drawn(batches) == list(images["sample"])
    assert torch.cat([b.labels for b in batches]).tolist() == list(images["label"])
    for batch in batches:
        for name, image in zip(batch.samples, batch.images, strict=True):
            assert torch.equal(image, to_tensor(read_image(images.set_index("sample")["path"][name])))


def test_epochs_differ_and_seeds_repeat(images):
    def run(seed, ahead, epochs=2):
        loader = ImageBatches(images, batch_size=3, transform=train_transform(6), generator=generator(seed), ahead=ahead)
        return [(b.samples, b.images) for _ in range(epochs) for b in loader]

    first, again, other = run(1, 2), run(1, 0), run(2, 2)
    assert [s for s, _ in first] == [s for s, _ in again]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
    assert [s for s, _ in first] != [s for s, _ in other]
    assert [s for s, _ in first[:3]] != [s for s, _ in first[3:]]
    loader = ImageBatches(images, batch_size=3, transform=train_transform(6))
    assert all(torch.equal(a.images, b) for a, (_, b) in zip(loader.epoch(generator(1)), first, strict=False))


def test_sizes_that_differ_make_batches_of_their_own(picture, rows):
    table = rows([picture(f"i{i}.png", shape=(8, 9) if i % 2 else (6, 6)) for i in range(4)])
    batches = list(ImageBatches(table, batch_size=4))
    assert [b.samples for b in batches] == [["s0", "s2"], ["s1", "s3"]]
    (square,) = ImageBatches(table, batch_size=4, size=5)
    assert square.images.shape == (4, 3, 5, 5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_of_processes_are_together_the_batches_of_one(images, slides, count):
    """Seven images in batches of 3, the last of one: a third process has none of it."""
    rows, tables = slides
    loaders = [
        ImageBatches(images, batch_size=3, transform=train_transform(6)),
        BagBatches(rows[:2], tables, bags=2, tiles_per_bag=5, repeats=3, transform=train_transform(None)),
    ]
    for loader in loaders:
        shares = [list(loader.epoch(generator(1), (rank, count))) for rank in range(count)]
        for whole, *parts in zip(loader.epoch(generator(1)), *shares, strict=True):
            assert [parts[i % count].samples[i // count] for i in range(len(whole))] == whole.samples
            pixels = {n: p.images[i] if p.groups is None else p.images[p.groups == i]
                      for p in parts for i, n in enumerate(p.samples)}  # fmt: skip
            for i, name in enumerate(whole.samples):
                own = whole.images[i] if whole.groups is None else whole.images[whole.groups == i]
                if whole.samples.count(name) == 1:
                    assert torch.equal(pixels[name], own)
            assert sum(map(len, parts)) == len(whole)
    with pytest.raises(ValueError, match=r"share is \(rank, count\) with rank in 0..count - 1; got \(2, 2\)"):
        next(loaders[0].epoch(generator(), (2, 2)))


def test_processes_need_images_of_one_size(picture, rows):
    table = rows([picture(f"i{i}.png", shape=(8, 9) if i % 4 > 1 else (6, 6)) for i in range(4)])
    with pytest.raises(ValueError, match=r"several processes need images of one size, got \[\(6, 6\), \(8, 9\)\]; crop them"):
        list(ImageBatches(table, batch_size=4).epoch(None, (0, 2)))


def test_repeats_balance_and_length(images):
    loader = ImageBatches(images, batch_size=4, generator=generator(), repeats=2, balanced=True)
    assert len(loader) == 5
    labels = torch.cat([b.labels for b in loader])
    assert torch.bincount(labels).tolist() == [10, 10]


def test_cache_is_bounded_and_shared(images, monkeypatch):
    reads = []

    def counting(path):
        reads.append(path)
        return read_image(path)

    monkeypatch.setattr("wsol.data.tiles.read_image", counting)
    cache = PixelCache(3 * 8 * 9 * 3)
    for _ in range(2):
        list(ImageBatches(images, batch_size=2, cache=cache))
    assert len(cache) == 3
    assert cache.bytes == cache.limit
    assert len(reads) == 7 + 4
    list(ImageBatches(images, batch_size=2, cache=PixelCache(0)))
    assert len(reads) == 18


def test_work_ahead_keeps_order_raises_in_place_and_stops():
    done = []

    def task(i):
        def run():
            done.append(i)
            if i == 3:
                raise OSError("three")
            return i

        return run

    for ahead in (0, 2):
        results = work_ahead([task(i) for i in range(6)], ahead)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="three"):
            next(results)
    taken = []
    results = work_ahead((task(taken.append(i) or i) for i in (0, 1, 2, 4, 5, 6, 7, 8)), 2)
    next(results)
    results.close()
    assert taken == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("wsol-feed")]


def test_a_damaged_image_stops_the_epoch(images):
    path = Path(images["path"][4])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RuntimeError, match=r"i4\.png: cannot be read"):
        list(ImageBatches(images, batch_size=2))


def test_bags_hold_tiles_of_their_slide(slides):
    rows, tables = slides
    with pytest.warns(UserWarning, match="1 of 3 slides have no tile and are left out: s2"):
        loader = BagBatches(rows, tables, bags=2, tiles_per_bag=5, generator=generator())
    assert loader.empty == ["s2"]
    seen = set()
    for _ in range(4):
        (batch,) = loader
        assert batch.images.shape == (10, 3, 8, 8)
        assert sorted(batch.samples) == ["s0", "s1"]
        assert batch.labels.tolist() == [int(s[1]) for s in batch.samples]
        for bag, sample in enumerate(batch.samples):
            tiles = batch.images[batch.groups == bag]
            values = (tiles * 255).round().flatten(1)
            assert (values == values[:, :1]).all()  # no tile reaches into another
            numbers = values[:, 0].int().tolist()
            assert len(set(numbers)) == 5
            assert all(n // 100 == int(sample[1]) for n in numbers)
            seen |= set(numbers)
    assert len(seen) > 18


def test_without_a_generator_tiles_are_evenly_spread(slides):
    rows, tables = slides
    loader = BagBatches(rows[:2], tables, bags=1, tiles_per_bag=3, ahead=0)
    values = [(b.images[:, 0, 0, 0] * 255).round().int().tolist() for b in loader]
    assert values == [[2, 6, 10], [102, 106, 110]]
    every = BagBatches(rows[:1], tables, bags=1, tiles_per_bag=99)
    assert [(b.images[:, 0, 0, 0] * 255).round().int().tolist() for b in every] == [list(range(12))]


def test_bags_repeat_by_seed_in_any_thread(slides):
    rows, tables = slides

    def run(ahead, seed=3):
        loader = BagBatches(
            rows[:2],
            tables,
            bags=1,
            tiles_per_bag=4,
            generator=generator(seed),
            repeats=3,
            transform=train_transform(None),
            ahead=ahead,
        )
        return [(b.samples, b.images) for b in loader]

    a, b = run(0), run(2)
    assert len(a) == 6
    assert [s for s, _ in a] == [s for s, _ in b]
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True))
    assert any(not torch.equal(x, y) for (_, x), (_, y) in zip(a, run(2, 4), strict=True))


def test_tables_from_a_folder_at_another_resolution(slides, tmp_path):
    rows, tables = slides
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    loader = BagBatches(rows[:2], tmp_path, bags=2, tiles_per_bag=2, mpp=1.0, tile_px=4)
    (batch,) = loader
    assert batch.images.shape == (4, 3, 4, 4)
    assert (BagBatches(rows[:2], tmp_path, bags=2, tiles_per_bag=2).mpp, loader.mpp) == (0.5, 1.0)
    (tmp_path / "s0.parquet").write_bytes(b"PAR1")
    with pytest.raises(RuntimeError, match=r"s0\.parquet: cannot be read"):
        BagBatches(rows[:2], tmp_path, bags=2, tiles_per_bag=2)
    (tmp_path / "s0.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"s0\.parquet.*wsol tile"):
        BagBatches(rows[:2], tmp_path, bags=2, tiles_per_bag=2)


def test_bags_of_a_real_slide(shared_data, rows):
    from wsol.slides import Box, open_slide, tile_table

    table = rows([shared_data / "slides" / "CMU-1-Small-Region.svs"], [1]).assign(mpp=np.nan)
    with open_slide(table["path"][0]) as slide:
        tiles, status = tile_table(slide, tile_px=64, mpp=2.0)
        assert status.tiles > 20
        loader = BagBatches(table, {"s0": tiles}, bags=1, tiles_per_bag=6, mpp=2.0, tile_px=64)
        (batch,) = loader
        assert batch.images.shape == (6, 3, 64, 64)
        n = len(tiles)
        box = Box(*tiles.iloc[n // 12][["x", "y", "width", "height"]].astype(int))
        read = slide.read(box, 2.0)
    if read.shape == (64, 64, 3):
        assert torch.equal(batch.images[0], to_tensor(read))


def test_bags_that_cannot_be_drawn(slides):
    rows, tables = slides
    with pytest.raises(ValueError, match="none of 1 slides has a tile"):
        BagBatches(rows[2:], tables, bags=1, tiles_per_bag=2)
    tables["s1"].attrs = {"mpp": 1.0, "tile_px": 8}
    with pytest.raises(ValueError, match="do not agree on mpp"):
        BagBatches(rows[:2], tables, bags=1, tiles_per_bag=2)
    with pytest.raises(ValueError, match="no tile table of slide 's1'"):
        BagBatches(rows[:2], {"s0": tables["s0"]}, bags=1, tiles_per_bag=2)
    with pytest.raises(ValueError, match="tiles_per_bag must be at least 1"):
        BagBatches(rows[:2], tables, bags=1, tiles_per_bag=0)
    with pytest.raises(ValueError, match="no rows to load"):
        ImageBatches(rows[:0], batch_size=2)


def test_slides_are_closed_and_tiles_cached(slides, monkeypatch):
    from wsol.slides import open_slide

    opened = []

    def counting(path, mpp=None):
        opened.append(open_slide(path, mpp=mpp))
        return opened[-1]

    monkeypatch.setattr("wsol.data.tiles.open_slide", counting)
    rows, tables = slides
    loader = BagBatches(rows[:2], tables, bags=1, tiles_per_bag=12)
    list(loader)
    list(loader)
    assert len(opened) == 2
    for slide in opened:
        with pytest.raises(ValueError, match="is closed"):
            slide.thumbnail(0.5)
    assert len(loader.cache) == 24


def test_a_tile_whose_side_was_aligned_is_read_at_its_own_scale(picture, rows):
    """512 px of 0.499 um are 255.5 px at 1 um: read so, they would be stretched; blocks of 2 x 2 px come out exact."""
    blocks = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    path = picture("s.png", np.kron(blocks, np.ones((2, 2, 1), np.uint8)))
    table = pd.DataFrame({"x": [0], "y": [0], "width": [512], "height": [512]})
    table.attrs = {"mpp": 1.0, "tile_px": 256}
    slide = rows([path]).assign(mpp=0.499)
    (batch,) = BagBatches(slide, {"s0": table}, bags=1, tiles_per_bag=1)
    assert torch.equal(batch.images, to_tensor([blocks]))
