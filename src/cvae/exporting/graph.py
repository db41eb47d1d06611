"""Prior and decoder as a plain function in an ONNX file: x and ε to the mean of p(y|x,z)."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime
import onnxscript  # noqa: F401  torch.onnx needs it, and would say so late and at length
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

from cvae.evaluation.generation import Sampler
from cvae.model import ConditionalVAE
from cvae.networks import Shape

INPUTS, OUTPUT, BATCH = ("x", "noise"), "mean", "batch"


def to_onnx(model: ConditionalVAE, x_shape: Shape) -> bytes:
    """The file of a `Sampler` with inputs `x`, `noise` and output `mean`, for a batch of any size.

    Args:
        model: on the CPU, in evaluation mode.
        x_shape: of one condition.
    """
    x, noise = torch.zeros(2, *x_shape), torch.zeros(2, model.latent_dim)
    with _quiet():
        program = torch.onnx.export(
            Sampler(model).eval(),
            (x, noise),
            dynamo=True,
            verbose=False,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=({0: BATCH}, {0: BATCH}),
        )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        del part.metadata_props[:]  # the exporter's traces, with this machine's paths
    return proto.SerializeToString()


def to_int8(graph: bytes) -> bytes:
    """The same function with 8-bit weights, a scale for each output unit.

    What goes through a layer is made 8-bit as well, with one scale for the whole batch, so a
    picture depends a little on what else is in its batch. Transposed convolutions stay as they are.
    """
    proto = onnx.load_from_string(graph)
    del proto.graph.value_info[:]  # shapes of weights that the quantiser transposes, then mistrusts
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        quantize_dynamic(proto, path, per_channel=True, weight_type=QuantType.QInt8)
        return path.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxruntime tell of their steps, and their talk of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        # torch uses a name that it has deprecated, and remarks that both inputs share the batch
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        warnings.filterwarnings("ignore", "# The axis name: batch will not be used")
        try:
            yield
        finally:
            logging.disable(before)


class Graph:
    """An ONNX file's function, run by onnxruntime on as many threads as torch has.

    Args:
        graph: the file.
    """

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: Tensor, noise: Tensor) -> Tensor:
        """The mean of p(y|x,z), (B, *y_shape)."""
        given = dict(zip(INPUTS, (x.numpy(), noise.numpy()), strict=True))
        (mean,) = self.session.run([OUTPUT], given)
        return torch.from_numpy(mean)
