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
# # Time series
#
# A network that tells leaves apart by their outlines is to read a day's power demand. A forecaster
# trained by others is to forecast airline passengers. Neither network changes: as with pictures, a
# program in front of it does. This notebook looks at both through the tangent kernel, and asks
# which promises the theory keeps.
#
# Part 1 classifies series, part 2 measures a bound, part 3 forecasts. Time: 45 minutes with the
# seven exercises. An exercise has a cell with a gap, `...`, and a cell that checks what you put
# there and says what is wrong with it. Solutions are in the folder `solutions`.

# %% slideshow={"slide_type": "skip"}
import math

import plotly.graph_objects as go
import torch
from aeon.datasets import load_airline
from plotly.subplots import make_subplots
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import mrviz
from mrviz.classroom import check
from mrviz.figures import (
    PALETTE,
    Curve,
    capacity_figure,
    forecast_figure,
    gram_figure,
    learning_figure,
    mapping_figure,
    program_figure,
    spectrum_figure,
)
from mrviz.figures.theme import axis_style, base_layout
from mrviz.programs import compare_forecasts, seasonal_naive
from mrviz.targets import load_forecast
from mrviz.theory import (
    distribution_bound,
    gram_factors,
    residual_energy,
    training_residual,
)

quiet = {"progress": False}
# %% [markdown] slideshow={"slide_type": "slide"}
# ## The source: leaves
#
# The source is a small ResNet for series (Wang et al. 2017). It is trained here on OSULeaf, a set
# of the UCR archive: the outline of a leaf, written as a series, of six kinds of leaves. The series
# are resampled to 128 points. It takes some seconds, the first time.

# %% slideshow={"slide_type": "-"}
source = mrviz.load_source(
    "resnet1d", width=8, input_size=128, trained_on="ucr:OSULeaf", epochs=100, **quiet
)
leaves, kinds = source.test_data
right = int((source(leaves).argmax(1) == kinds).sum())
print(f"{source.name}: {right} of {len(kinds)} held-out leaves right, {source.outputs} kinds")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The target: power demand of a day
#
# ItalyPowerDemand has 24 values for each day. The classes are days from October to March and days
# from April to September. `split="own"` keeps the test samples of the archive apart; 20 of its
# training samples become validation samples.

# %% slideshow={"slide_type": "-"}
target = mrviz.load_target("ucr:ItalyPowerDemand", n_train=40, n_val=20, split="own")
print(target)
figure = go.Figure(layout=base_layout("light", 300))
for label, name in enumerate(target.classes):
    days = target.x_train[target.y_train == label][:6, 0]
    for k, day in enumerate(days):
        figure.add_scatter(
            y=day,
            mode="lines",
            line={"color": PALETTE[label], "width": 1, "dash": "dot" if label else "solid"},
            name=f"class {name}",
            showlegend=k == 0,
        )
figure.update_xaxes(axis_style("light"), title="hour")
figure.update_yaxes(axis_style("light"), title="demand, scaled")
figure

# %% [markdown] slideshow={"slide_type": "fragment"}
# The series are short, the source's input is long. What to do with the room is the program's
# business.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Programs for series: copies and padding
#
# **Voice2Series** (Yang et al. 2021) puts *m* copies of the series along the source's input and
# trains what lies beside them:
#
# $$u = \mathrm{copies}(x) + M \odot \delta ,$$
#
# with *M* = 1 where no copy lies. It starts at δ = 0. This is what the source sees of the first
# day with three copies:

# %% slideshow={"slide_type": "-"}
copies = mrviz.reprogram(
    source, target, program="series_padding", replicas=3, mapping="probability_average"
)
program_figure(copies, target.x_train)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.1: how much is trainable?
#
# The source takes 128 points, the series has 24. With *m* = 5 copies and everything beside them
# trainable, how many trainable numbers *p* does the program have?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
p = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.1", p, length=128, series=24, replicas=5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Programs for series: lag by lag, and linear
#
# Two others transform the series itself. The **lag-wise** program puts the series at the end of
# the source's input and gives each point a scale and a shift of its own, *u_t = a_t x_t + b_t*.
# The **linear** program *u = Wφ + β* mixes all points and fills the whole input.

