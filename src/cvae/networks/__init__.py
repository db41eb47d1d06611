"""Networks that compute the parameters of densities, over any mix of vectors and images.

A family (`MLP`, `Conv`, `UNet`) knows its sizes and makes two kinds of network: an `encoder`,
which reads its inputs into a few numbers, and a `decoder`, which draws an output of the data's
shape. Inputs may have leading dimensions that broadcast against each other: what depends on
x (B, …) alone is computed once for K values of z (K, B, d).
"""

from cvae.networks.conv import Conv
from cvae.networks.family import Networks, Shape
from cvae.networks.mlp import MLP
from cvae.networks.unet import UNet

__all__ = ["MLP", "Conv", "Networks", "Shape", "UNet"]
