"""Which pictures there are of a trained model, and what each of them needs."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from cvae.data.views import is_picture
from cvae.pictures.annotators import plot_styles, whose
from cvae.pictures.grid import reconstructions, samples
from cvae.pictures.paths import condition_paths, interpolations, manifold, traversals
from cvae.pictures.plots import plot_aggregate, plot_kl, plot_posterior_means
from cvae.pictures.style import draw, png
from cvae.pictures.subject import Subject
from cvae.wrappers import PriorAsPosterior


class Need(NamedTuple):
    """Something that a picture cannot do without.

    Attributes:
        reason: what to tell where it is not met; nothing where nobody would expect the picture.
        met: whether a subject has it.
    """

    reason: str
    met: Callable[[Subject], bool]


class Picture(NamedTuple):
    """How a picture is drawn, and what it needs."""

    draw: Callable[[Subject], Figure]
    needs: tuple[Need, ...] = ()


Z = Need("there is no z", lambda subject: subject.model.latent_dim > 0)
SEVERAL = Need("z has fewer than two dimensions", lambda subject: subject.model.latent_dim > 1)
TWO = Need("z has not two dimensions", lambda subject: subject.model.latent_dim == 2)
LABELS = Need(
    "a mixture of two pictures is no condition", lambda subject: not is_picture(subject.view)
)
READ = Need(
    "q(z|x,y) is the prior", lambda subject: not isinstance(subject.model.encoder, PriorAsPosterior)
)
REFERENCES = Need("", lambda subject: subject.data.references is not None)
SEEN = Need("the model ignores x", lambda subject: subject.model.conditional)


def _conditions(subject: Subject) -> Figure:
    x, truths = subject.view.showcase(subject.singles[0]), subject.data.truths(subject.chosen[0])
    return draw(samples(subject.model, subject.view, x, subject.noise, truths))


def _reconstructions(subject: Subject) -> Figure:
    return draw(reconstructions(subject.model, subject.view, *subject.singles))


def _traversals(subject: Subject) -> Figure:
    x, y = (values[[len(values) // 2]] for values in subject.singles)  # of a class in the middle
    return draw(traversals(subject.model, subject.view, subject.latents, x, y))


def _within(subject: Subject) -> Figure:
    title = "two images of the same class: z moves, x stays"
    return draw(interpolations(subject.model, subject.view, *subject.pairs, title))


def _across(subject: Subject) -> Figure:
    x, y = (torch.stack([start, end.roll(-1, 0)]) for start, end in subject.pairs)
    moving = "z and x move together" if subject.model.conditional else "z moves"
    title = f"two images of different classes: {moving}"
    return draw(interpolations(subject.model, subject.view, x, y, title))


def _condition_paths(subject: Subject) -> Figure:
    x = torch.stack([subject.conditions, subject.conditions.roll(-1, 0)])
    return draw(condition_paths(subject.model, subject.view, x, subject.noise[0, 0]))


def _kl(subject: Subject) -> Figure:
    return plot_kl(subject.latents, subject.data.labels, subject.data.classes)


def _styles(subject: Subject) -> Figure:
    x, _, _, names, references = subject.data
    assert references is not None
    chosen = subject.some
    found = whose(subject.model, x[chosen], references[chosen], subject.noise_of_some)
    return plot_styles(*found, names, subject.latents)


def _manifold(subject: Subject) -> Figure:
    return draw(manifold(subject.model, subject.view, subject.conditions))


PICTURES = {
    "conditions": Picture(_conditions),
    "posterior_and_prior": Picture(_reconstructions, (Z, READ)),
    "traversals": Picture(_traversals, (Z, READ)),
    "interpolation_within_class": Picture(_within, (Z, READ, LABELS)),
    "interpolation_across_classes": Picture(_across, (Z, READ, LABELS)),
    "interpolation_of_conditions": Picture(_condition_paths, (LABELS, SEEN)),
    "manifold": Picture(_manifold, (Z, TWO)),
    "posterior_means": Picture(
        lambda subject: plot_posterior_means(
            subject.latents, subject.data.labels, subject.data.classes, subject.some
        ),
        (Z, READ, SEVERAL),
    ),
    "kl": Picture(_kl, (Z, READ)),
    "styles": Picture(_styles, (REFERENCES, Z, SEVERAL)),
    "aggregate": Picture(lambda subject: plot_aggregate(subject.latents, subject.seed), (Z, READ)),
}


def left_out(subject: Subject) -> dict[str, str]:
    """The pictures that cannot be drawn of the subject, each with the reason."""
    unmet = {
        name: [need.reason for need in picture.needs if not need.met(subject)]
        for name, picture in PICTURES.items()
    }
    return {name: reasons[0] for name, reasons in unmet.items() if reasons}


def drawn(subject: Subject, names: Iterable[str] = PICTURES) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of each of the named pictures that can be drawn of the subject."""
    missing = left_out(subject)
    return ((name, png(PICTURES[name].draw(subject))) for name in names if name not in missing)