# %% slideshow={"slide_type": "-"}
lags = mrviz.reprogram(source, target, program="lag_affine", mapping="probability_average")
program_figure(lags, target.x_train)

# %% slideshow={"slide_type": "subslide"}
linear = mrviz.reprogram(source, target, program="linear", mapping="probability_average")
program_figure(linear, target.x_train)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From six kinds of leaves to two classes
#
# The *frequency* mapping gives each class one source output, the one seen most often in its
# samples. Voice2Series gives each class *m* of them and takes the **mean of their probabilities**.
# A row of the map is a class, a column a kind of leaf.

# %% slideshow={"slide_type": "-"}
single = mrviz.reprogram(source, target, program="linear", mapping="frequency")
mapping_figure(single.weights, source.classes, target.classes, height=240)

# %% slideshow={"slide_type": "subslide"}
mapping_figure(linear.weights, source.classes, target.classes, height=240)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Averages of probabilities are not linear in the logits. The outputs here are their logarithms,
# *f_t* = log of the mean of *p_s* over *s* in *S_t*, so that cross-entropy is the loss of
# Voice2Series. The kernel is exact for them too: *A_i* is then the Jacobian of all of *f*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.2: how many eigenvalues can it have?
#
# With n = 40 days and C = 2 classes the Gram matrix has order nC = 80. The linear program has
# p = 3,200 parameters. The mapping above uses **all six** source outputs, three for each class,
# and the six probabilities of a sample sum to one. What is the largest rank that Θ can have?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
rank = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.2", rank, parameters=3200, n=40, outputs=2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The kernel, and where it comes from
#
# For the linear program the trace kernel is a product: the program's part says which days are
# alike, the source's part for which of them the source answers alike. Days are ordered by class.

# %% slideshow={"slide_type": "-"}
gram_figure(gram_factors(linear, target, **quiet), classes=target.classes, height=400)

# %% [markdown] slideshow={"slide_type": "subslide"}
# A padding moves every input alike. Its program kernel is one everywhere, and all that tells two
# days apart comes from the source:

# %% slideshow={"slide_type": "-"}
gram_figure(gram_factors(copies, target, **quiet), classes=target.classes, height=390)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.3: the kernel of a padding
#
# Let `jacobian` be *A*, one row for each sample and output, in the shape of the source's inputs:
# (n, C, 1, 128). Let `free` be *M* as booleans, (128). Write the full kernel of order nC, with
# rows ordered sample by sample. (Which columns of *A* does δ move?)


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def padding_gram(jacobian, free):
    """Θ (nC, nC) of source Jacobians (n, C, 1, T) and the mask (T)."""
    ...


# %% slideshow={"slide_type": "-"} tags=["check"]
u = copies.programmed(target.x_train[:12]).detach()
jacobian = mrviz.ntk.source_jacobian(source, torch.eye(2), u, head=copies.head)
check("05.3", padding_gram, jacobian=jacobian, free=copies.program.placement.frame())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What replicas do to the spectrum
#
# More copies show the source more of the series and leave less to train. They also change *u*, and
# with it *A*, so that these kernels are not nested: nothing says that one lies above the other.

# %% slideshow={"slide_type": "-"}
options = {"mapping": "probability_average", "seed": 0}
models = {
    "1 copy": mrviz.reprogram(source, target, program="series_padding", **options),
    "2 copies": mrviz.reprogram(source, target, program="series_padding", replicas=2, **options),
    "4 copies": mrviz.reprogram(source, target, program="series_padding", replicas=4, **options),
    "lag-wise": lags,
    "linear": linear,
}
grams = {
    name: mrviz.ntk_gram(model, target.x_train, dtype=torch.float64, **quiet)
    for name, model in models.items()
}
spectra = {name: mrviz.spectrum(gram) for name, gram in grams.items()}
spectrum_figure([Curve(name, spectrum) for name, spectrum in spectra.items()], height=420)

