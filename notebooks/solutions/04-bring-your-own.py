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
# # Solutions: bring your own
#
# The exercises of `04-bring-your-own` with one solution each. The first cells make what the
# exercises are about, as the notebook does.

# %%
from itertools import pairwise

import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

import mrviz
from mrviz.classroom import check
from mrviz.programs import KernelBlock, Program, program

_ = torch.manual_seed(0)

digits = load_digits()
pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
pictures = nn.functional.interpolate(pictures, size=16, mode="bilinear")
labels = torch.tensor(digits.target)
x, x_held, y, y_held = train_test_split(
    pictures, labels, test_size=0.25, random_state=0, stratify=labels
)

network = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(16 * 4 * 4, 10)),
)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
for _ in range(15):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()

source = mrviz.SourceModel(
    network,
    input_shape=(1, 16, 16),
    name="digits network",
    classes=range(10),
    test_data=(x_held, y_held),
)

# %%
wine = load_wine()
rest, x_test, y_rest, y_test = train_test_split(
    wine.data, wine.target, test_size=60, random_state=0, stratify=wine.target
)
x_train, x_val, y_train, y_val = train_test_split(
    rest, y_rest, test_size=38, random_state=0, stratify=y_rest
)
low, high = x_train.min(0), x_train.max(0)


def scaled(table):
    return (table - low) / (high - low)


target = mrviz.Target(
    scaled(x_train),
    y_train,
    scaled(x_test),
    y_test,
    x_val=scaled(x_val),
    y_val=y_val,
    classes=["barolo", "grignolino", "barbera"],
    name="wine",
)
samples = target.x_train[:40]


# %%
tile = torch.arange(16) // 4
owner = 4 * tile[:, None] + tile  # the tile that each pixel belongs to, (16, 16)


def paint(x):
    """Pictures (n, 1, 16, 16) of table rows x (n, 13)."""
    return nn.functional.pad(x, (0, 16 - x.shape[1]))[:, owner][:, None]


@program
class PaintedTable(Program):
    """A table row as a mosaic; contrast and brightness of its first pixels are trainable."""

    key = "painted_table"
    label = "painted table"
    takes = ("other",)  # neither images nor series
    closed_form = True
    capacity_option = "measurements"
    capacity_label = "trainable measurements"
    capacity_advice = "a table with more columns"

    def __init__(self, source_shape, target_shape, *, measurements=None):
        super().__init__(source_shape, target_shape)
        self.contrast = nn.Parameter(torch.ones(16, 16))
        self.brightness = nn.Parameter(torch.zeros(16, 16))
        self._set_capacity(measurements, self.target_shape[0])

    def within(self, k):
        return owner < (k or 0)

    def forward(self, x):
        inside = self.within(self.capacity)
        w, b = (torch.where(inside, p, p.detach()) for p in (self.contrast, self.brightness))
        return w * paint(x) + b

    def parameters_at(self, capacity):
        return 2 * int(self.within(capacity).sum())

    def kernel_increments(self, x, jacobian, capacities):
        times_picture = jacobian * paint(x)[:, None]
        steps = []
        for before, after in pairwise([0, *capacities]):
            new = self.within(after) & ~self.within(before)
            parts = (times_picture[..., new], jacobian[..., new])
            steps.append([KernelBlock(part.flatten(2)) for part in parts])
        return steps


model = mrviz.reprogram(source, target, program="painted_table", mapping="frequency")

# %% [markdown]
# ## Exercise 04.1: a program with two parameters
#
# Write a program in which one contrast *a* and one brightness *c* serve the whole picture:
# u = a · paint(x) + c. Both are trainable numbers. Untrained, it paints the table as it is.


# %%
class BrightnessContrast(nn.Module):
    def __init__(self):
        super().__init__()
        self.contrast = nn.Parameter(torch.tensor(1.0))
        self.brightness = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return self.contrast * paint(x) + self.brightness


check("04.1", BrightnessContrast, paint=paint, x=samples)

# %% [markdown]
# ## Exercise 04.2: how many eigenvalues can it have?
#
# With n = 40 samples and C = 3 outputs the Gram matrix Θ = J Jᵀ has order nC. What is the largest
# rank that it can have with this program, whatever the source?

