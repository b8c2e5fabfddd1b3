# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Solutions: larger Grams
#
# The exercises of `06-scaling` with one solution each. The first cell makes what the exercises are
# about, as the notebook does.

# %%
import math
import tempfile
import threading

import torch

import mrviz
from mrviz.classroom import check

source = mrviz.load_source(
    "cnn", depth=2, width=8, input_size=16, trained_on="digits", progress=False
)
target = mrviz.load_target("digits", n_train=64, n_test=100)
model = mrviz.reprogram(source, target, program="linear", mapping="identity")
x = target.x_train
options = {"dtype": torch.float64, "chunk_size": 8}

# %% [markdown]
# ## Exercise 06.1: how large is it?
#
# A data set of 10,000 images with 100 classes, such as CIFAR-100. How many bytes does the matrix
# need with `reduce="full"`, and how many with `reduce="trace"`, which keeps one number for each
# pair of samples?

# %%
n, outputs = 10_000, 100
memory = {"full": 8 * (n * outputs) ** 2, "trace": 8 * n**2}

check("06.1", memory, n=10_000, outputs=100)

# %% [markdown]
# ## Exercise 06.2: how many tiles?
#
# The matrix is symmetric, so tiles below the diagonal are not computed. How many tiles are there
# for 1,000 samples in chunks of 150?

# %%
chunks = math.ceil(1000 / 150)
tiles = chunks * (chunks + 1) // 2

check("06.2", tiles, n=1000, chunk_size=150)

# %% [markdown]
# ## Exercise 06.3: what is left to do?
#
# Tiles are computed row by row: (1, 1), (1, 2), … (1, 8), then (2, 2), … (2, 8), and so on. A tile
# needs the source Jacobians of the samples in its row chunk and in its column chunk. Suppose that
# 30 of the 36 tiles were finished when the power went, and with it all Jacobians. How many tiles
# are left, and of how many of the 64 samples are Jacobians computed again?
#
# Rows 1 to 4 have 8 + 7 + 6 + 5 = 26 tiles and row 5 has four, which makes 30. What is left lies in
# the chunks 6, 7 and 8.

# %%
left = {"tiles": 6, "samples": 3 * 8}

check("06.3", left, n=64, chunk_size=8, finished=30)

# %% [markdown]
# The same as it happens. The tile that is just being finished when the flag is set is kept too, so
# the flag is set after 29:

# %%
folder, stop = tempfile.mkdtemp(), threading.Event()


def interrupt(done, total, label):
    if label == "Gram tiles" and done == 29:
        stop.set()


try:
    mrviz.ntk_gram(model, x, store=folder, progress=interrupt, cancel=stop, **options)
except mrviz.Cancelled as reason:
    print(reason)
gram = mrviz.ntk_gram(model, x, store=folder, progress=False, **options)
print(gram.info.notes[0].partition(" the store")[0], "the store")
print(gram.info.computed, "source Jacobians were computed again")

# %% [markdown]
# ## Exercise 06.4: when is no matrix cheaper?
#
# The operator keeps for each sample the source's Jacobian A_i, C × q numbers with q = 256 pixels,
# and the m = 65 numbers (φ_i, 1) that the linear program multiplies. A product Θv takes, for each
# sample, Cq multiplications for A_iᵀ v_i, qm to spread the result over the features, and the same
# again on the way back. The matrix takes (nC)². With C = 10 outputs, from which number of samples
# *n* on does the operator need fewer multiplications?
#
# 2 n q (C + m) < (nC)² is n > 2 q (C + m) / C² = 384.

# %%
enough = 2 * 256 * (10 + 65) // 10**2 + 1

check("06.4", enough, outputs=10, pixels=256, features=65)

# %% [markdown]
# ## Exercise 06.5: reading a residual
#
# `v` is what three products made of a random vector; it is not normalised. Give the estimate of
# λ_max that belongs to it, the Rayleigh quotient λ = vᵀΘv / vᵀv, and the radius ρ = ‖Θv − λv‖ / ‖v‖
# around λ within which there is an eigenvalue of Θ for sure.

# %%
spectrum = mrviz.spectrum(gram)
operator = mrviz.ntk_operator(model, x, dtype=torch.float64, progress=False)
generator = torch.Generator().manual_seed(0)
v = torch.randn(operator.shape[0], dtype=torch.float64, generator=generator)
for _ in range(3):
    v = operator @ v

estimate = v @ (operator @ v) / (v @ v)
radius = (operator @ v - estimate * v).norm() / v.norm()

check("06.5", (estimate, radius), operator=operator, v=v, spectrum=spectrum)

# %% [markdown]
# The Rayleigh quotient is a mean of eigenvalues, with the squared coordinates of v in the
# eigenbasis as weights, so it lies between λ_min and λ_max. That the eigenvalue within the radius
# is the largest one, the residual does not say: a vector close to the second eigenvector has a
# small residual too.
#
# ## Exercise 06.6: how many probes?
#
# `count.error` is the standard error of the mean over 10 probes. About how many probes would it
# take to bring it down to one eigenvalue?

# %%
density = mrviz.spectral_density(operator, probes=10, steps=80, seed=0, progress=False)
count = density.count_above(1e-3 * spectrum.largest)
print(count)
probes = math.ceil(10 * (count.error / 1.0) ** 2)

check("06.6", probes, estimate=count, probes=density.probes, wanted=1.0)

# %% [markdown]
# The range after "between" is what lies between the nodes of the quadratures. More probes leave it
# as it is, and more Lanczos steps close it. With as many steps as the matrix has rows only the
# error of the probes is left, here between two and three standard errors:

# %%
longer = mrviz.spectral_density(gram, probes=10, steps=640, seed=0, progress=False)
print(longer.count_above(1e-3 * spectrum.largest))
print("from the matrix:", int((spectrum.eigenvalues > 1e-3 * spectrum.largest).sum()))
