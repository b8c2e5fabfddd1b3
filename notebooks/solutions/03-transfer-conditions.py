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
# # Solutions: why reprogramming works, or does not
#
# The exercises of `03-transfer-conditions` with one solution each. The first cells make what the
# exercises are about, as the notebook does.

# %%
import torch

import mrviz
from mrviz.classroom import check
from mrviz.theory import residual_energy, training_residual

DOUBLE = torch.float64
STEPS = 60


def network(*, trained):
    """A CNN for 20 × 20 pixels, trained on MNIST or with random weights."""
    data = {"trained_on": "mnist-5k", "epochs": 3} if trained else {}
    return mrviz.load_source("cnn", depth=3, width=8, input_size=20, progress=False, **data)


source = network(trained=True)
target = mrviz.load_target("digits", n_train=20, n_test=200, seed=0)
x, n, C = target.x_train, len(target.x_train), target.n_classes


def reprogrammed(source, program="border", **options):
    """A model with a border prompt around 10 × 10 pixels, or with another program."""
    options |= {"image_size": 10} if program == "border" else {}
    return mrviz.reprogram(source, target, program=program, mapping="identity", **options)


def kernel(model, **options):
    return mrviz.ntk_gram(model, x, progress=False, **{"dtype": DOUBLE, **options})


border = reprogrammed(source)
sweep = mrviz.capacity_sweep(border, x, dtype=DOUBLE, progress=False)

# %%
placed = mrviz.programs.Linear(source.input_shape, target.shape)
with torch.no_grad():
    frame = border.programmed(torch.zeros(1, *target.shape))  # around a black image
    pixels = torch.eye(x[0].numel()).view(-1, *target.shape)  # one white pixel each
    placed.bias.copy_(frame.flatten())
    placed.weight.copy_((border.programmed(pixels) - frame).flatten(1).T)
same_u = mrviz.ReprogrammedModel(source, placed, mrviz.mappings.Identity())
theta_linear, theta_border = kernel(same_u), kernel(border)
gamma = mrviz.ntk.jacobian_gram(same_u, x, dtype=DOUBLE, progress=False)
phi = x.flatten(1)

grams = {
    "A": kernel(reprogrammed(source, width=2)),
    "B": kernel(reprogrammed(source, width=3)),
    "C": kernel(reprogrammed(source, width=5), dtype=torch.float32),
    "D": kernel(reprogrammed(source, width=5), reduce="trace"),
    "E": kernel(reprogrammed(source, "linear"), dtype=torch.float32),
}

# %% [markdown]
# ## Exercise 03.1: how wide must the frame be?
#
# A source reads colour images of 64 × 64 pixels (3 channels). The target's images, 28 × 28, lie in
# the middle. There are n = 300 samples and C = 10 classes. What is the smallest width of the
# trainable frame for which T1 can hold?
#
# With width *w* the frame has 3 · (64² − (64 − 2w)²) trainable values. 64 − 2w pixels are left
# inside, as the frame is on both sides.

# %%
width = next(w for w in range(1, 19) if 3 * (64**2 - (64 - 2 * w) ** 2) >= 300 * 10)

check("03.1", width, channels=3, side=64, image=28, n=300, outputs=10)

# %% [markdown]
# ## Exercise 03.2: what may be said of T2?
#
# T2 is about the **full** kernel. It *holds* if all eigenvalues of it are resolved, above the noise
# floor. It *fails* if p < nC, or if some are unresolved in float64. It is *undecided* if some are
# unresolved in float32, or if a reduced kernel is all that is known and all of its eigenvalues are
# resolved. Which status does T2 have for each of these five kernels?
#
# A: p < nC. B: T1 holds, but the last numbers computed are below the floor of float64. C: below the
# floor of float32, which does not tell. D: resolved, but the trace kernel bounds λ_min from above
# only. E: everything is resolved, in float32 even.

# %%
statuses = {"A": "fails", "B": "fails", "C": "undecided", "D": "undecided", "E": "holds"}

check("03.2", statuses, grams=grams)

# %% [markdown]
# ## Exercise 03.3: the bound by hand
#
# `gamma.matrix` is Γ of the linear program that starts where the prompt starts, `phi` has the
# flattened images φ_i as rows. Write the bound of T3.


# %%
def schur(gamma, phi):
    """Lower bound of λ_min(Θ) from Γ (nC, nC) and φ (n, d_T)."""
    return torch.linalg.eigvalsh(gamma)[0] * (phi.square().sum(1) + 1).min()


check("03.3", schur, gamma=gamma.matrix, phi=phi, kernel=mrviz.spectrum(theta_linear))

