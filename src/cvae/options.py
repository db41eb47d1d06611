"""What config may set on the classes of other packages, and in which range.

A class of our own says so in its annotations. Those of others take more than this program can do,
or than a run's folder may ask for: to write elsewhere, to load plugins.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Len

from cvae.ranges import Count, Duration, Fraction, NonNegative, Positive, Share, Size

Unlimited = Literal[-1]

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "lightning.pytorch.Trainer": {
        "accelerator": Literal["auto", "cpu", "gpu", "cuda"],
        "devices": Size | Literal[-1, "auto"] | Annotated[list[Count], Len(1)],
        "num_nodes": Size,
        "strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true"],
        # densities are computed in float32
        "precision": Literal["32-true", "bf16-mixed", "16-mixed"],
        "max_epochs": Count | Unlimited,
        "max_steps": Size | Unlimited,
        "max_time": Duration | None,
        "min_epochs": Size | None,
        "min_steps": Size | None,
        "check_val_every_n_epoch": Size | None,
        "val_check_interval": Share | None,
        "limit_train_batches": Share | None,
        "limit_val_batches": Share | Literal[0] | None,
        "limit_test_batches": Share | None,
        "gradient_clip_val": NonNegative | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "deterministic": bool | Literal["warn"] | None,
        "benchmark": bool | None,
        "detect_anomaly": bool,
        "inference_mode": bool,
        "profiler": Literal["simple", "advanced"] | None,
        "enable_progress_bar": bool,
        "enable_model_summary": bool,
    },
    "lightning.pytorch.loggers.TensorBoardLogger": {"default_hp_metric": bool},
    "torch.optim.Adam": {
        "lr": NonNegative,
        "betas": Annotated[list[Fraction], Len(2, 2)],
        "eps": Positive,
        "weight_decay": NonNegative,
        "amsgrad": bool,
        "fused": bool | None,
    },
}
