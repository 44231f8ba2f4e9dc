"""The option --ground-truth of `semcut evaluate` and `semcut train`, and the images that it labels for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import click

from semcut.connector.ground_truth import NAMED_BY_IMAGES, TruthForm

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet

_F = TypeVar("_F", bound=Callable[..., Any])


class TruthSource(NamedTuple):
    """A form of ground truth, and where it is; None if it is in the names of the images."""

    form: TruthForm
    source: str | None


class _TruthType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --ground-truth: a form and its files, such as oxford5k=FOLDER, or holidays."""

    name = "form=path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> TruthSource:
        """Return the form and the path."""
        form, given, source = str(value).partition("=")
        forms = get_args(TruthForm)
        if form not in forms:
            self.fail(f"{form!r} is no form of ground truth, expected {', '.join(forms)}", param, ctx)
        if form in NAMED_BY_IMAGES and given:
            self.fail(f"the ground truth of {form} are the names of the images: give {form} alone", param, ctx)
        if form not in NAMED_BY_IMAGES and not source:
            self.fail(f"{form} has its ground truth in files: give {form}=PATH", param, ctx)
        return TruthSource(form, source or None)  # type: ignore[arg-type]


def ground_truth_option(text: str) -> Callable[[_F], _F]:
    """Return the option, with a text that says what the command does with it."""
    return click.option(
        "--ground-truth",
        type=_TruthType(),
        metavar="FORM[=PATH]",
        help=f"{text} Forms: {', '.join(get_args(TruthForm))}; see the guide Find the same thing.",
    )


def labelled_by_truth(source: str, truth: TruthSource, *, others: bool, limit: int | None, seed: int) -> ImageSet:
    """Load the images that a ground truth gives classes.

    Args:
        source: the images.
        truth: the ground truth.
        others: whether images that it does not name are a class of their own.
        limit: about how many images, the same share of every class, so that the others have images of every class, too;
            None uses all.
        seed: seed of the random choice by a limit.

    Raises:
        DataError: the images or the ground truth cannot be used.
    """
    from semcut.connector.data.sources import list_images
    from semcut.connector.ground_truth.read_truth import read_ground_truth
    from semcut.connector.ground_truth.truth_classes import images_of_truth

    found = list_images(source)
    images = images_of_truth(read_ground_truth(truth.form, truth.source, found.files), found, others=others)
    return images if limit is None or limit >= len(images) else images.split(limit / len(images), seed)[1]
