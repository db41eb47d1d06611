import os

import cvae  # noqa: F401  before torchmetrics and lightning, which need its torchvision

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the CPU is what the tests describe
