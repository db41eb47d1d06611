"""The table at the end of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def table(results: Mapping[str, Any], folder: Path) -> str:
    """Final test numbers in nats with their standard errors over the data, and the folder."""
    count, units = int(results["test/examples"]), int(results["test/active_units"])
    lines = [
        f"test on {count:,} images, {results['weights']} weights, "
        "nats an image ± standard error over the data",
        f"({results['density']})",
    ]
    terms = [name.removesuffix("_standard_error") for name in results if "_standard_error" in name]
    for name in (term.removeprefix("test/") for term in terms if term.startswith("test/")):
        value, error = results[f"test/{name}"], results[f"test/{name}_standard_error"]
        lines.append(f"  {name:<15}{value:10.2f} ± {error:.2f}")
    lines += [
        f"  {'active units':<15}{units:7d} of {results['latent_dim']}",
        f"{results['epochs']} epoch{'s' * (results['epochs'] != 1)}, "
        f"{results['wall_seconds']:.0f} s, "
        f"{results['images_per_second']:,.0f} training images a second on {results['device']}",
        f"folder: {folder}",
    ]
    return "\n".join(lines)
