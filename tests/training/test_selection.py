"""Label-free criteria: closed forms on planted textures that color does not tell; trivial maps on phantoms must not win."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from wsol.slides import apply_od_matrix, blue_minus_red, floor_map, hematoxylin, rgb_to_od, stain_matrix, tissue_mask
from wsol.training import map_stability, rotation_stability, scale_consistency, seed_agreement, stain_stability
from wsol.training.selection import restained, two_groups

CELL = 8
STAINS = [stain_matrix((1.3, 0.8, 1)), stain_matrix((0.8, 1.3, 1))]
EQUIVARIANT = {
    "map_stability": map_stability,
    "rotation_stability": rotation_stability,
    "stain_stability": lambda maps, images: stain_stability(maps, images, STAINS),
}


def checkers(masks):
    """Foreground cells are a fine checkerboard, the others a coarse one: the same pixels in every cell, otherwise arranged."""
    y, x = np.mgrid[:CELL, :CELL]
    fine, coarse = ((y // n + x // n) % 2 for n in (1, 2))
    gray = torch.from_numpy(np.stack([np.block([[fine if v else coarse for v in row] for row in m]) for m in masks]))
    color = torch.tensor([[0.8, 0.5, 0.7], [0.6, 0.3, 0.6]])
    return color[gray].permute(0, 3, 1, 2)


def fineness(images):
    """The foreground of `checkers`: how often neighbors within a cell differ, whatever the color."""
    b, _, h, w = images.shape
    cells = images[:, 0].reshape(b, h // CELL, CELL, w // CELL, CELL)
    across = (cells.diff(dim=4).abs() > 0.01).float().mean((2, 4))
    return across + (cells.diff(dim=2).abs() > 0.01).float().mean((2, 4))


@pytest.fixture(scope="module")
def masks():
    return np.random.default_rng(0).random((4, 8, 8)) < 0.4


def expected(masks):
    """1 within an image, minus the mean correlation across images: color explains nothing here."""
    r = np.corrcoef(masks.reshape(len(masks), -1))
    return 1 - (r.sum() - np.trace(r)) / (len(r) * (len(r) - 1))


@pytest.mark.parametrize("score", EQUIVARIANT.values(), ids=EQUIVARIANT)
def test_a_map_that_follows_its_image_scores_one_minus_what_images_share(score, masks):
    images = [checkers(masks)]
    assert score(fineness, images) == pytest.approx(expected(masks), abs=1e-5)
    assert score(lambda x: 5 - 3 * fineness(x), images) == pytest.approx(expected(masks), abs=1e-5)


@pytest.mark.parametrize("score", EQUIVARIANT.values(), ids=EQUIVARIANT)
def test_images_weigh_alike_whatever_the_batches(score, masks):
    images = checkers(masks)
    assert score(fineness, [images[:1], images[1:]]) == pytest.approx(score(fineness, [images]), abs=1e-9)


@pytest.mark.parametrize("score", EQUIVARIANT.values(), ids=EQUIVARIANT)
def test_constant_maps_and_maps_that_ignore_their_image_get_nothing(score, masks):
    images = [checkers(masks)]
    fixed = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    frame = torch.ones(1, 8, 8)
    frame[:, 1:-1, 1:-1] = 0
    ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    flat = torch.full((1, 8, 8), 0.7)
    for maps in (flat, 0 * flat, fixed, frame, ramp):
        assert score(lambda x, maps=maps: maps.expand(len(x), -1, -1), images) == pytest.approx(0, abs=1e-9)
    # rounding noise on a constant is not a place, even if it is the same noise each time
    assert score(lambda x: 0.7 + 1e-6 * fineness(x), images) == 0
    again = torch.Generator().manual_seed(3)
    noisy = score(lambda x: fineness(x) + torch.randn(len(x), 8, 8, generator=again), images)
    assert abs(score(lambda x: torch.randn(len(x), 8, 8, generator=again), images)) < 0.1 < noisy < 0.8 * expected(masks)


def test_a_map_that_moves_with_the_stain_is_no_answer(masks):
    images = [checkers(masks)]

    def fickle(x):  # follows the texture while the image is as dark as it was, and turns round when it is restained
        return fineness(x) * torch.where((x[:, 0].mean((1, 2)) - images[0][:, 0].mean()).abs() < 1e-4, 1, -1)[:, None, None]

    assert map_stability(fickle, images) == pytest.approx(expected(masks), abs=1e-5)
    assert stain_stability(fickle, images, STAINS) == pytest.approx(-expected(masks), abs=1e-5)


def test_images_of_several_sizes():
    generator = np.random.default_rng(2)
    masks = [generator.random(shape) < 0.4 for shape in ((8, 8), (6, 10), (6, 10))]
    images = [checkers(masks[:1]), checkers(np.stack(masks[1:]))]
    assert 0.7 < map_stability(fineness, images) < 1.3
    assert rotation_stability(fineness, images) == pytest.approx(map_stability(fineness, images), abs=1e-5)


def test_restained_is_the_stain_matrix_of_the_slides():
    rgb = np.random.default_rng(0).integers(20, 250, (1, 16, 24, 3), dtype=np.uint8)
    ours = restained(torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(STAINS[0]).float())
    assert np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - apply_od_matrix(rgb[0], STAINS[0])).max() < 0.51


def test_scales_are_compared_on_one_grid():
    """Half-planes at four angles on images of one color: the map of half as many cells is laid on the cells of the larger one."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    sides = np.stack([np.cos(a) * x + np.sin(a) * y > 0 for a in (0.3, 1.7, 3.0, 4.4)]).astype(np.float32)
    images = [torch.full((4, 3, 64, 64), 0.5)]

    def drawn(found):
        return functional.adaptive_avg_pool2d(torch.from_numpy(sides)[:, None], (found.shape[-2] // 8, found.shape[-1] // 8))[
            :, 0
        ]

    r = np.corrcoef(drawn(images[0]).flatten(1).numpy())
    assert scale_consistency(drawn, images) == pytest.approx(1 - (r.sum() - 4) / 12, abs=0.1)
    assert scale_consistency(lambda x: drawn(x) if x.shape[-1] == 64 else -drawn(x), images) < -0.9
    with pytest.raises(ValueError, match=r"32 x 32 px times 0\.75, in steps of 32 px, stay as they are"):
        scale_consistency(lambda x: torch.rand(len(x), 8, 8), [images[0][..., :32, :32]])


def test_two_groups_are_those_of_k_means_and_grow_from_the_seeds():
    from scipy.cluster.vq import kmeans2

    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 10, 12)
    truth[:, :4] = 1
    features = torch.randn(1, 6, 10, 12, generator=generator) + 2 * truth[:, None]
    found = two_groups(truth + 0.8 * torch.randn(1, 10, 12, generator=generator), features)
    points = features[0].flatten(1).T.numpy()
    ends = np.stack([points[truth[0].flatten().numpy() == v].mean(0) for v in (1, 0)])
    labels = kmeans2(points, ends, minit="matrix", iter=30)[1]
    assert np.array_equal(found[0].flatten().numpy(), 1 - labels)
    assert torch.equal(two_groups(-truth, features), 1 - found)
    assert torch.equal(two_groups(truth, torch.ones(1, 6, 10, 12)), torch.ones(1, 10, 12).double())


