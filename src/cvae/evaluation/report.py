"""The table that an evaluation prints."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from cvae.evaluation.report_of_references import Row, rows_of_references, share

# Nats between the estimates from K/10 and K samples. Where the bias falls as 1/K, that from K is
# still too high by a ninth of them. With z from the prior, whose weights have heavier tails, the
# bias falls more slowly and much more is left: 0.4 nats where the two were 1.0 apart.
CONVERGED = 0.5


def table(results: Mapping[str, Any]) -> str:
    """All that was measured, a line each, with its standard error over the data."""
    lines = [
        f"{results['split']} data, {results['examples']:,} examples, {results['weights']} weights; "
        "log-probabilities and KL in nats an example; ± standard error over the data",
        f"({results['density']})",
        tabulate([*_bounds(results), *_latents(results), *_drawn(results)], tablefmt="plain"),
    ]
    speed = results["speed"]
    lines.append(
        f"importance sampling took {speed['seconds']:.0f} s on {results['device']}: "
        f"{speed['gflops']:.0f} GFLOP/s of matrix products, {speed['share']:.2f} of the "
        f"{speed['gflops_of_products']:.0f} that the same products reach alone"
    )
    return "\n".join(lines)


def _bounds(results: Mapping[str, Any]) -> list[Row]:
    rows = [_row(name, results[name], "") for name in ("elbo", "reconstruction", "kl")]
    samples = results["num_samples"]
    ways = (("importance", "", "z from q(z|x,y)"), ("prior", ", by the prior", "z from p(z|x)"))
    for name, way, said in ways:
        nll = results["nll"][name]
        rows.append(
            _row(
                f"−log p(y|x){way}",
                nll,
                f"{said}, K={samples}, {_error(nll)}; K={samples // 10}: "
                f"{nll['mean_of_repeats']:.2f}; effective samples {nll['effective_samples']:.0f}",
            )
        )
    return rows


def _error(nll: Mapping[str, float]) -> str:
    """The Monte Carlo error, which means little where ten times the samples still change much."""
    return (
        f"Monte Carlo error {nll['monte_carlo_error']:.3f}" if converged(nll) else "not converged"
    )


def converged(nll: Mapping[str, float]) -> bool:
    """Whether ten times the samples change an estimate of −log p(y|x) by half a nat or less."""
    return nll["mean_of_repeats"] - nll["mean"] <= CONVERGED


def _latents(results: Mapping[str, Any]) -> list[Row]:
    latent, aggregate = results["latent"], results["latent"]["aggregate_kl"]
    return [
        _row("E log p(y|x,z), z from p(z|x)", results["reconstruction_from_prior"], ""),
        ("active units", f"{latent['active_units']} of {len(latent['kl_per_dimension'])}", ""),
        (
            "Σ KL(q(z_d) ‖ p(z_d))",
            f"{aggregate['mean']:.2f}",
            "aggregate posterior against aggregate prior, "
            f"Monte Carlo error {aggregate['monte_carlo_error']:.2f}",
        ),
    ]


def _drawn(results: Mapping[str, Any]) -> list[Row]:
    kinds = {"judge": _judged, "references": rows_of_references}
    return [row for kind, rows in kinds.items() if kind in results for row in rows(results[kind])]


def _judged(judge: Mapping[str, Any]) -> list[Row]:
    digits = judge["per_digit"].items()
    worst, least = min(digits, key=lambda item: item[1]["accuracy"])
    sampled, real = (
        sum(numbers[name] for _, numbers in digits) / len(digits)
        for name in ("distance_sampled", "distance_real")
    )
    floor = judge.get("frechet_of_train")  # absent where perfect samples would be below it
    return [
        (
            "samples taken for their class",
            share(judge["accuracy"], judge["accuracy_standard_error"]),
            f"least {share(least['accuracy'], least['accuracy_standard_error'])} ({worst}); "
            f"real test images {judge['own_accuracy']:.2%}",
        ),
        (
            "distance within a class",
            f"{sampled:.2f}",
            f"of real ones {real:.2f}",
        ),
        (
            "Fréchet distance",
            f"{judge['frechet']:.3f}",
            "" if floor is None else f"train against test {floor:.3f}",
        ),
    ]


def _row(name: str, number: Mapping[str, float], remark: str) -> Row:
    return name, f"{number['mean']:.2f} ± {number['standard_error']:.2f}", remark