# %%
bound = min(len(samples) * target.n_classes, 2)

check("04.2", bound, parameters=2, n=len(samples), outputs=target.n_classes)

# %% [markdown]
# *J* is nC × p, and a matrix has no larger rank than its shorter side.
#
# ## Exercise 04.3: its kernel in closed form
#
# Let `jacobian` be the source's Jacobian *A*, one row for each sample and output, in the shape of
# the pictures: (n, C, 1, 16, 16). Write the factor *G* of shape (n, C, 2), so that
# Θ_ij = G_i G_jᵀ. Its first column is the derivative of the outputs by *a*, its second that by
# *c*. (Chain rule: first ∂u/∂a and ∂u/∂c, then multiply by *A* and sum over pixels.)


# %%
def factor(painted, jacobian):
    """G (n, C, 2) of pictures (n, 1, 16, 16) and source Jacobians (n, C, 1, 16, 16)."""
    by_contrast = (jacobian * painted[:, None]).flatten(2).sum(2)  # ∂u/∂a = paint(x)
    by_brightness = jacobian.flatten(2).sum(2)  # ∂u/∂c = 1 at every pixel
    return torch.stack([by_contrast, by_brightness], 2)


painted = paint(samples)
jacobian = mrviz.ntk.source_jacobian(source, model.b.to(painted.dtype), painted)
check("04.3", factor, painted=painted, jacobian=jacobian)

# %% [markdown]
# The same kernel by vector-Jacobian products through `forward`:

# %%
two = mrviz.ReprogrammedModel(source, BrightnessContrast(), model.b)
gram = mrviz.ntk_gram(two, samples, progress=False)
g = factor(painted, jacobian).flatten(0, 1).double()
print(f"relative difference {(g @ g.T - gram.matrix).norm() / gram.matrix.norm():.1e}")
print("rank", mrviz.spectrum(gram).rank)

# %% [markdown]
# ## Exercise 04.4: a mapping of your own
#
# Write the matrix *b* (3, 10) that takes, for each class, the **mean** of the outputs of the digits
# in its group: the round ones, the curved ones, the straight ones. The digit 9 is used by none.

# %%
groups = [(0, 6, 8), (2, 3, 5), (1, 4, 7)]
b = torch.zeros(3, 10)
for row, group in enumerate(groups):
    b[row, list(group)] = 1 / len(group)

check("04.4", b, groups=groups, source_outputs=source.outputs)

# %% [markdown]
# ## Exercise 04.5: how much capacity is enough?
#
# `mrviz.capacity_sweep` gives the spectrum for every number of trainable measurements. In the
# upper panel an open marker stands for a λ_min that is zero or not above the noise floor, here that
# of **float32**. What is the smallest capacity at which every eigenvalue is resolved, so that
# λ_min is above the floor? The table has the numbers.
#
# It can be read from the table, or asked of the sweep:

# %%
model = mrviz.reprogram(source, target, program="painted_table", mapping="logit_average")


def smallest_resolved(sweep):
    pairs = zip(sweep.capacities, sweep.spectra, strict=True)
    return next(capacity for capacity, spectrum in pairs if spectrum.rank == spectrum.order)


sweep = mrviz.capacity_sweep(model, samples, progress=False)
enough = smallest_resolved(sweep)

check("04.5", enough, sweep=sweep)

# %% [markdown]
# T1 counts parameters, p ≥ nC. That is necessary for λ_min > 0, not sufficient, and says nothing of
# how large λ_min is. The noise floor is N ε λ_max with ε about 6·10⁻⁸ in float32 and 10⁻¹⁶ in
# float64. T1 does not change with the precision; what is resolved does:

# %%
precise = mrviz.capacity_sweep(model, samples, dtype=torch.float64, progress=False)
rows = len(samples) * target.n_classes
infos = zip(sweep.capacities, sweep.infos, strict=True)
print("T1 holds from capacity", next(c for c, info in infos if info.n_parameters >= rows))
print("resolved in float32 from", enough)
print("resolved in float64 from", smallest_resolved(precise))