# %% slideshow={"slide_type": "subslide"}
print("program     p      rank  effective rank  λ_max")
for name, spectrum in spectra.items():
    print(
        f"{name:10}  {models[name].n_parameters:<5}  {spectrum.rank:<4}  "
        f"{spectrum.effective_rank:<14.1f}  {float(spectrum.eigenvalues[0]):.3g}"
    )

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* two copies leave fewer parameters than one. Which of the columns above fall with *p*,
# and which do not? Why does no program go beyond your answer to 05.2?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Capacity: trainable points beside the copies
#
# With two copies, let only the *width* points next to a copy be trainable. δ = 0 elsewhere, so *u*
# is the same for every width, and these kernels **are** nested: no eigenvalue falls. So that λ_min
# can be above zero at all, the mapping is the *frequency* mapping here, and 16 days give nC = 32.

# %% slideshow={"slide_type": "-"}
free = mrviz.reprogram(
    source, target, program="series_padding", replicas=2, mapping="frequency", seed=0
)
sweep = mrviz.capacity_sweep(free, target.x_train[:16], dtype=torch.float64, **quiet)
capacity_figure(sweep, height=420)

# %% slideshow={"slide_type": "fragment"}
each = zip(sweep.capacities, sweep.infos, sweep.spectra, strict=True)
for width, info, spectrum in list(each)[8:12]:
    print(f"width {width}: p = {info.n_parameters}, {spectrum.rank} of {spectrum.order} resolved")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The conditions
#
# Those of the linear program. T9 and T10 need data of the source's own task; T10 is the subject of
# part 2.

# %% slideshow={"slide_type": "-"}
mrviz.transfer_conditions(
    linear, target, gram=grams["linear"], predict={"steps": 60, "n_test": 200}, **quiet
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# T2 fails for every program with this mapping: 05.2 says why, and that cross-entropy does not see
# the directions that are missing.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predicted before training, and trained
#
# *Predicted* is gradient descent on the linearised model, from the kernel alone. *Gradient
# descent* is the same run for real: same step size, same 60 steps. *Adam* is what one would do:
# `patience` stops it by the validation samples. Drift is T12, by how much the kernel has changed
# after gradient descent.

# %% slideshow={"slide_type": "-"}
start = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in models.items()}
runs = {}
print("             held-out accuracy on the first 200 test days")
print("program      untrained  predicted  gradient descent  drift   Adam")
for name, model in models.items():
    predicted = mrviz.predict_training(
        model, target, steps=60, n_test=200, gram=grams[name], **quiet
    )
    descent = mrviz.train(model, target, **predicted.train_options, record_every=10, **quiet)
    after = mrviz.ntk_gram(model, target.x_train, dtype=torch.float64, **quiet)
    drift = mrviz.kernel_drift(grams[name], after).relative
    model.load_state_dict(start[name])
    adam = mrviz.train(
        model,
        target,
        epochs=120,
        lr=0.02,
        patience=5,
        record_every=10,
        n_test=200,
        **quiet,
    )
    runs[name] = predicted, descent, adam
    print(
        f"{name:10}  {predicted.trajectory.test_accuracy[0]:>8.1%}  {predicted.accuracy:>9.1%}"
        f"  {descent.test_accuracy[-1]:>15.1%}  {drift:>7.2f}  {adam.outcome.test_accuracy:>7.1%}"
    )

# %% [markdown] slideshow={"slide_type": "subslide"}
# Lines are the prediction, markers the real run, for the linear program and for one copy:

# %% slideshow={"slide_type": "-"}
learning_figure(runs["linear"][0].trajectory, runs["linear"][1].history, height=420)

