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
# # Solutions: what a tangent kernel is
#
# The exercises of `02-ntk-in-class` with one solution each. The first cells make what the exercises
# are about, as the notebook does.

# %%
import math

import torch

import mrviz
from mrviz.classroom import check
from mrviz.theory import mode_times, stable_step

source = mrviz.load_source(
    "dnn", depth=3, width=256, input_size=16, trained_on="mnist-5k", progress=False
)
linear_source = mrviz.load_source(
    "dnn", depth=1, input_size=16, trained_on="mnist-5k", progress=False
)
target = mrviz.load_target("digits", n_train=40, n_test=300, seed=0)
x, labels = target.x_train, target.targets_of(target.y_train)
model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
n, C, p = len(x), model.outputs, model.n_parameters
gram = mrviz.ntk_gram(model, x, progress=False)

# %% [markdown]
# ## Exercise 02.1: the kernel of two points by hand
#
# Let *f_θ(x) = θ₁ x + θ₂ x²*. What is Θ(2, 3)? (No computer needed. Why does it not matter what θ
# is?)

# %%
theta_23 = 2 * 3 + 2**2 * 3**2  # ∇f(x) = (x, x²)

check("02.1", theta_23, a=2.0, b=3.0)

# %% [markdown]
# ## Exercise 02.2: which row?
#
# There are *n* samples with *C* outputs each. In which row of Θ is output *c* of sample *i*? Both
# are counted from zero.


# %%
def row(i, c, n, C):
    """Row of output c of sample i."""
    return i * C + c


check("02.2", row, n=n, outputs=C)

# %% [markdown]
# That is what `flatten` does with an array of shape (n, C), so outputs, labels and residuals need
# no further care: `r.flatten()`.
#
# ## Exercise 02.3: a kernel without any computation
#
# Let the source be linear in its input, *f(u) = W u + constant*, and the program an overlay, *u =
# enlarged x + δ*. Write Θ (nC × nC) in terms of *W* (C × d) and *n* only: *W* is given below, and
# `torch.kron` may help. (Which matrix is the gradient of *f(x_i)* by δ? Does it depend on *i*?)

# %%
jacobian = mrviz.ntk.source_jacobian(linear_source, model.b, model.programmed(x).detach())
W = jacobian[0].flatten(1)
theta_linear = torch.kron(torch.ones(n, n), W @ W.T)  # every block Θ_ij is W Wᵀ

check("02.3", theta_linear, W=W, n=n)

# %% [markdown]
# The same by `ntk_gram`, and its non-zero eigenvalues: n times the squared singular values of *W*.
# With a linear source one shared prompt moves the outputs of all images by the same vector, so the
# kernel has rank at most *C*, and labels minus their mean lie in none of its modes: *rᵀΘr* is zero
# but for round-off. Such a prompt cannot tell any two images apart.

# %%
overlay = mrviz.reprogram(linear_source, target, program="overlay", mapping="identity")
closed = mrviz.ntk_gram(overlay, x, progress=False)
print(f"relative difference {(closed.matrix - theta_linear).norm() / closed.matrix.norm():.1e}")
spectrum = mrviz.spectrum(closed)
print("rank", spectrum.rank)
print("eigenvalues ", spectrum.eigenvalues[:3])
print("n · σ_i(W)² ", n * torch.linalg.svdvals(W)[:3].double() ** 2)
r = (labels - labels.mean(0)).flatten()
print(f"rᵀΘr / (λ_max ‖r‖²) = {r @ closed.matrix @ r / (spectrum.largest * (r @ r)):.0e}")

# %% [markdown]
# ## Exercise 02.4: at least how many zeros?
#
# The overlay in front of the *ReLU* source has *p* = 256 parameters, and Θ is of order nC with
# *n* = 40 samples and *C* = 10 outputs. At least how many of its eigenvalues are exactly zero,
# whatever the source?

# %%
zeros = max(0, n * C - p)

check("02.4", zeros, n=n, outputs=C, parameters=p)

# %% [markdown]
# ## Exercise 02.5: the largest stable step
#
# For the Gram matrix `linear_gram` of *n* = 40 samples: below which step size is gradient descent
# on the mean squared loss stable? `linear_spectrum` has what you need.

# %%
linear_model = mrviz.reprogram(linear_source, target, program="linear", mapping="identity")
linear_gram = mrviz.ntk_gram(linear_model, x, progress=False)
linear_spectrum = mrviz.spectrum(linear_gram)
largest_step = 2 * n / linear_spectrum.largest
print(largest_step, stable_step(linear_spectrum.largest, n))

check("02.5", largest_step, spectrum=linear_spectrum, n=n, outputs=C)

# %% [markdown]
# ## Exercise 02.6: how long does a mode take?
#
# With the step size *η = n/λ_max*, after how many steps is the residual in mode *k = 20* at most
# **1 %** of what it was? (A whole number. `math.log` is the natural logarithm.)
#
# *(1 − ηλ/n)^s ≤ 0.01* is *s ≥ ln 0.01 / ln(1 − ηλ/n)*: both logarithms are negative.

# %%
lr = n / linear_spectrum.largest
eigenvalue = float(linear_spectrum.eigenvalues[19])
steps_needed = math.ceil(math.log(0.01) / math.log(1 - lr * eigenvalue / n))

check("02.6", steps_needed, eigenvalue=eigenvalue, n=n, lr=lr)

# %% [markdown]
# Gradient flow, the limit of small steps, takes about as long. `mode_times` counts the loss, the
# square of the residual, so 1 % becomes 0.01 %:

# %%
flow = float(mode_times(torch.tensor([eigenvalue]), 0.01**2, n)) / lr
print(f"gradient descent {steps_needed} steps, gradient flow {flow:.1f} times the step size")

# %% [markdown]
# ## Exercise 02.7: which residual is learned faster?
#
# How fast the loss falls at the start depends on where the residual lies: with gradient flow
# *−L′(0)/L(0) = (2/n) Σ_k λ_k c_k² / Σ_k c_k²*. Write a function for the weighted mean
# *Σ_k λ_k c_k² / Σ_k c_k²* of a kernel Θ (nC × nC) and a residual (n × C). It needs no
# eigenvectors: what is *Σ_k λ_k c_k²* in terms of Θ and *r*?
#
# The check applies it to the kernel of the overlay in front of the ReLU source, with two residuals:
# the true labels, and the same labels dealt to the wrong images.
#
# *Θ = Σ_k λ_k v_k v_kᵀ* gives *rᵀΘr = Σ_k λ_k c_k²*, and *‖r‖² = Σ_k c_k²*.

# %%
true = labels - labels.mean(0)
shuffled = true[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


def speed(theta, r):
    """Mean eigenvalue that a residual r (n, C) sees in a kernel (nC, nC)."""
    r = r.flatten()
    return r @ theta @ r / (r @ r)


check("02.7", speed, kernel=gram.matrix, true=true, shuffled=shuffled)

# %% [markdown]
# Images of one class look alike, and the source answers alike. Five other ways to deal the labels:

# %%
for seed in range(1, 6):
    dealt = true[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
    print(f"{float(speed(gram.matrix, dealt)):.1f}", end="  ")
