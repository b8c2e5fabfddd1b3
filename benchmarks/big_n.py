"""What is known about a kernel of order 45,000 without its matrix, on two CPU cores?

4,500 of the MNIST images and 10 outputs, in front of a random CNN of the source families (3
convolutions with 16 channels, 32×32 inputs): the matrix would take 15 GiB and is never formed. For
a border prompt and a linear program, each in a fresh process: the operator, its ten largest
eigenvalues, its spectral density, and ridge regression of the residual with held-out accuracy.
Kernel factors are in float64, so that the noise floor lies far below the spectrum.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import _measure as measure
import torch

import mrviz
from mrviz.ntk.operator import ntk_operator
from mrviz.spectrum import extreme_eigenvalues, spectral_density
from mrviz.theory.regression import kernel_regression
from mrviz.theory.residuals import training_residual

T = TypeVar("T")

PROGRAMS = ("border", "linear")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def measured(program: str, n: int, probes: int, steps: int, device: str) -> dict[str, object]:
    """Everything for one program, in this process."""
    target = mrviz.load_target("mnist-5k", n_train=n, n_test=500)
    source = mrviz.load_source("cnn", depth=3, width=16, input_size=32, progress=False)
    model = mrviz.reprogram(source, target, program=program, mapping="identity").to(device)
    loaded = peak_mib()
    theta, build = timed(
        lambda: ntk_operator(model, target.x_train, dtype=torch.float64, progress=False)
    )
    top, top_seconds = timed(lambda: extreme_eigenvalues(theta, 10, progress=False))
    density, density_seconds = timed(
        lambda: spectral_density(theta, probes=probes, steps=steps, progress=False)
    )
    ridge = 0.1 * theta.trace() / theta.shape[0]
    fit, fit_seconds = timed(
        lambda: kernel_regression(
            theta, training_residual(model, target), ridge=ridge, tol=1e-4, progress=False
        )
    )
    before = model.predict(target.x_test)
    change, predict_seconds = timed(lambda: fit.predict_change(target.x_test, progress=False))
    accuracy = [
        float((f.argmax(1).cpu() == target.y_test).double().mean())
        for f in (before, before + change)
    ]
    unresolved = density.unresolved
    return {
        "program": program,
        "order": theta.shape[0],
        "parameters": model.n_parameters,
        "build s": build,
        "top 10 s": top_seconds,
        "products": top.matvecs,
        "converged": top.complete,
        "largest": top.largest,
        "floor": top.floor,
        "density s": density_seconds,
        "density products": density.matvecs,
        "above floor": [theta.shape[0] - v for v in (unresolved.high, unresolved.low)],
        "regression s": fit_seconds,
        "ridge": ridge,
        "iterations": fit.iterations,
        "residual": fit.residual,
        "predict s": predict_seconds,
        "accuracy before": accuracy[0],
        "accuracy": accuracy[1],
        "MiB before": loaded,
        "peak MiB": peak_mib(),
    }


def peak_mib() -> float:
    """Most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--n", type=int, default=4500, help="training images, at most 4,500")
    parser.add_argument("--probes", type=int, default=5, help="random vectors of the density")
    parser.add_argument("--steps", type=int, default=40, help="Lanczos steps for each")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(args.child, args.n, args.probes, args.steps, args.device)))
        return
    found = {program: measure.in_child(program) for program in PROGRAMS}
    for name in next(iter(found.values())):
        values = (found[program][name] for program in PROGRAMS)
        print(name.ljust(18), *(shown(value).rjust(20) for value in values))
    order = max(int(each["order"]) for each in found.values())
    matrix = f"{8 * order**2 / 2**30:.3g}"
    print(f"the matrix of order {order:,} would take {matrix} GiB")
    measure.finish("big_n", args.device, **found)


def shown(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
