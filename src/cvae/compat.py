"""Lets a CPU build of torch stand beside a CUDA build of torchvision.

torchvision's Python code registers fake kernels for its compiled operators when it is imported.
Where the compiled part does not load (its build does not match torch's), the operators do not
exist and the import itself fails, and with it torchmetrics and lightning, which import it.
Nothing here calls those operators, so declaring them is enough.
"""

import importlib

import torch

_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a declaration lives as long as its Library


def import_torchvision() -> bool:
    """Import torchvision, declaring its missing operators where, and only where, it needs that.

    Returns:
        Whether the operators had to be declared.

    Raises:
        RuntimeError: the import failed for any other reason.
    """
    try:
        importlib.import_module("torchvision")
        return False
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(_SCHEMA.format(operator))
    _libraries.append(library)
    importlib.import_module("torchvision")
    return True
