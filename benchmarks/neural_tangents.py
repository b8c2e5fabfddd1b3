"""How does the closed form compare with neural-tangents 0.6.5?

Linear program 784 → 1024 in front of a three-layer CNN, 10 outputs, full nC × nC Gram with respect
to the program's parameters; the same weights and images on both sides, JAX compiled ahead, which
is timed apart. All three implementations of neural-tangents are run and the best setting counts.
It is structured derivatives with ``vmap_axes=0`` ("samples are independent"): they find the
factored form of a dense layer's kernel too, so that both sides do the same arithmetic (mrviz sums
in float64, JAX in float32). Without ``vmap_axes``, which is the default, they do not.

neural-tangents needs an environment of its own; without one this says how to install it. Settings
that would take longer than --limit seconds, by their time with fewer samples, are left out. With
--device cuda the JAX there should be one that sees the GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import _measure as measure
import numpy as np

import mrviz

INSTALL = """In an environment of its own, with Python 3.9 to 3.12:

    python3.11 -m venv jaxenv
    jaxenv/bin/pip install neural-tangents==0.6.5 jax==0.4.23 jaxlib==0.4.23 "numpy<2" "scipy<1.13"
    python benchmarks/neural_tangents.py --python jaxenv/bin/python
"""

SETTINGS: dict[str, dict[str, int | None]] = {
    "structured derivatives, vmap_axes=0": {"implementation": 3, "vmap_axes": 0},
    "structured derivatives": {"implementation": 3, "vmap_axes": None},
    "NTK-vector products, vmap_axes=0": {"implementation": 2, "vmap_axes": 0},
    "Jacobian contraction (the default)": {"implementation": 1, "vmap_axes": None},
}


def arrays(model: mrviz.ReprogrammedModel, x: Any) -> dict[str, np.ndarray]:
    """Weights and images under the names that the other side reads."""
    state = {k: v.cpu().numpy() for k, v in model.state_dict().items()}
    result = {"x": x.flatten(1).cpu().numpy()}
    for k, layer in enumerate(("0", "3", "6")):
        result[f"kernel{k}"] = state[f"source.module.{layer}.weight"]
        result[f"bias{k}"] = state[f"source.module.{layer}.bias"]
    result["weight"] = state["source.module.9.weight"].T
    result["bias"] = state["source.module.9.bias"]
    result["program_weight"] = state["program.weight"].T
    result["program_bias"] = state["program.bias"]
    return result


def other_side(python: str, folder: Path, **request: Any) -> dict[str, Any]:
    """Seconds, seconds of compiling and MiB added, in a fresh process with JAX.

    The Gram is left in ``folder``.
    """
    script = Path(__file__).with_name("_neural_tangents.py")
    # Isolated (-I), or it would import this file in place of the package of the same name.
    with (
        (folder / "errors.txt").open("w+") as errors,
        subprocess.Popen(
            [python, "-I", script, folder, json.dumps(request)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin and process.stdout
        versions = process.stdout.readline()  # it has loaded everything and waits
        peak = measure.Peak("cpu", process.pid)
        process.stdin.write("start\n")
        process.stdin.flush()
        result = process.stdout.readline()
        added = peak.added()
        if not result:
            errors.seek(0)
            raise SystemExit(f"the process with JAX failed:\n{errors.read()[-2000:]}")
    return {"versions": versions.strip(), "added": added, **json.loads(result)}


def absent(python: str | None) -> str | None:
    """Why neural-tangents cannot be run, if so."""
    if not python:
        return "no environment with neural-tangents was named (--python or NEURAL_TANGENTS_PYTHON)"
    try:
        done = subprocess.run([python, "-Ic", "import neural_tangents"], capture_output=True)
    except OSError as error:
        return f"{python} does not run: {error}"
    return f"{python} cannot import neural_tangents" if done.returncode else None


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--python",
        default=os.environ.get("NEURAL_TANGENTS_PYTHON"),
        help="interpreter with neural-tangents; default: $NEURAL_TANGENTS_PYTHON",
    )
    parser.add_argument("--n", type=int, nargs="+", default=[64, 256], help="samples, increasing")
    parser.add_argument("--width", type=int, default=16, help="CNN channels")
    parser.add_argument("--limit", type=float, default=70, help="most seconds for one run")
    args = parser.parse_args()
    reason = absent(args.python)
    if reason:
        print(f"Skipped: {reason}. {INSTALL}")
        return
    model = measure.digits_to_cnn(args.width, args.device)
    x = measure.images(max(args.n), args.device)
    rows: list[dict[str, Any]] = []
    known: dict[str, tuple[int, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "arrays.npz", **arrays(model, x))
        for n in args.n:
            run = partial(measure.closed_form, model, x[:n])
            ours = run().cpu().numpy()
            for setting, request in SETTINGS.items():
                before, seconds = known.get(setting, (n, 0.0))
                expected = seconds * (n / before) ** 2
                if expected > args.limit:
                    print(f"n = {n}, {setting}: left out, would take about {expected:.0f} s")
                    continue
                result = other_side(args.python, folder, n=n, repeats=args.repeats, **request)
                known[setting] = n, result["seconds"]
                # In turn with the other side, so that both sides meet the same neighbours.
                seconds = measure.best_of({"": run}, args.repeats, args.device)[""]
                theirs = np.load(folder / "gram.npy")
                rows.append(
                    {
                        "neural-tangents": setting,
                        "n": n,
                        "compiling (s)": result["compiling"],
                        "seconds": result["seconds"],
                        "closed form (s)": seconds,
                        "ratio": result["seconds"] / seconds,
                        "host MiB added": result["added"],
                        "difference": float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours)),
                    }
                )
    print(f"CNN with {args.width} channels")
    measure.table(rows)
    ratios = {n: min(row["ratio"] for row in rows if row["n"] == n) for n in args.n}
    for n, ratio in ratios.items():
        print(f"n = {n}: best setting of neural-tangents takes {ratio:.2f} times as long as mrviz")
    print(result["versions"])
    measure.finish(
        "neural_tangents",
        args.device,
        versions=result["versions"],
        width=args.width,
        rows=rows,
        ratios=ratios,
    )


if __name__ == "__main__":
    main()
