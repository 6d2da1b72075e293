import numpy as np
import torch

from t2ipal.features.views import augmented

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 40, 48, 3), dtype=np.uint8)


def test_views_are_of_the_image_and_the_seed_alone():
    state = torch.random.get_rng_state()
    views = {
        (seed, view): augmented(IMAGES[0], seed, view) for seed in (0, 1) for view in (0, 1, 2)
    }
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    IMAGES[0].flags.writeable = False
    for (seed, view), seen in views.items():
        assert seen.shape == (40, 48, 3) and seen.dtype == np.uint8
        assert np.array_equal(augmented(IMAGES[0], seed, view), seen)
        assert np.array_equal(seen, IMAGES[0]) == (view == 0)
    assert len({seen.tobytes() for seen in views.values()}) == 5


def test_a_square_is_cut_out():
    """Every view has a region of one color, unless RandAugment solarizes or smears it."""
    shares = []
    for image in IMAGES:
        colors, counts = np.unique(
            augmented(image, 0, 1).reshape(-1, 3), axis=0, return_counts=True
        )
        shares.append(counts.max() / counts.sum())
        assert len(colors) > 1
    assert 0.05 < np.median(shares) < 0.6
