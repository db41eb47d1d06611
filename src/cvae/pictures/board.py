"""Pictures and latent space in TensorBoard."""

import math
import shutil
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from matplotlib.image import imread
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from cvae.pictures.subject import Subject

SPRITE = 8192  # pixels of a side that TensorBoard shows


def show(folder: Path, pictures: Mapping[str, bytes], subject: Subject) -> None:
    """Write pictures, and posterior means for the embedding projector, in place of earlier ones.

    The projector shows each mean of q(z|x,y) as its image, with its class and KL in nats.

    Args:
        folder: of these alone: TensorBoard keeps all that it ever finds in one.
        pictures: PNG files by name.
        subject: whose they are.

    Raises:
        OSError: the folder cannot be written.
    """
    if folder.exists():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as board:
        for name, content in pictures.items():
            pixels = imread(BytesIO(content))[..., :3]
            board.add_image(f"pictures/{name}", pixels, dataformats="HWC")
        if subject.model.latent_dim:
            x, y, labels = (values[subject.some] for values in subject.data[:3])
            latents = subject.latents.of(subject.some)
            names = subject.data.classes
            kl = latents.kl_per_dimension.sum(1)
            board.add_embedding(
                latents.posterior_mean,
                [(names[label], f"{nats:.2f}") for label, nats in zip(labels, kl, strict=True)],
                tiles(subject.view.picture(x, y)),
                tag="posterior_means",
                metadata_header=["class", "KL"],
            )


def tiles(images: Tensor) -> Tensor:
    """Squares, and small enough that all of them together are a picture that TensorBoard shows.

    Args:
        images: (N, C, H, W).
    """
    height, width = images.shape[2:]
    side = max(height, width)
    square = F.pad(images, (0, side - width, 0, side - height), value=1.0)
    most = SPRITE // math.ceil(math.sqrt(len(images)))
    return square if side <= most else F.interpolate(square, size=(most, most), mode="area")
