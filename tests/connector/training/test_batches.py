"""Augmentation: each kind changes images as documented, within the range of pixels, repeatable by its generator."""

from __future__ import annotations

import numpy as np
import torch

from semcut.connector.training.batches import augment, epoch_order


def test_augmentation_moves_pixels_and_nothing_else() -> None:
    images = torch.rand(16, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 255
    moved = augment(images, "flip", torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    assert not torch.allclose(moved, images)
    assert moved.min() >= -1e-3
    assert moved.max() <= 255 + 1e-3
    assert torch.equal(moved, augment(images, "flip", torch.Generator().manual_seed(1)))
    assert torch.equal(augment(images, "none", torch.Generator()), images)


def test_flip_and_strong_mirror_and_shift_does_not() -> None:
    """An image that is dark at the left and bright at the right stays like that, unless it is mirrored."""
    images = torch.linspace(0, 255, 32).expand(64, 3, 32, 32).contiguous()

    def mirrored(kind: str) -> float:
        moved = augment(images, kind, torch.Generator().manual_seed(2))
        return (moved[..., :10].mean(dim=(1, 2, 3)) > moved[..., -10:].mean(dim=(1, 2, 3))).float().mean().item()

    assert mirrored("shift") == 0
    assert 0.2 < mirrored("flip") < 0.8
    assert 0.2 < mirrored("strong") < 0.8


def test_strong_augmentation_changes_colours_and_covers_a_square_of_half_of_the_images() -> None:
    images = torch.rand(64, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 50 + 100
    moved = augment(images, "strong", torch.Generator().manual_seed(1))
    assert 0 <= moved.min() <= moved.max() <= 255
    means = moved.mean(dim=(1, 2, 3))
    assert 85 < means.min() < 100
    assert 150 < means.max() < 165
    for image in moved:
        same = (image[:, 1:] == image[:, :-1]).all(dim=0)
        rows, columns = same.any(dim=1).sum().item(), same.any(dim=0).sum().item()
        assert (rows, columns) == (0, 0) or (0.15 * 40 <= columns <= 0.55 * 40 and abs(rows + 1 - columns) <= 1)
    covered = [(image[:, 1:] == image[:, :-1]).all(dim=0).any().item() for image in moved]
    assert 0.3 < sum(covered) / 64 < 0.7


def test_an_epoch_has_each_image_once_or_as_many_of_every_class() -> None:
    labels = np.array([0] * 3 + [1] * 20 + [3] * 7)
    plain = epoch_order(labels, None, torch.Generator().manual_seed(1))
    assert sorted(plain) == list(range(30))
    assert plain != sorted(plain)
    order = epoch_order(labels, 10, torch.Generator().manual_seed(1))
    assert np.bincount(labels[order]).tolist() == [10, 10, 0, 10]
    counts = np.bincount(order, minlength=30)
    assert set(counts[:3]) == {3, 4}  # three images make ten
    assert set(counts[3:23]) == {0, 1}
    assert set(counts[23:]) == {1, 2}
    assert order == epoch_order(labels, 10, torch.Generator().manual_seed(1))
    assert order != epoch_order(labels, 10, torch.Generator().manual_seed(2))
    assert labels[order].tolist() != sorted(labels[order])