# %% [markdown]
# `eigvalsh` sorts from the smallest up. A number like this is only worth something where it is
# above the noise floor of Γ, which it is here:

# %%
print(f"λ_min(Γ) {mrviz.spectrum(gamma).describe_smallest()}")
print(f"floor    {mrviz.spectrum(gamma).floor:.1e}")

# %% [markdown]
# ## Exercise 03.4: which kernel is faster, within 60 steps?
#
# Gradient descent on squared loss, with the step η = n/λ_max, multiplies the residual of mode *k*
# by *1 − λ_k/λ_max* in each step (notebook 02). `energy` holds the share *c_k²/‖r‖²* of each mode.
# Write the share of the **squared** residual ‖r‖² that is left after *S* steps.
#
# The check applies it to two border prompts. In front of the trained source only the outermost
# pixel is trainable, the kernel is singular and T2 fails. In front of the random source all of the
# frame is, and T2 holds. Which one leaves less of its residual after 60 steps?

# %%
kernels = {}
for name, model in {
    "trained source, width 1": reprogrammed(source, width=1),
    "random source, width 5": reprogrammed(network(trained=False), width=5),
}.items():
    gram, r = kernel(model), training_residual(model, target)
    spectrum = mrviz.spectrum(gram)
    kernels[name] = spectrum, residual_energy(gram, spectrum, r)


def left(eigenvalues, energy, steps):
    """Share of the squared residual that is left, from eigenvalues and energies (N,)."""
    remaining = (1 - eigenvalues / eigenvalues.max()) ** steps
    return (energy * remaining**2).sum()


check("03.4", left, kernels=kernels, steps=STEPS)

# %% [markdown]
# The singular kernel is the faster one: T2 is about the end, this is about 60 steps. Eigenvalues
# are compared with λ_max, as the step size is, and what counts is where the residual lies. For the
# trained source nearly all of it lies in modes with large eigenvalues. What is left is what its
# capacity can do nothing about.
#
# ## Exercise 03.5: the Proposition-1 gap
#
# Write T11 for a kernel Θ (nC × nC, rows sample-major: output *c* of sample *i* is row *iC + c*):
#
# 1. Θ̄ (n × n), the mean over *c* of the blocks Θ^{cc},
# 2. its eigenvalues, each repeated *C* times, sorted like those of Θ,
# 3. the norm of the difference of the two spectra, divided by the norm of that of Θ.


# %%
def gap(theta, n, C):
    """Relative distance of the spectra of Θ and of Θ̄ ⊗ I."""
    mean = theta.view(n, C, n, C).diagonal(dim1=1, dim2=3).mean(2)
    repeated = torch.linalg.eigvalsh(mean).repeat_interleave(C)
    values = torch.linalg.eigvalsh(theta)
    return (values - repeated).norm() / values.norm()


check("03.5", gap, gram=theta_border)

# %% [markdown]
# ## Exercise 03.6: earned and unearned green lights
#
# A green light is *earned* if what it seems to promise was then measured, and *unearned* if not.
# Four of them, all of them **holds**:
#
# - **T1**, border prompt of width 3: "204 parameters, so all 200 residuals can be fitted." Look at
#   the rank in the sweep.
# - **T2**, border prompt, *random* source, seed 0: "λ_min > 0, so the training loss goes to zero",
#   say below a tenth of its start in our 60 steps. The next cell prints it.
# - **T3**, linear program, trained CNN: "Γ guarantees λ_min(Θ) > 0." Look at T2 in its table.
# - **T7**, border prompt, trained source, seed 0: "the accuracy will lie in this 95 % interval."


# %%
def experiment(source):
    """Prediction and real training of the border prompt."""
    model = reprogrammed(source)
    gram = kernel(model)
    prediction = mrviz.predict_training(model, target, gram=gram, steps=STEPS, progress=False)
    run = {**prediction.train_options, "record_every": 20, "progress": False}
    return prediction, mrviz.train(model, target, **run)


_, slow = experiment(network(trained=False))
prediction, fit = experiment(source)
with_bound = mrviz.transfer_conditions(
    reprogrammed(source, "linear"), target, dtype=DOUBLE, progress=False
)

measured = {"frame": sweep[3], "slow": slow, "linear": with_bound}
measured |= {"prediction": prediction, "fit": fit}

lights = {"T1": "unearned", "T2": "unearned", "T3": "earned", "T7": "earned"}

check("03.6", lights, **measured)

# %% [markdown]
# T1 is necessary only. T2 is true in the limit of time, for the linearised model and squared loss.
# T3 is a theorem, and needs nothing but resolved numbers. T7 was a prediction that came true; it
# need not have: for the random source it would not be as close.
