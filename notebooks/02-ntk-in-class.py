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
# # What a tangent kernel is
#
# Take one gradient step on one sample, and the outputs on *all* samples move. By how much is
# written in one matrix, the **Neural Tangent Kernel** (NTK). This notebook builds it from two
# points, reads learning speeds off its eigenvalues, predicts a training curve before training, and
# asks when such a prediction can be trusted.
#
# You need gradients, matrices and a little PyTorch. Time: 45 minutes with the seven exercises. An
# exercise has a cell with a gap, `...`, and a cell that checks what you put there and says what is
# wrong with it. Nothing later needs your answers. Solutions are in the folder `solutions`.

# %% slideshow={"slide_type": "skip"}
import copy
from statistics import mean, stdev

import plotly.graph_objects as go
import torch

import mrviz
from mrviz.classroom import check
from mrviz.figures import (
    PALETTE,
    Curve,
    Decay,
    decay_figure,
    depth_figure,
    gram_figure,
    learning_figure,
    program_figure,
    spectrum_figure,
)
from mrviz.figures.theme import base_layout
from mrviz.theory import gram_factors, remaining, residual_energy, simulate, stable_step

_ = torch.manual_seed(0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two points
#
# A model with two parameters: *f_θ(x) = θ₁ tanh(θ₂ x)*. At the point *A* it should give 1.5. One
# step of gradient descent on the loss *½(y − f_θ(A))²* goes along the gradient of *f* at *A*:
#
# $$\theta \leftarrow \theta + \eta\, r\, \nabla_\theta f(A), \qquad r = y - f(A).$$
#
# What happens at another point *B*?

# %% slideshow={"slide_type": "-"}
theta = torch.tensor([1.0, 0.5], dtype=torch.float64)
A, B, y = 1.0, 2.5, 1.5


def f(theta, x):
    return theta[0] * torch.tanh(theta[1] * x)


gradient = torch.func.grad(f)  # by theta: a vector of two numbers at each x
r = y - f(theta, A)
for lr in (0.4, 0.04, 0.004):
    stepped = theta + lr * r * gradient(theta, A)
    moved = f(stepped, B) - f(theta, B)
    first_order = lr * r * gradient(theta, B) @ gradient(theta, A)
    print(f"step size {lr}: f(B) moves by {moved:.6f}, first order says {first_order:.6f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The smaller the step, the better the first order: a tenth of the step size leaves about a
# hundredth of the error. So a small step on *A* moves *f(B)* by *η r* times one number,
#
# $$\Theta(B, A) = \langle \nabla_\theta f(B), \nabla_\theta f(A) \rangle .$$
#
# This is the **empirical NTK** of the two points. It says how much learning *A* teaches *B*. It
# depends on the parameters: "empirical" means for this model, as it is now.

# %% slideshow={"slide_type": "subslide"}
line = torch.linspace(-3, 3, 121, dtype=torch.float64)
kernel = torch.stack([gradient(theta, x) @ gradient(theta, A) for x in line])
curves = {
    "before": (f(theta, line), PALETTE[0], "solid"),
    "after one step on A": (f(theta + 0.4 * r * gradient(theta, A), line), PALETTE[1], "solid"),
    "before + η r Θ(x, A)": (f(theta, line) + 0.4 * r * kernel, PALETTE[1], "dot"),
}
figure = go.Figure(layout=base_layout("light", 380))
for name, (values, color, dash) in curves.items():
    figure.add_scatter(x=line, y=values, name=name, line={"color": color, "dash": dash})
black = {"color": "#24292f", "size": 9}
points = {"x": [A, B], "y": [f(theta, A), f(theta, B)], "text": ["A", "B"], "marker": black}
figure.add_scatter(**points, mode="markers+text", textposition="bottom right", showlegend=False)
figure.add_scatter(x=[A], y=[y], mode="markers", marker={**black, "symbol": "x"}, name="y at A")
figure.update_layout(
    xaxis_title="x", yaxis_title="f(x)", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}
)
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.1: the kernel of two points by hand
#
# Let *f_θ(x) = θ₁ x + θ₂ x²*. What is Θ(2, 3)? (No computer needed. Why does it not matter what θ
# is?)

# %% slideshow={"slide_type": "-"} tags=["exercise"]
theta_23 = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.1", theta_23, a=2.0, b=3.0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The setting: model reprogramming
#
# Model reprogramming takes a **source**, a network that was trained for something else, and keeps
# it frozen. Only the parameters θ of an **input program** in front of it are trained, and a fixed
# mapping turns the source's outputs into target classes:
#
# ```
# x  ──►  program a_θ  ──►  u  ──►  source f_S  ──►  mapping b  ──►  f
#         (trained)                 (frozen)         (fixed)
# ```
#
# Here the source is a small network trained on MNIST at 16 × 16 pixels. The target is another set
# of digits, scikit-learn's, of 8 × 8 pixels. The program is an *overlay*: the image is enlarged and
# one trainable image δ, the same for all samples, is added to it.

# %% slideshow={"slide_type": "subslide"}
source = mrviz.load_source(
    "dnn", depth=3, width=256, input_size=16, trained_on="mnist-5k", progress=False
)
target = mrviz.load_target("digits", n_train=40, n_test=300, seed=0)
x, labels = target.x_train, target.targets_of(target.y_train)  # labels: one-hot, (n, C)
model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
n, C, p = len(x), model.outputs, model.n_parameters
print(f"n = {n} samples, C = {C} outputs, p = {p} trainable parameters")
program_figure(model, x[0])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From two points to a matrix
#
# Every sample has *C* outputs, and every output has a gradient by θ: nC gradients of length *p*.
# They are the rows of the Jacobian *J*, sample by sample: output *c* of sample *i* is row *iC + c*,
# counted from zero. All their inner products at once are the **Gram matrix** of the kernel,
#
# $$\Theta = J J^\top, \qquad \Theta_{iC + c,\; jC + c'} =
# \langle \nabla_\theta f_c(x_i), \nabla_\theta f_{c'}(x_j) \rangle .$$

# %% slideshow={"slide_type": "-"}


def outputs(delta):
    """Outputs (n, C) on the training samples for a prompt δ."""
    program = torch.func.functional_call(model.program, {"delta": delta}, x)
    return model.head(model.source(program))


J = torch.func.jacrev(outputs)(model.program.delta.detach())
print("outputs by δ:", tuple(J.shape))
J = J.flatten(0, 1).flatten(1)  # (n·C, p)
by_hand = J @ J.T
print("J:", tuple(J.shape), " Θ:", tuple(by_hand.shape))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Four properties follow from Θ = J Jᵀ. It is **symmetric**. It is **positive semi-definite**, as
# *vᵀΘv = ‖Jᵀv‖²*, so no eigenvalue is negative. Its **trace** is the sum of all squared
# derivatives, ‖J‖²_F. And its **rank** is at most min(nC, p). `mrviz.ntk_gram` gives the same
# matrix without forming *J*:

# %% slideshow={"slide_type": "-"}
gram = mrviz.ntk_gram(model, x, progress=False)
print(f"largest asymmetry     {(by_hand - by_hand.T).abs().max():.1e}")
print(f"trace and ‖J‖²        {by_hand.trace():.1f}, {J.square().sum():.1f}")
print(f"ntk_gram, difference  {(gram.matrix - by_hand).norm() / by_hand.norm():.1e} of its norm")
spectrum = mrviz.spectrum(gram)
print(f"rank                  {spectrum.rank} resolved, at most min(nC, p) = {min(n * C, p)}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# A difference near 10⁻⁷ is round-off in float32. What "resolved" means comes at the end.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The matrix as a picture: averaged over outputs, *n × n*, samples ordered by class. It is the
# entrywise product of what the program does (one prompt moves all images alike, so its factor is
# constant) and of what the source does. A bright block on the diagonal says: learning one image of
# this digit teaches the others of the same digit. Some digits have one.

# %% slideshow={"slide_type": "-"}
gram_figure(gram_factors(model, target, progress=False), classes=target.classes, height=420)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.2: which row?
#
# There are *n* samples with *C* outputs each. In which row of Θ is output *c* of sample *i*? Both
# are counted from zero.


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def row(i, c, n, C):
    """Row of output c of sample i."""
    ...


# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.2", row, n=n, outputs=C)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.3: a kernel without any computation
#
# Let the source be linear in its input, *f(u) = W u + constant*, and the program an overlay, *u =
# enlarged x + δ*. Write Θ (nC × nC) in terms of *W* (C × d) and *n* only: *W* is given below, and
# `torch.kron` may help. (Which matrix is the gradient of *f(x_i)* by δ? Does it depend on *i*?)

# %% slideshow={"slide_type": "-"}
linear_source = mrviz.load_source(
    "dnn", depth=1, input_size=16, trained_on="mnist-5k", progress=False
)
jacobian = mrviz.ntk.source_jacobian(linear_source, model.b, model.programmed(x).detach())
W = jacobian[0].flatten(1)  # of the first sample
print(f"W: {tuple(W.shape)}; other samples differ by {(jacobian - jacobian[0]).abs().max():.0e}")

# %% slideshow={"slide_type": "-"} tags=["exercise"]
theta_linear = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.3", theta_linear, W=W, n=n)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* with a linear source, can one shared prompt move two images in different directions?
# What is the rank of this Θ?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.4: at least how many zeros?
#
# The overlay in front of the *ReLU* source has *p* = 256 parameters, and Θ is of order nC with
# *n* = 40 samples and *C* = 10 outputs. At least how many of its eigenvalues are exactly zero,
# whatever the source?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
zeros = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.4", zeros, n=n, outputs=C, parameters=p)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Eigenvalues are learning speeds
#
# Now a step on *all* samples, with the mean squared loss *L = (1/2n) Σ ‖y_i − f(x_i)‖²*. Stack
# the residuals *y − f* into one vector *r* of length nC. To first order every step does
#
# $$r \leftarrow r - \frac{\eta}{n}\,\Theta\, r .$$
#
# In the eigenbasis of Θ, with eigenvalues λ_k and the coordinates *c_k = v_kᵀ r*, each coordinate
# goes its own way:
#
# $$c_k \leftarrow \left(1 - \frac{\eta \lambda_k}{n}\right) c_k
# \quad\Rightarrow\quad c_k(s) = \left(1 - \frac{\eta \lambda_k}{n}\right)^{s} c_k(0) .$$
#
# Large eigenvalues are learned fast, small ones slowly, and an eigenvalue zero never.

# %% [markdown] slideshow={"slide_type": "subslide"}
# To see it, take a model that is linear in θ: the linear source behind a linear program, *u = Wφ +
# β* with *φ* the flattened image. Its gradients do not depend on θ, so Θ never changes, and "to
# first order" becomes "exactly". The training loop is plain PyTorch.

# %% slideshow={"slide_type": "-"}


def fresh():
    return mrviz.reprogram(linear_source, target, program="linear", mapping="identity")


def descend(model, lr, steps):
    """Residuals (steps + 1, nC) over gradient descent on the mean squared loss."""
    optimizer = torch.optim.SGD(model.program.parameters(), lr=lr)
    residuals = []
    for _ in range(steps + 1):
        r = labels - model(x)
        residuals.append(r.detach().flatten())
        optimizer.zero_grad()
        (r.square().sum() / (2 * n)).backward()
        optimizer.step()
    return torch.stack(residuals)


linear_gram = mrviz.ntk_gram(fresh(), x, progress=False)
linear_spectrum = mrviz.spectrum(linear_gram)
values, vectors = linear_spectrum.eigenvalues, linear_spectrum.eigenvectors

lr, steps = 0.5 * n / linear_spectrum.largest, 100
coordinates = descend(fresh(), lr, steps) @ vectors  # c_k after every step
measured = coordinates / coordinates[0]
predicted = remaining(values, torch.arange(steps + 1), n=n, lr=lr)  # (1 − ηλ_k/n)^s

# %% slideshow={"slide_type": "subslide"}
decay_figure(
    [
        Decay(f"k = {k}, λ = {values[k - 1]:,.0f}", predicted[:, k - 1], measured[:, k - 1])
        for k in (1, 5, 12, 40, 150)
    ],
    label="c<sub>k</sub>(s) / c<sub>k</sub>(0)",
    lowest=1e-3,
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Lines are the formula, markers the real training. The first mode halves with every step; the last
# one shown has hardly moved. Training is not one speed but many.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How large may a step be?
#
# The factor *1 − ηλ_k/n* must stay between −1 and 1 for every mode. The first to leave is that of
# the largest eigenvalue: gradient descent is stable if and only if **η < 2n/λ_max**. One step size
# just below that edge, one just above:

# %% slideshow={"slide_type": "-"}
edge = 2 * n / linear_spectrum.largest
start = descend(fresh(), edge, 0)[0]
energy = (vectors.T @ start).square()
around = []
for factor in (0.98, 1.02):
    lr = factor * edge
    left = remaining(values, torch.arange(steps + 1), n=n, lr=lr)
    losses = descend(fresh(), lr, steps).square().sum(1) / start.square().sum()
    around.append(Decay(f"{factor} × edge", left.square() @ energy / energy.sum(), losses))
decay_figure(around, label="training loss / loss at the start", lowest=1e-3, height=400)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.5: the largest stable step
#
# For the Gram matrix `linear_gram` of *n* = 40 samples: below which step size is gradient descent
# on the mean squared loss stable? `linear_spectrum` has what you need.

# %% slideshow={"slide_type": "-"}
linear_spectrum

# %% slideshow={"slide_type": "-"} tags=["exercise"]
largest_step = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.5", largest_step, spectrum=linear_spectrum, n=n, outputs=C)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.6: how long does a mode take?
#
# With the step size *η = n/λ_max*, after how many steps is the residual in mode *k = 20* at most
# **1 %** of what it was? (A whole number. `math.log` is the natural logarithm.)

# %% slideshow={"slide_type": "-"}
lr = n / linear_spectrum.largest
eigenvalue = float(linear_spectrum.eigenvalues[19])
print(f"η = {lr:.6f}, λ_20 = {eigenvalue:.2f}, n = {n}")

# %% slideshow={"slide_type": "-"} tags=["exercise"]
steps_needed = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.6", steps_needed, eigenvalue=eigenvalue, n=n, lr=lr)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 02.7: which residual is learned faster?
#
# How fast the loss falls at the start depends on where the residual lies: with gradient flow
# *−L′(0)/L(0) = (2/n) Σ_k λ_k c_k² / Σ_k c_k²*. Write a function for the weighted mean
# *Σ_k λ_k c_k² / Σ_k c_k²* of a kernel Θ (nC × nC) and a residual (n × C). It needs no
# eigenvectors: what is *Σ_k λ_k c_k²* in terms of Θ and *r*?
#
# The check applies it to the kernel of the overlay in front of the ReLU source, with two residuals:
# the true labels, and the same labels dealt to the wrong images.

# %% slideshow={"slide_type": "-"}
true = labels - labels.mean(0)
shuffled = true[torch.randperm(n, generator=torch.Generator().manual_seed(0))]


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def speed(theta, r):
    """Mean eigenvalue that a residual r (n, C) sees in a kernel (nC, nC)."""
    ...


# %% slideshow={"slide_type": "-"} tags=["check"]
check("02.7", speed, kernel=gram.matrix, true=true, shuffled=shuffled)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predict a training curve, then run it
#
# If Θ stays what it is, training needs no network any more: iterate *f ← f − (η/n) Θ ∇ℓ* on the
# outputs alone, with the loss, the step size and the number of steps that will be run.
# `mrviz.predict_training` does this **matched prediction** from one Gram matrix, and
# `mrviz.train` the real run. First the linear model, where it is exact. Lines are predicted,
# markers measured.

# %% slideshow={"slide_type": "-"}


def predict_and_run(model, loss):
    """Matched prediction, real training and kernel drift of a model, 100 steps."""
    prediction = mrviz.predict_training(model, target, loss=loss, steps=100, progress=False)
    fit = mrviz.train(model, target, **prediction.train_options, progress=False)
    after = mrviz.ntk_gram(model, x, progress=False)
    drift = mrviz.kernel_drift(prediction.gram, after).relative
    predicted = prediction.trajectory
    print(f"training loss {predicted.train_loss[0]:.3g} at the start, then")
    print(f"predicted {predicted.train_loss[-1]:.3g}, measured {fit.train_loss[-1]:.3g}")
    print(f"held-out accuracy predicted {prediction.accuracy:.1%}, ", end="")
    print(f"measured {fit.test_accuracy[-1]:.1%}")
    print(f"kernel drift {drift:.2g}")
    return learning_figure(predicted, fit.history, height=430)


predict_and_run(fresh(), "squared")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A source that is not linear
#
# Now the ReLU source with its overlay, still with squared loss:

# %% slideshow={"slide_type": "-"}
model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
predict_and_run(model, "squared")

# %% [markdown] slideshow={"slide_type": "fragment"}
# This one is missed. The **kernel drift** says why: ‖Θ_t − Θ₀‖ / ‖Θ₀‖, Frobenius norms, is how far
# the matrix itself has moved during training, and here it is not small. A trained source has large
# logits (look at the loss at the start), and squared loss pulls all of them to 0 and 1: the prompt
# has far to go, and the gradients of a ReLU network are different where it arrives.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Cross-entropy
#
# What people use is cross-entropy: its gradient is *softmax(f) − y* instead of *f − y*. There is
# no closed form, but the iteration is the same.

# %% slideshow={"slide_type": "-"}
model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
predict_and_run(model, "cross_entropy")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The kernel drifts less, and the prediction from one matrix, made before training, is close in loss
# and in accuracy. The drift is still no small number. When *is* it small?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When does the kernel stay? The width of the network
#
# The classical answer [Jacot et al. 2018; Lee et al. 2019]: train a network's **own weights**, and
# the wider it is, the less its kernel moves, because each of many weights has to move only a
# little. This is the *lazy* regime.
#
# In model reprogramming those weights are frozen. What is trained is an image δ or a matrix in
# front of them, whose size has nothing to do with the width of the source. So does width still
# help? Think before you run the next cells: a wide random source is a fixed, curved function of its
# input *u*. Does it get flatter as it gets wider?

# %% [markdown] slideshow={"slide_type": "subslide"}
# Random ReLU networks with one hidden layer of 16 to 4,096 units, on 30 digits of 8 × 8 pixels:
# 100 steps of gradient descent on squared loss, with half the largest stable step. Three ways to
# train: the network's own weights, an overlay in front of it, a linear program in front of it. Four
# seeds each. We record the kernel drift, the error of the predicted outputs on held-out digits
# (relative to how far the outputs moved), and the share of hidden ReLUs that training switched on
# or off.

# %% slideshow={"slide_type": "skip"}
few = mrviz.load_target("digits", n_train=30, n_test=100, seed=0)
few_labels = few.targets_of(few.y_train)
SETTING = {"loss": "squared", "steps": 100, "record_every": 100, "progress": False}


def random_network(width, size, seed):
    """A source with one hidden layer."""
    return mrviz.load_source(
        "dnn", depth=2, width=width, input_size=size, seed=seed, progress=False
    )


def hidden_units(source, u):
    """Values of the hidden units before the ReLU, (n, width)."""
    with torch.no_grad():
        return source.module[:2](source.normalized(u))


def outcome(before, after, start, predicted, real, units_before, units_after):
    """What is recorded of one training."""
    return {
        "kernel_drift": mrviz.kernel_drift(before, after).relative,
        "prediction_error": float((real - predicted).norm() / (real - start).norm()),
        "switched": float(((units_before > 0) != (units_after > 0)).double().mean()),
    }


def train_own_weights(source):
    x, held_out = few.x_train, few.x_test
    before = mrviz.source_ntk(source, x, reduce="full", progress=False)
    cross = mrviz.source_ntk(source, held_out, x, reduce="full", progress=False)
    lr = stable_step(mrviz.spectrum(before).largest, len(x)) / 2
    start = source(held_out)
    path = simulate(before.matrix, source(x), few_labels, lr=lr, **SETTING)
    predicted = path.at(cross.matrix, start)[-1]
    network = copy.deepcopy(source).requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for _ in range(100):
        optimizer.zero_grad()
        ((network(x) - few_labels).square().sum() / (2 * len(x))).backward()
        optimizer.step()
    network.requires_grad_(False)
    after = mrviz.source_ntk(network, x, reduce="full", progress=False)
    units = hidden_units(source, x), hidden_units(network, x)
    return outcome(before, after, start, predicted, network(held_out), *units)


def train_program(source, program, seed):
    model = mrviz.reprogram(source, few, program=program, mapping="identity", seed=seed)
    start, u = model.predict(few.x_test), model.programmed(few.x_train).detach()
    prediction = mrviz.predict_training(model, few, **SETTING)
    mrviz.train(model, few, **prediction.train_options, record_every=100, progress=False)
    after = mrviz.ntk_gram(model, few.x_train, progress=False)
    predicted, real = prediction.trajectory.test_outputs, model.predict(few.x_test)
    moved = model.programmed(few.x_train).detach()
    units = hidden_units(source, u), hidden_units(source, moved)
    found = outcome(prediction.gram, after, start, predicted, real, *units)
    return {**found, "angle": angle(source, u, moved)}


def angle(source, u, moved):
    """Mean angle θ between the inputs before and after, as a share of π (see below)."""
    u, moved = (source.normalized(inputs).flatten(1) for inputs in (u, moved))

    def k(a, b):
        return 2 / a.shape[1] * (a * b).sum(1) + 0.1

    return float((k(u, moved) / (k(u, u) * k(moved, moved)).sqrt()).acos().mean() / torch.pi)


# %% slideshow={"slide_type": "subslide"}
SEEDS, WIDTHS = range(4), (16, 64, 256, 1024, 4096)
rows = []
for width in WIDTHS:
    for seed in SEEDS:
        net = random_network(width, 8, seed)
        run = {"width": width, "seed": seed}
        rows.append({"trained": "own weights", **run, **train_own_weights(net)})
        for program in ("overlay", "linear"):
            rows.append(
                {"trained": f"{program} program", **run, **train_program(net, program, seed)}
            )


def table(rows, column, by="trained"):
    """Mean ± standard deviation over seeds, a line for each curve and a column for each width."""
    print(f"{column.replace('_', ' '):18}", *(f"{width:>15,}" for width in WIDTHS))
    for name in dict.fromkeys(row[by] for row in rows if column in row):
        cells = []
        for width in WIDTHS:
            found = [r[column] for r in rows if r[by] == name and r["width"] == width]
            cells.append(f"{mean(found):.4f} ± {stdev(found):.4f}")
        print(f"  {name:16}", *cells)


table(rows, "kernel_drift")
depth_figure(rows, "kernel_drift", x="width", by=["trained"], log_x=True, height=400)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **What the numbers say.** When a network's own weights are trained, the drift goes to zero with
# its width, from nearly 1 to less than 0.001: the lazy regime. When a program in front of the same
# networks is trained, the drift falls at first and then **stops falling**: from 256 units on it
# stays near a half for the overlay and near a third for the linear program.
#
# The prediction does the same. Its error vanishes with width for own weights, and does not for the
# programs.

# %% slideshow={"slide_type": "-"}
table(rows, "prediction_error")
depth_figure(rows, "prediction_error", x="width", by=["trained"], log_x=True, height=400)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Why
#
# As long as none of its ReLUs switches, the source is linear in *u*, and the kernel of these two
# programs does not change at all. So all the drift comes from ReLUs that switch, and they can be
# counted. When the input of a random network turns by an angle θ (bias included), a share θ/π of
# the units is expected to switch [Cho and Saul 2009], **however many there are**. That is for
# inputs chosen without a look at the weights, and training looks; so both are measured. `angle` is
# the mean of θ/π.

# %% slideshow={"slide_type": "-"}
table(rows, "switched")
table(rows, "angle")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Own weights: a unit of a wide network hardly moves, so hardly any switches. Programs: *u* has to
# turn by as much as it takes to change the outputs. From 256 units on neither that angle nor the
# share of switched units changes by more than the spread of the seeds, and at 4,096 units the two
# agree. The outputs of ever wider random networks tend to a random function of *u* with a curvature
# of its own [Jacot et al. 2018]. A wider source is a better drawn curve, not a flatter one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When does the kernel stay? The size of the input
#
# So what matters is how far *u* has to turn. In an image of more pixels there are more directions
# in which the outputs can be changed, and a smaller turn may do. The overlay once more, now in
# front of sources with inputs of 8 × 8, 16 × 16 and 32 × 32 pixels:

# %% slideshow={"slide_type": "-"}
sizes = [{**row, "input": "8 × 8 pixels"} for row in rows if row["trained"] == "overlay program"]
for size in (16, 32):
    for width in WIDTHS:
        for seed in SEEDS:
            net = random_network(width, size, seed)
            run = {"input": f"{size} × {size} pixels", "width": width, "seed": seed}
            sizes.append({**run, **train_program(net, "overlay", seed)})

for column in ("kernel_drift", "prediction_error", "angle"):
    table(sizes, column, by="input")
depth_figure(sizes, "kernel_drift", x="width", by=["input"], log_x=True, height=400)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The larger the input, the smaller the angle, and the lower the drift that a wide source comes down
# to; with the largest input it is not level yet at 4,096 units. The prediction error of the widest
# sources falls as well. So both have to be large, and the input size sets how much width can do.
# (The overlay has more parameters on a larger input; this experiment does not tell the two apart.
# It is one data set, with random sources of one hidden layer.) It goes with a remark of the authors
# of the paper on reprogramming and the NTK, arXiv 2506.00620, on visual prompts: "the target
# model's width is the source's input dimension". The experiment is not theirs.
#
# In practice: do not trust width. **Measure the drift**; it costs one more Gram matrix.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What round-off hides
#
# Back to the overlay in front of the trained source: *p* = 256 parameters, order nC = 400, so many
# eigenvalues are exactly zero. What does a computer say?

# %% slideshow={"slide_type": "-"}
naive = torch.linalg.eigvalsh(by_hand)  # float32, ascending
print(f"λ_max                   {naive[-1]:.4g}")
print(f"the {n * C - p} smallest        {naive[0]:.1e} to {naive[n * C - p - 1]:.1e}")
print(f"negative ones           {int((naive < 0).sum())}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Small numbers, many of them negative, none of them meaningful: a positive semi-definite matrix has
# no negative eigenvalue. The derivatives are known to a relative precision ε only, about 6·10⁻⁸ in
# float32, so eigenvalues at or below the **noise floor** *N ε λ_max* (*N* the order of the matrix)
# are **not resolved**. They are not "λ_min = 3·10⁻⁵"; they are unknown, and may be zero.

# %% [markdown] slideshow={"slide_type": "subslide"}
# `mrviz.spectrum` keeps this floor, and the figure shades it. What is not resolved is drawn dotted
# inside the shade; how deep it lies there means nothing. The lower panel shows the share of the
# residual in each mode.

# %% slideshow={"slide_type": "-"}
model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
precise = mrviz.spectrum(mrviz.ntk_gram(model, x, dtype=torch.float64, progress=False))
shares = residual_energy(gram, spectrum, labels - model.predict(x))
hidden = float(shares[~spectrum.resolved].sum())
print("float32:", spectrum)
print("float64:", precise)
print(f"{hidden:.1%} of the residual lies in modes that are not resolved in float32")
spectrum_figure([Curve("overlay, float32", spectrum, shares)], height=470)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Float64, with its far lower floor, resolves a few more eigenvalues, and the rest is zero to double
# precision. There are more zeros than the count of parameters forces. What the residual holds in
# modes with eigenvalue zero, small steps on δ cannot reduce.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - Θ(x, x′) = ⟨∇f(x), ∇f(x′)⟩ says how much a step on *x′* moves *f(x)*.
# - On data it is a matrix Θ = J Jᵀ: symmetric, positive semi-definite, of rank at most min(nC, p).
# - Its eigenvalues are learning speeds, *(1 − ηλ_k/n)^s*. Steps are stable below 2n/λ_max.
# - While Θ stays, one matrix predicts training, held-out accuracy included. The kernel drift says
#   how far it stayed.
# - Wide networks keep their kernel when their **own weights** are trained. In reprogramming, width
#   alone did not keep it here; a larger input of the source did better.
# - Eigenvalues below the noise floor are not resolved. Do not report them as numbers.
#
# *Homework:* repeat the experiment on width with `depth=3`, or with `trained_on="digits"`. What do
# you expect of a source with smooth activations instead of ReLUs?
