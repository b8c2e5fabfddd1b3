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

# %% [markdown] slideshow={"slide_type": "slide"}
# # Bring your own
#
# A reprogrammed model has three parts, *f = b ∘ f_S ∘ a_θ*: an input program *a*, a frozen source
# *f_S* and an output mapping *b*. Each of them, and the data, can be your own. In this notebook a
# network that reads handwritten digits learns to tell three kinds of wine apart, from a table of
# chemical measurements, and not one of its weights changes.
#
# Time: 45 minutes with the five exercises. An exercise has a cell with a gap, `...`, and a cell
# that checks what you put there and says what is wrong with it. Solutions are in the folder
# `solutions`.

# %% slideshow={"slide_type": "skip"}
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from plotly.subplots import make_subplots
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

import mrviz
from mrviz.classroom import check
from mrviz.figures import (
    Curve,
    capacity_figure,
    learning_figure,
    mapping_figure,
    ranking_figure,
    spectrum_figure,
)
from mrviz.figures.theme import base_layout

_ = torch.manual_seed(0)
# %% [markdown] slideshow={"slide_type": "slide"}
# ## The source: any torch module
#
# The source here is a small convolutional network. We train it first, on scikit-learn's digits
# enlarged to 16 × 16 pixels. It takes a few seconds.

# %% slideshow={"slide_type": "-"}
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# `mrviz.SourceModel` freezes the module and checks it once: one input in, one row of outputs out,
# samples independent of each other, a finite gradient. `test_data` is optional; with it, the
# conditions can say how good the source is at its own task.

# %% slideshow={"slide_type": "-"}
source = mrviz.SourceModel(
    network,
    input_shape=(1, 16, 16),
    name="digits network",
    classes=range(10),
    test_data=(x_held, y_held),
)
accuracy = (source(x_held).argmax(1) == y_held).float().mean()
print(f"{source.name}: {accuracy:.1%} on {len(y_held)} held-out digits, {source.outputs} outputs")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The target: any arrays
#
# The target is scikit-learn's wine table: 13 measurements of wines made from three grapes. Three
# splits: *training* samples make the kernel and the gradients, *validation* samples decide when to
# stop, *test* samples are looked at in the end. Each measurement is scaled to [0, 1] by the
# training samples alone.

# %% slideshow={"slide_type": "-"}
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
target

# %% [markdown] slideshow={"slide_type": "subslide"}
# What does not fit is refused, and the message says what was expected:

# %% slideshow={"slide_type": "-"}
for wrong in (x_train.astype(int), x_train[0], scaled(x_train) * float("nan")):
    try:
        mrviz.Target(wrong, y_train, scaled(x_test), y_test)
    except mrviz.InputError as error:
        print("-", error)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The program: any module from target inputs to source inputs
#
# A network for pictures cannot read a table. So the table is painted: the canvas of 16 × 16 pixels
# is cut into 16 tiles of 4 × 4, and each measurement is the brightness of its tile. Three tiles
# stay black. `paint` is fixed, there is nothing to train in it.

# %% slideshow={"slide_type": "-"}
tile = torch.arange(16) // 4
owner = 4 * tile[:, None] + tile  # the tile that each pixel belongs to, (16, 16)


def paint(x):
    """Pictures (n, 1, 16, 16) of table rows x (n, 13)."""
    return nn.functional.pad(x, (0, 16 - x.shape[1]))[:, owner][:, None]


paint(target.x_train[:5]).shape

# %% [markdown] slideshow={"slide_type": "subslide"}
# The program makes it trainable: each pixel *q* has a contrast *w_q* and a brightness *β_q*,
#
# $$u_q = w_q\,\varphi_{j(q)} + \beta_q ,$$
#
# with *φ* the table row and *j(q)* the tile that the pixel lies in. An ordinary module is enough:

# %% slideshow={"slide_type": "-"}


class Painted(nn.Module):
    def __init__(self):
        super().__init__()
        self.contrast = nn.Parameter(torch.ones(16, 16))
        self.brightness = nn.Parameter(torch.zeros(16, 16))

    def forward(self, x):
        return self.contrast * paint(x) + self.brightness