# %% slideshow={"slide_type": "subslide"}
learning_figure(runs["1 copy"][0].trajectory, runs["1 copy"][1].history, height=420)

# %% [markdown] slideshow={"slide_type": "fragment"}
# A drift far above 0.1 says that lazy training did not hold, so the linearised model had no duty to
# be right. With one copy the measured loss jumps: a step size that is stable for the kernel at the
# start is not so for the kernel that training makes. *Discuss:* where is the prediction right
# nevertheless?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Beside the nearest training series
#
# The simplest classifier for series gives a series the class of the nearest training series
# (Euclidean distance). It sees the same training samples, and validation samples do not help it.
# The programs are linear; step size and mapping are the same for all three sets.

# %% slideshow={"slide_type": "-"}
print("set               reprogrammed  nearest training series  chance")
for name, n_val in {"ItalyPowerDemand": 20, "GunPoint": 12, "ArrowHead": 12}.items():
    task = mrviz.load_target(f"ucr:{name}", n_val=n_val, split="own")
    model = mrviz.reprogram(source, task, program="linear", mapping="probability_average")
    mrviz.train(model, task, epochs=120, lr=0.003, patience=5, record_every=10, n_test=50, **quiet)
    reprogrammed = (model.predict(task.x_test).argmax(1) == task.y_test).double().mean()
    nearest = KNeighborsClassifier(1).fit(task.x_train.flatten(1), task.y_train)
    simple = nearest.score(task.x_test.flatten(1), task.y_test)
    print(f"{name:16}  {reprogrammed:>12.1%}  {simple:>23.1%}  {1 / task.n_classes:>6.1%}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# One seed and a few dozen training series: differences of a few points mean nothing. One of twenty
# points does: on arrowheads, a source that knows outlines loses to a rule that knows nothing.
# `benchmarks/reprogramming.py` compares more sets, sources, programs and seeds.

# %% [markdown] slideshow={"slide_type": "slide"}
# # Part 2: a bound, measured
#
# Yang et al. (2021, Theorem 1) bound the target risk of a reprogrammed model, with risk
# E‖softmax(f(x)) − y‖₂:
#
# $$\text{target risk} \le \text{source risk} + 2 \sqrt{K}\; W_1 .$$
#
# *K* is the number of source classes. *W₁* is the Wasserstein distance between the source's logits
# for programmed target inputs and its logits for its own inputs. The reading: a good source, and a
# program that makes target inputs look like source inputs *to the source*. It is T10.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.4: the bound from its parts
#
# The source of part 1 has the risk and the number of classes printed below, and *W₁* is that of
# two copies after training. What is the bound?

# %% slideshow={"slide_type": "-"}
parts = distribution_bound(models["2 copies"], target.x_test, (leaves, kinds))
print(f"source risk {parts.risk:.4f}, W₁ {parts.distance:.4f}")
print(f"{source.outputs} source classes, {target.n_classes} target classes")

# %% slideshow={"slide_type": "-"} tags=["exercise"]
bound = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.4", bound, risk=parts.risk, distance=parts.distance, source_classes=6, target_classes=2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Both sides
#
# Every risk lies between 0 and √2. *By chance* is the *W₁* between random halves of each sample:
# 24 leaves are few, and *W₁* of samples comes out too large. The models are those that Adam
# trained above, and the linear one before it.


# %% slideshow={"slide_type": "-"}
def risk_of(model, x, y):
    """E‖softmax(f(x)) − y‖₂ on samples and their labels."""
    one_hot = nn.functional.one_hot(y, model.outputs)
    return float((model.predict(x).softmax(1) - one_hot).norm(dim=1).mean())


print(f"{'':22}accuracy  risk   bound   W₁     by chance")
untrained = mrviz.reprogram(source, target, program="linear", **options)
for name, model in {"linear, untrained": untrained, **models}.items():
    parts = distribution_bound(model, target.x_test, (leaves, kinds))
    accuracy = (model.predict(target.x_test).argmax(1) == target.y_test).double().mean()
    risk = risk_of(model, target.x_test, target.y_test)
    print(
        f"{name:20}  {accuracy:>8.1%}  {risk:.3f}  {parts.value:<6.1f}  {parts.distance:<5.1f}"
        f"  {parts.split:.1f}"
    )
print(f"largest risk there is: {math.sqrt(2):.3f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# No bound comes near √2, so none of them says anything about these models. Nor do they order them:
# of the trained models, the two with the smallest risks have the two largest bounds. Programs that
# classify well here put the logits far from those of leaves.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the right side does not know
#
# Nothing on the right depends on the target's *labels*. Take the leaves themselves as the target,
# unprogrammed: then *W₁* = 0, and the right side is the source risk. Now rename the labels, so that
# each kind is called as the next one.

# %% slideshow={"slide_type": "-"}
plain = mrviz.ReprogrammedModel(source, nn.Identity(), mrviz.mappings.Identity(source.outputs))
parts = distribution_bound(plain, leaves, (leaves, kinds))
print(
    f"right side: {parts.risk:.3f} + 2√{parts.classes} · {parts.distance:.3f} = {parts.value:.3f}"
)
for shift in (0, 1):
    risk = risk_of(plain, leaves, (kinds + shift) % source.outputs)
    print(f"left side, labels moved by {shift}: {risk:.3f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# With moved labels the left side is the larger one. So the inequality cannot hold for *every*
# program and *every* labelling [derived, by this example]. The theorem speaks of the best program,
# and assumes a mapping from source classes to target classes: labels enter through its assumptions.
# Measured for a program at hand, T10 says how foreign its inputs are to the source, not how well
# it classifies.

# %% [markdown] slideshow={"slide_type": "slide"}
# # Part 3: forecasting
#
# The source is **fracast**, a pretrained forecaster: a context goes in, nine quantiles of each
# following value come out, and we take their medians. The target is the monthly number of airline
# passengers, from which windows are cut: 36 months as context *x*, the next 6 as outputs *y*. So
# C = 6, one output for each step of the horizon, and the loss is ½‖f − y‖².

# %% slideshow={"slide_type": "-"}
airline = load_forecast("airline", context=36, horizon=6, n_train=16, n_val=6, n_test=12)
fracast = mrviz.load_source("fracast", input_size=36, horizon=6, **quiet)
print(airline)
print(fracast.name, "| outputs", ", ".join(fracast.classes))
alone = fracast(airline.x_test)
naive = seasonal_naive(airline, airline.x_test)
forecast_figure(
    airline, {"source alone": alone, "seasonal naive": naive}, windows=(0, 5, 11), height=360
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The rule beside it, *seasonal naive*, repeats the last year. Passengers grow, so it comes out low.
# (fracast was pretrained on large public collections of series. Whether this well-known one is
# among them was not checked.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.5: the seasonal naive rule
#
# Write it: contexts (n, 1, t) in, forecasts (n, horizon) out. The forecast of *t + k* is the value
# one season before it, and where that is not known yet, two seasons before, and so on.


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def naive_rule(context, season, horizon): ...


# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.5", naive_rule)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.6: how good is a forecast?
#
# MASE (Hyndman and Koehler 2006) is the mean absolute error of forecasts in units of another one:
# the mean of |x_t − x_{t − season}| over the **training part** of the series. `alone` and `came`
# are (12, 6), `history` is the training part, all in the same scale. What is the MASE of the
# source alone?

# %% slideshow={"slide_type": "-"}
passengers = torch.as_tensor(load_airline().squeeze())
history = (passengers[:86] - airline.offset) / airline.span  # 60 % of 144 months
came, season = airline.y_test, airline.season

# %% slideshow={"slide_type": "-"} tags=["exercise"]
mase = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.6", mase, forecasts=alone, came=came, naive=naive, history=history, season=season)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 05.7: why windows are split by time
#
# A window that begins at step *b* forecasts the steps *b* … *b* + 5. The windows above were split
# by time: training before validation before test. Here they are split at random instead. How many
# of the 12 test windows share at least one value to forecast with a training window?

# %% slideshow={"slide_type": "-"}
order = torch.randperm(103, generator=torch.Generator().manual_seed(0)) + 36
train_begins, test_begins = order[:16].sort().values, order[16:28].sort().values
print("training windows begin at", train_begins.tolist())
print("test windows begin at    ", test_begins.tolist())

# %% slideshow={"slide_type": "-"} tags=["exercise"]
leaking = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("05.7", leaking, train=train_begins, test=test_begins, horizon=6, context=36)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A program for contexts
#
# The lag-wise program gives each of the 36 months a scale and a shift. It starts as the identity,
# so at the source alone.

# %% slideshow={"slide_type": "-"}
model = mrviz.reprogram(fracast, airline, program="lag_affine", mapping="identity")
gram = mrviz.ntk_gram(model, airline.x_train, **quiet)
gram

# %% [markdown] slideshow={"slide_type": "subslide"}
# Two small forecasters, trained on other series than this one, stand beside it:

# %% slideshow={"slide_type": "-"}
forecasters, kernels = {"fracast": model}, {"fracast": gram}
for series in ("blood-pressure", "solar"):
    name = f"trained on {series}"
    small = mrviz.load_source(
        "conv-forecaster", input_size=36, horizon=6, trained_on=series, **quiet
    )
    forecasters[name] = mrviz.reprogram(small, airline, program="lag_affine", mapping="identity")
    kernels[name] = mrviz.ntk_gram(forecasters[name], airline.x_train, **quiet)
curves = []
for name, kernel in kernels.items():
    spectrum = mrviz.spectrum(kernel)
    residual = training_residual(forecasters[name], airline)
    curves.append(Curve(name, spectrum, residual_energy(kernel, spectrum, residual)))
spectrum_figure(curves, height=470)

# %% [markdown] slideshow={"slide_type": "fragment"}
# 72 parameters stand against 16 · 6 = 96 residuals, so for each of them 24 eigenvalues are exactly
# zero: directions that the linearised model cannot fit, whatever the source.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The kernel over the horizon
#
# The rows of Θ are window and step. Its blocks Θ_ii are 6 × 6: entry (k, l) is the inner product of
# the gradients of *t + k* and *t + l*. Averaged over windows, and divided by the roots of the
# diagonal, they are cosines: by how much a step of training for month *t + k* moves *t + l* too.


# %% slideshow={"slide_type": "-"}
def over_horizon(kernel):
    """Cosines (C, C) between the gradients of the outputs, from the mean of the blocks Θ_ii."""
    blocks = kernel.matrix.view(kernel.n, kernel.outputs, kernel.n, kernel.outputs)
    mean = blocks.diagonal(dim1=0, dim2=2).mean(-1)
    root = mean.diagonal().sqrt()
    return mean / (root[:, None] * root)


figure = make_subplots(1, len(kernels), subplot_titles=list(kernels))
for column, kernel in enumerate(kernels.values(), start=1):
    figure.add_heatmap(
        z=over_horizon(kernel),
        x=airline.classes,
        y=airline.classes,
        texttemplate="%{z:.2f}",
        colorscale="Cividis",
        zmin=0,
        zmax=1,
        showscale=False,
        row=1,
        col=column,
    )
figure.update_layout(base_layout("light", 330))
figure.update_yaxes(autorange="reversed")
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Zeros off the diagonal would make it six problems of one output each, all with one kernel. That is
# the paper's Proposition 1 for wide networks: Θ_T ≈ Θ ⊗ I. T11 measures how far it is from that.
# Here the months hang together, most of all in the large forecaster: what is learned for one month
# moves all others. The largest mode of a matrix of positive entries has one sign, so that an error
# of one sign over the horizon is learned first. The source alone has such an error:

# %% slideshow={"slide_type": "-"}
error = airline.y_train - model.predict(airline.x_train)
print("mean error of the source alone in each month:", [round(float(e), 3) for e in error.mean(0)])
for name, other in forecasters.items():
    conditions = mrviz.transfer_conditions(other, airline, gram=kernels[name], **quiet)
    print(f"{name}: {conditions['T11']}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Predicted and real loss
#
# 15 steps of gradient descent on the squared loss, predicted from the kernel and then run. For the
# large forecaster a step takes a while.

# %% slideshow={"slide_type": "-"}
fits = {}
for name, other in forecasters.items():
    predicted = mrviz.predict_training(
        other, airline, loss="squared", steps=15, gram=kernels[name], **quiet
    )
    fit = mrviz.train(other, airline, **predicted.train_options, record_every=5, **quiet)
    fits[name] = predicted, fit
    print(f"{name}: held-out loss {fit.test_loss[0]:.3f} at the start,", end=" ")
    print(f"predicted {predicted.trajectory.test_loss[-1]:.3f}, real {fit.test_loss[-1]:.3f}")
predicted, fit = fits["fracast"]
learning_figure(predicted.trajectory, fit.history, height=330)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The forecasts
#
# MASE and mean squared error of the test windows, in scaled units. The validation and the test
# part lie after everything that was trained on.

# %% slideshow={"slide_type": "-"}
for name, other in forecasters.items():
    scores = compare_forecasts(other, airline)
    words = [f"{s.name} {s.mase:.2f} ({s.mse:.3f})" for s in scores.scores]
    print(f"{name}, MASE (MSE): {', '.join(words)}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The same program in front of the same network gives the other quantiles as well. With
# `output="quantiles"` the source has 6 · 9 outputs; a mapping *b* that selects the median of each
# step is what we had all along.

# %% slideshow={"slide_type": "-"}
whole = mrviz.load_source("fracast", input_size=36, horizon=6, output="quantiles", **quiet)
medians = [k for k, name in enumerate(whole.classes) if name.endswith("50 %")]
b = torch.eye(whole.outputs)[medians]
same = mrviz.ReprogrammedModel(whole, model.program, b).predict(airline.x_test)
print("largest difference:", float((same - model.predict(airline.x_test)).abs().max()))

with torch.no_grad():
    quantiles = whole(model.programmed(airline.x_test)).unflatten(1, (6, 9))
inside = (quantiles[..., 0] <= came) & (came <= quantiles[..., 8])
print(f"between the quantiles of 10 % and 90 %: {inside.double().mean():.0%} of what came")
forecast_figure(
    airline,
    {
        "reprogrammed": quantiles[..., 4],
        "source alone": alone,
        "seasonal naive": naive,
    },
    bands={"reprogrammed": (quantiles[..., 0], quantiles[..., 8])},
    windows=(0, 5, 11),
    height=380,
)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The band is that of the source for programmed contexts. Only its median was trained; that a band
# of 80 % holds 80 % of what comes, nothing has asked for.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - Copies of a series cost trainable points, p = T − m·t, and change *u*: their kernels are not
#   nested. Those of a growing trainable width are.
# - Averages of all probabilities leave at most n(C − 1) eigenvalues that are not zero.
# - A prediction from the kernel is read with its drift, an accuracy with that of a simple rule.
# - A bound is measured before it is quoted: this one was far above the largest possible risk, and
#   it does not know the labels.
# - In a forecaster the outputs are months that hang together: Θ_T is far from Θ ⊗ I.
# - Windows are split by time, and MASE is measured in errors of the training part.
#
# *Homework:* `load_forecast("solar")`, or the linear program started at the identity (see
# `benchmarks/forecasting.py`).
