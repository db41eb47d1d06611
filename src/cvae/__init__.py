"""Train, trust, compare and show conditional variational autoencoders."""

from importlib.metadata import version

from cvae.compat import import_torchvision

import_torchvision()  # before anything that imports torchvision: torchmetrics and lightning do

__version__ = version("cvae")