plain = mrviz.reprogram(source, target, program=Painted(), mapping="frequency")
samples = target.x_train[:40]
gram = mrviz.ntk_gram(plain, samples, dtype=torch.float64, progress=False)
gram

# %% [markdown] slideshow={"slide_type": "fragment"}
# The kernel is exact: the source's Jacobian is taken back through `forward` by vector-Jacobian
# products. `gram.info` says how it was computed.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same program with a closed form and a capacity
#
# Since ∂u_q/∂w_q = φ_{j(q)} and ∂u_q/∂β_q = 1, the kernel needs no automatic differentiation
# through the program at all: with *A_i* the source's Jacobian at the picture of sample *i*,
#
# $$\Theta_{ij} = A_i\,(X_i X_j + I)\,A_j^\top, \qquad X_i = \mathrm{diag}(\varphi_{j(q)}) .$$
#
# A subclass of `Program` says so in `kernel_increments`. It gives the factors *G* of a sum of
# terms *G_i G_jᵀ*, here one for the contrast and one for the brightness. It also has a
# **capacity**: the pixels of the first *k* measurements are trainable (the three black tiles never
# are). *u* is the same for every *k*, so all capacities share one Jacobian, and `kernel_increments`
# says what each step adds.

# %% slideshow={"slide_type": "subslide"}
from mrviz.programs import KernelBlock, Program, program


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

    def describe(self):
        return f"each measurement is a tile; those of the first {self.capacity} are trainable"


# %% slideshow={"slide_type": "subslide"}
model = mrviz.reprogram(source, target, program="painted_table", mapping="frequency")
first = [int((target.y_train == c).nonzero()[0]) for c in range(target.n_classes)]
seen = [x_held[0], *model.programmed(target.x_train[first]).detach()]
names = [f"a digit {int(y_held[0])}", *target.classes]
figure = make_subplots(1, len(seen), subplot_titles=names)
for column, picture in enumerate(seen, start=1):
    figure.add_heatmap(
        z=picture[0], colorscale="gray", zmin=0, zmax=1, showscale=False, col=column, row=1
    )
figure.update_layout(base_layout("light", 260), showlegend=False)
figure.update_xaxes(visible=False, constrain="domain")
figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x", constrain="domain")
for column in range(1, len(seen) + 1):
    figure.update_yaxes(scaleanchor=f"x{column}", col=column, row=1)
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# On the left what the source was trained on, then what it sees of one wine of each kind, before any
# training.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Never trust a closed form that was not tested
#
# The reference is the whole Jacobian *J* of the model, and Θ = J Jᵀ. `method="contraction"`
# computes the kernel in that way, whatever the program declares. And a few lines do it without
# this toolkit:

# %% slideshow={"slide_type": "-"}
closed = mrviz.ntk_gram(model, samples, dtype=torch.float64, progress=False)
reference = mrviz.ntk_gram(
    model, samples, method="contraction", dtype=torch.float64, progress=False
)


def by_hand(model, x):
    """J Jᵀ with J the stacked gradients of all outputs of all samples."""
    parameters = dict(model.program.named_parameters())

    def outputs(parameters):
        return model.head(model.source(torch.func.functional_call(model.program, parameters, x)))

    jacobian = torch.func.jacrev(outputs)(parameters)
    stacked = torch.cat([part.flatten(2) for part in jacobian.values()], 2).flatten(0, 1)
    return (stacked @ stacked.T).double()