def test_seeds_agree_where_the_map_tells_the_groups_apart(masks):
    images = [checkers(masks)]

    def features(x):
        planted = fineness(x)
        return torch.stack([planted, 0.3 * torch.rand(planted.shape, generator=torch.Generator().manual_seed(5))], 1)

    assert seed_agreement(fineness, features, images) == pytest.approx(expected(masks), abs=1e-6)
    noise = torch.Generator().manual_seed(4)
    assert abs(seed_agreement(lambda x: torch.rand(len(x), 8, 8, generator=noise), features, images)) < 0.15
    assert seed_agreement(lambda x: torch.ones(len(x), 8, 8), features, images) == 0


def cells(values, side=16):
    return functional.adaptive_avg_pool2d(values[:, None].float(), [n // side for n in values.shape[-2:]])[:, 0]


def of_pixels(f):
    """A map that `f` makes of the uint8 pixels."""

    def maps(x):
        rgb = (x * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
        return cells(torch.from_numpy(np.stack([np.asarray(f(one), np.float32) for one in rgb])))

    return maps


def dark(rgb):
    return cv2.GaussianBlur(hematoxylin(rgb), (0, 0), 4) > hematoxylin(rgb).mean() + 0.1


def noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(len(x), x.shape[-2] // 16, x.shape[-1] // 16, generator=generator)


COLOR = {
    "constant": lambda x: torch.ones(len(x), x.shape[-2] // 16, x.shape[-1] // 16),
    "tissue": of_pixels(lambda rgb: rgb_to_od(rgb).mean(-1)),
    "hematoxylin": of_pixels(hematoxylin),
    "blue-minus-red": of_pixels(blue_minus_red),
}
NEARLY = {
    "blurred hematoxylin": of_pixels(lambda rgb: floor_map("hematoxylin", rgb, 1.0)),
    "wide hematoxylin": of_pixels(lambda rgb: floor_map("hematoxylin", rgb, 0.33)),
    "blurred blue-minus-red": of_pixels(lambda rgb: floor_map("blue-minus-red", rgb, 1.0)),
    "rectified hematoxylin": of_pixels(lambda rgb: np.maximum(hematoxylin(rgb) - hematoxylin(rgb).mean(), 0)),
    "noise": noise(),
}
THRESHOLDED = {
    "dark": of_pixels(dark),
    "tissue mask": of_pixels(lambda rgb: tissue_mask(rgb, 8.0)),
    "denser than most": of_pixels(lambda rgb: rgb_to_od(rgb).mean(-1) > rgb_to_od(rgb).mean()),
}


@pytest.fixture(scope="module", params=["easy", "hard"])
def phantom(request):
    """Tiles at 1 um per px with tumor border, their masks, and the right map: the mask, moved as the image was."""
    from wsol.data.sources.phantom_draw import draw_phantom

    tiles, masks = [], []
    for seed in (0, 1, 2):
        rgb, mask, _ = draw_phantom(1536, seed, positive=True, difficulty=request.param)
        small = cv2.resize(rgb, (768, 768), interpolation=cv2.INTER_AREA)
        half = cv2.resize(mask.astype(np.float32), (768, 768), interpolation=cv2.INTER_AREA) > 0.5
        for y, x in np.ndindex(3, 3):
            at = np.s_[256 * y : 256 * y + 256, 256 * x : 256 * x + 256]
            if 0.1 < half[at].mean() < 0.9:
                tiles.append(small[at])
                masks.append(half[at])
    images = torch.from_numpy(np.stack(tiles[:6])).permute(0, 3, 1, 2).float() / 255
    return images, right_map(images, torch.from_numpy(np.stack(masks[:6])).float())


def right_map(images, masks):
    moves = [lambda a, k=k, f=f: torch.rot90(a.flip(-1) if f else a, k, (-2, -1)) for k in range(4) for f in (False, True)]

    def maps(x):
        if x.shape != images.shape:  # the smaller image
            return functional.adaptive_avg_pool2d(masks[:, None], [n // 16 for n in x.shape[-2:]])[:, 0]
        return cells(next((move(masks) for move in moves if torch.equal(move(images), x)), masks))

    return maps


def criteria(right):
    """All criteria; the features know the mask as well as colors and noise."""

    def features(x):
        ink = -torch.log((255 * x + 1) / 256)
        planted = right(x)
        return torch.stack([planted + 0.2 * noise(1)(x), *(cells(ink[:, c]) for c in range(3))], 1)

    return {
        **EQUIVARIANT,
        "scale_consistency": scale_consistency,
        "seed_agreement": lambda maps, images: seed_agreement(maps, features, images),
    }


def test_the_right_map_beats_color_tissue_and_noise(phantom):
    images, right = phantom
    for name, score in criteria(right).items():
        best = score(right, [images])
        assert best > 0.05, name
        for trivial, maps in COLOR.items():
            # a smaller image's colors are those of other pixels: a hair more than rounding
            assert score(maps, [images]) < 1e-4, (name, trivial)
        for trivial, maps in NEARLY.items():
            assert score(maps, [images]) < 0.25 * best, (name, trivial)
        for trivial, maps in THRESHOLDED.items():
            assert score(maps, [images]) < 0.75 * best, (name, trivial)


@pytest.mark.parametrize("score", EQUIVARIANT.values(), ids=EQUIVARIANT)
def test_broken_maps_are_errors(score, masks):
    images = [checkers(masks)]
    with pytest.raises(ValueError, match="NaN or infinity"):
        score(lambda x: fineness(x) * float("nan"), images)
    with pytest.raises(ValueError, match=r"maps must be \(b, h, w\)"):
        score(lambda x: x, images)
    with pytest.raises(ValueError, match="at least two of the validation role; got 0"):
        score(fineness, [])
    with pytest.raises(ValueError, match="at least two of the validation role; got 1"):
        score(fineness, [images[0][:1]])
    with pytest.raises(ValueError, match=r"maps of 4 x 4 cells are too small: 10 colors .* needs 22 cells"):
        score(fineness, [images[0][..., :32, :32]])
