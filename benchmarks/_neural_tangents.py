"""The other side of neural_tangents.py: runs in an environment with JAX and without mrviz.

The same model in plain JAX, its kernel by ``neural_tangents.empirical_ntk_fn``, compiled ahead
and timed. Arguments: a folder with ``arrays.npz``, where ``gram.npy`` is left, and the request as
JSON. Starts at a line of input and ends with its end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from jax import lax

FOLDER = Path(sys.argv[1])
ARRAYS = {k: jnp.asarray(v) for k, v in np.load(FOLDER / "arrays.npz").items()}


def convolution(u: jax.Array, k: int) -> jax.Array:
    layout = ("NCHW", "OIHW", "NCHW")
    u = lax.conv_general_dilated(u, ARRAYS[f"kernel{k}"], (1, 1), "SAME", dimension_numbers=layout)
    return jax.nn.relu(u + ARRAYS[f"bias{k}"][:, None, None])


def mean_pool(u: jax.Array) -> jax.Array:
    return lax.reduce_window(u, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4


def target_model(theta: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    weight, bias = theta
    u = (x @ weight + bias).reshape(-1, 1, 32, 32)
    u = mean_pool(convolution(u, 0))
    u = mean_pool(convolution(u, 1))
    u = convolution(u, 2)
    return u.reshape(len(u), -1) @ ARRAYS["weight"] + ARRAYS["bias"]


def answer(n: int, implementation: int, vmap_axes: int | None, repeats: int) -> dict:
    x, theta = ARRAYS["x"][:n], (ARRAYS["program_weight"], ARRAYS["program_bias"])
    kernel = nt.empirical_ntk_fn(
        target_model, trace_axes=(), vmap_axes=vmap_axes, implementation=implementation
    )
    started = time.perf_counter()
    compiled = jax.jit(lambda x, theta: kernel(x, None, theta)).lower(x, theta).compile()
    times, compiling = [], time.perf_counter() - started
    # As many runs as the other side gets, but no more once they have taken 20 seconds.
    while len(times) <= (50 if sum(times) < 1 else repeats) and sum(times) < 20:
        started = time.perf_counter()
        gram = jax.block_until_ready(compiled(x, theta))
        times.append(time.perf_counter() - started)
    order = n * gram.shape[-1]
    np.save(FOLDER / "gram.npy", np.asarray(gram).transpose(0, 2, 1, 3).reshape(order, order))
    return {"compiling": compiling, "seconds": min(times)}


if __name__ == "__main__":
    print(
        f"neural-tangents {nt.__version__}, jax {jax.__version__}, {jax.devices()[0]}", flush=True
    )
    sys.stdin.readline()
    print(json.dumps(answer(**json.loads(sys.argv[2]))), flush=True)
    sys.stdin.read()  # until the other side has read how much memory this took