for name, other in {
    "contraction": reference.matrix,
    "by hand, float32": by_hand(model, samples),
}.items():
    error = (closed.matrix - other).norm() / other.norm()
    print(f"{name}: relative difference {error:.1e}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# A difference near 10⁻¹⁵ is round-off in float64, one near 10⁻⁶ round-off in float32. A mistake in
# `kernel_increments` would show up as 10⁻² or 1.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 04.1: a program with two parameters
#
# Write a program in which one contrast *a* and one brightness *c* serve the whole picture:
# u = a · paint(x) + c. Both are trainable numbers. Untrained, it paints the table as it is.


# %% slideshow={"slide_type": "-"} tags=["exercise"]
class BrightnessContrast(nn.Module):
    def __init__(self):
        super().__init__()
        ...  # two parameters

    def forward(self, x): ...


# %% slideshow={"slide_type": "-"} tags=["check"]
check("04.1", BrightnessContrast, paint=paint, x=samples)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 04.2: how many eigenvalues can it have?
#
# With n = 40 samples and C = 3 outputs the Gram matrix Θ = J Jᵀ has order nC. What is the largest
# rank that it can have with this program, whatever the source?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
bound = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("04.2", bound, parameters=2, n=len(samples), outputs=target.n_classes)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 04.3: its kernel in closed form
#
# Let `jacobian` be the source's Jacobian *A*, one row for each sample and output, in the shape of
# the pictures: (n, C, 1, 16, 16). Write the factor *G* of shape (n, C, 2), so that
# Θ_ij = G_i G_jᵀ. Its first column is the derivative of the outputs by *a*, its second that by
# *c*. (Chain rule: first ∂u/∂a and ∂u/∂c, then multiply by *A* and sum over pixels.)


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def factor(painted, jacobian):
    """G (n, C, 2) of pictures (n, 1, 16, 16) and source Jacobians (n, C, 1, 16, 16)."""
    ...


# %% slideshow={"slide_type": "-"} tags=["check"]
painted = paint(samples)
jacobian = mrviz.ntk.source_jacobian(source, model.b.to(painted.dtype), painted)
check("04.3", factor, painted=painted, jacobian=jacobian)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The mapping: any matrix
#
# The source has ten outputs, the target three classes. The *frequency* mapping gives each class the
# one digit that the source sees in it most often. The heat map is the matrix *b*: a row for each
# class, a column for each digit.

# %% slideshow={"slide_type": "-"}
mapping_figure(model.b, source.classes, target.classes, height=300)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 04.4: a mapping of your own
#
# Write the matrix *b* (3, 10) that takes, for each class, the **mean** of the outputs of the digits
# in its group: the round ones, the curved ones, the straight ones. The digit 9 is used by none.

# %% slideshow={"slide_type": "-"} tags=["exercise"]
groups = [(0, 6, 8), (2, 3, 5), (1, 4, 7)]
b = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("04.4", b, groups=groups, source_outputs=source.outputs)

# %% [markdown] slideshow={"slide_type": "subslide"}
# `mrviz.ReprogrammedModel(source, program, b)` takes such a matrix. From here on we let the data
# choose the groups: `mapping="logit_average"` gives each class the three digits that the source
# sees in it most often, as far as they are free.

# %% slideshow={"slide_type": "-"}
model = mrviz.reprogram(source, target, program="painted_table", mapping="logit_average")
mapping_figure(model.b, source.classes, target.classes, height=300)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The spectrum and the conditions
#
# Everything below works with these parts as with those that come with the toolkit.

# %% slideshow={"slide_type": "-"}
gram = mrviz.ntk_gram(model, samples, dtype=torch.float64, progress=False)
spectrum = mrviz.spectrum(gram)
spectrum_figure([Curve("painted table", spectrum)], height=380)

# %% slideshow={"slide_type": "subslide"}
conditions = mrviz.transfer_conditions(model, target, gram=gram, predict=True, progress=False)
conditions

# %% [markdown] slideshow={"slide_type": "fragment"}
# Conditions that need something else (source data, a training run, constants) are *undecided* and
# say what to pass.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 04.5: how much capacity is enough?
#
# `mrviz.capacity_sweep` gives the spectrum for every number of trainable measurements. In the
# upper panel an open marker stands for a λ_min that is zero or not above the noise floor, here that
# of **float32**. What is the smallest capacity at which every eigenvalue is resolved, so that
# λ_min is above the floor? The table has the numbers.

# %% slideshow={"slide_type": "-"}
sweep = mrviz.capacity_sweep(model, samples, progress=False)
capacity_figure(sweep, height=420)

# %% slideshow={"slide_type": "subslide"}
sweep

# %% slideshow={"slide_type": "-"} tags=["exercise"]
enough = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("04.5", enough, sweep=sweep)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* from which capacity on does T1, p ≥ nC, hold? Why is that not the same? Repeat the
# sweep with `dtype=torch.float64`: which of the two answers changes?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which program? Ask before training
#
# `mrviz.rank_programs` predicts the test accuracy of each candidate from its kernel: gradient
# descent on the linearised model, without training. A linear program *u = Wφ + β* takes any table
# too.

# %% slideshow={"slide_type": "-"}
candidates = [("painted_table", {"measurements": k}) for k in (1, 4, 13)]
ranking = mrviz.rank_programs(
    source, target, [*candidates, "linear"], mapping="logit_average", steps=200, progress=False
)
ranking_figure(ranking)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Training, with early stopping
#
# First the run that was predicted: gradient descent with the same step size and the same number
# of steps. Lines are the prediction, markers the real run.

# %% slideshow={"slide_type": "-"}
prediction = mrviz.predict_training(model, target, steps=200, progress=False)
fit = mrviz.train(model, target, **prediction.train_options, progress=False)
print(f"predicted test accuracy {prediction.trajectory.test_accuracy[-1]:.1%}")
print(f"measured test accuracy  {fit.test_accuracy[-1]:.1%}")
learning_figure(prediction.trajectory, fit.history)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Then Adam, which no kernel predicts exactly, for at most 300 passes over the training samples:
# `patience=10` stops after ten measurements without a lower validation loss and keeps the
# parameters of the best. The test samples decide nothing.

# %% slideshow={"slide_type": "-"}
fits = {}
for name in ("painted_table", "linear"):
    trained = mrviz.reprogram(source, target, program=name, mapping="logit_average")
    fits[name] = mrviz.train(
        trained, target, epochs=300, batch_size=40, lr=0.01, patience=10, progress=False
    )
    kept = fits[name].outcome
    stopped = "stopped early" if fits[name].stopped else "ran to the end"
    print(f"{name}: {stopped}; the parameters of step {kept.step} were kept")
    print(f"  validation {kept.val_accuracy:.1%}, test {kept.test_accuracy:.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# An honest comparison needs a method that was made for tables:

# %% slideshow={"slide_type": "-"}
simple = LogisticRegression(max_iter=1000).fit(scaled(x_train), y_train)
print(f"logistic regression: test {simple.score(scaled(x_test), y_test):.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# A digits network is not the tool for wine. The point is how far a frozen network gets when nothing
# but its input is trained, and that the kernel said so before.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Save and load
#
# The folder holds the tensors of program and mapping and a card in plain text; nothing in it is
# run as code. The source's weights are not in it, as it is your own: pass it again. It is compared
# with the one the model was saved with.

# %% slideshow={"slide_type": "-"}
folder = Path(tempfile.mkdtemp()) / "wine-by-digits"
trained.save(folder, target=target, metrics=fits["linear"])
loaded = mrviz.load(folder, source)
print("same outputs:", torch.equal(loaded.predict(target.x_test), trained.predict(target.x_test)))
print("from the card:", loaded.card["target"]["name"], loaded.card["metrics"]["test_accuracy"])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In the Explorer
#
# The Explorer takes objects as well as names. `PaintedTable` is registered, so it is in the
# dropdown, with its capacity. (Without a running kernel this is a picture.)

# %% slideshow={"slide_type": "-"}
mrviz.explore(source=source, target=target, program="painted_table", mapping="logit_average", n=40)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - A source is any torch module, a target any arrays, a program any module, a mapping any matrix.
# - `forward` alone gives an exact kernel. A closed form makes it fast; test it against
#   `method="contraction"` in float64.
# - rank Θ ≤ min(nC, p): few parameters cannot fit many residuals.
# - λ_min is read against the noise floor, and predicted accuracy before training.
# - Validation samples decide, test samples are measured.
#
# *Homework:* replace `load_wine` by `sklearn.datasets.load_breast_cancer` (30 measurements: which
# tiles?), or the network by one of your own.
