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
# # Solutions: time series
#
# The exercises of `05-time-series` with one solution each. The first cells make what the exercises
# are about, as the notebook does.

# %%
import math

import torch
from aeon.datasets import load_airline

import mrviz
from mrviz.classroom import check
from mrviz.programs import compare_forecasts, seasonal_naive
from mrviz.targets import load_forecast
from mrviz.theory import distribution_bound

quiet = {"progress": False}
source = mrviz.load_source(
    "resnet1d", width=8, input_size=128, trained_on="ucr:OSULeaf", epochs=100, **quiet
)
leaves, kinds = source.test_data
target = mrviz.load_target("ucr:ItalyPowerDemand", n_train=40, n_val=20, split="own")
copies = mrviz.reprogram(
    source, target, program="series_padding", replicas=3, mapping="probability_average"
)
linear = mrviz.reprogram(source, target, program="linear", mapping="probability_average")

# %% [markdown]
# ## Exercise 05.1: how much is trainable?
#
# The source takes 128 points, the series has 24. With *m* = 5 copies and everything beside them
# trainable, how many trainable numbers *p* does the program have?

# %%
p = 128 - 5 * 24

check("05.1", p, length=128, series=24, replicas=5)

# %% [markdown]
# A program with `replicas=5` says the same: `n_parameters` is 8.
#
# ## Exercise 05.2: how many eigenvalues can it have?
#
# With n = 40 days and C = 2 classes the Gram matrix has order nC = 80. The linear program has
# p = 3,200 parameters. The mapping above uses **all six** source outputs, three for each class,
# and the six probabilities of a sample sum to one. What is the largest rank that Θ can have?

# %%
rank = min(3200, 40 * (2 - 1))

check("05.2", rank, parameters=3200, n=40, outputs=2)

# %% [markdown]
# With all six source outputs in use, exp f_1 + exp f_2 = 1/3 for every sample, whatever the program
# does. Differentiated, Σ_t exp(f_t) ∇f_t = 0: for each sample one combination of its rows of *J* is
# zero. So n of the nC rows can be left out, and the rank is at most n(C − 1). The linear program
# reaches it:

# %%
gram = mrviz.ntk_gram(linear, target.x_train, dtype=torch.float64, **quiet)
print("rank", mrviz.spectrum(gram).rank, "of", gram.order)

# %% [markdown]
# ## Exercise 05.3: the kernel of a padding
#
# Let `jacobian` be *A*, one row for each sample and output, in the shape of the source's inputs:
# (n, C, 1, 128). Let `free` be *M* as booleans, (128). Write the full kernel of order nC, with
# rows ordered sample by sample. (Which columns of *A* does δ move?)


# %%
def padding_gram(jacobian, free):
    """Θ (nC, nC) of source Jacobians (n, C, 1, T) and the mask (T)."""
    rows = jacobian[..., free].flatten(2).flatten(0, 1)  # one row for each sample and output
    return rows @ rows.T


u = copies.programmed(target.x_train[:12]).detach()
jacobian = mrviz.ntk.source_jacobian(source, torch.eye(2), u, head=copies.head)
free = copies.program.placement.frame()
check("05.3", padding_gram, jacobian=jacobian, free=free)

# %% [markdown]
# δ_q is added to u_q where M is one, so ∂u/∂δ is diag(M), and J holds the columns of *A* that M
# keeps. The toolkit's kernel is the same:

# %%
gram = mrviz.ntk_gram(copies, target.x_train[:12], **quiet)
own = padding_gram(jacobian, free).double()
print(f"relative difference {(own - gram.matrix).norm() / gram.matrix.norm():.1e}")

# %% [markdown]
# ## Exercise 05.4: the bound from its parts
#
# The source of part 1 has the risk and the number of classes printed below, and *W₁* is that of
# two copies after training. What is the bound?

# %%
trained = mrviz.reprogram(
    source, target, program="series_padding", replicas=2, mapping="probability_average", seed=0
)
mrviz.train(trained, target, epochs=120, lr=0.02, patience=5, record_every=10, n_test=200, **quiet)
parts = distribution_bound(trained, target.x_test, (leaves, kinds))
bound = parts.risk + 2 * math.sqrt(source.outputs) * parts.distance

check("05.4", bound, risk=parts.risk, distance=parts.distance, source_classes=6, target_classes=2)

# %% [markdown]
# ## Exercise 05.5: the seasonal naive rule
#
# Write it: contexts (n, 1, t) in, forecasts (n, horizon) out. The forecast of *t + k* is the value
# one season before it, and where that is not known yet, two seasons before, and so on.


# %%
def naive_rule(context, season, horizon):
    last = context[:, 0, -season:]
    return last[:, torch.arange(horizon) % season]


check("05.5", naive_rule)

# %% [markdown]
# ## Exercise 05.6: how good is a forecast?
#
# MASE (Hyndman and Koehler 2006) is the mean absolute error of forecasts in units of another one:
# the mean of |x_t − x_{t − season}| over the **training part** of the series. `alone` and `came`
# are (12, 6), `history` is the training part, all in the same scale. What is the MASE of the
# source alone?

# %%
airline = load_forecast("airline", context=36, horizon=6, n_train=16, n_val=6, n_test=12)
fracast = mrviz.load_source("fracast", input_size=36, horizon=6, **quiet)
alone = fracast(airline.x_test)
naive = seasonal_naive(airline, airline.x_test)
passengers = torch.as_tensor(load_airline().squeeze())
history = (passengers[:86] - airline.offset) / airline.span  # 60 % of 144 months
came, season = airline.y_test, airline.season

unit = (history[season:] - history[:-season]).abs().mean()
mase = (alone - came).abs().mean() / unit

check("05.6", mase, forecasts=alone, came=came, naive=naive, history=history, season=season)

# %%
model = mrviz.reprogram(fracast, airline, program="lag_affine", mapping="identity")
print(f"{float(mase):.3f}")
compare_forecasts(model, airline)

# %% [markdown]
# ## Exercise 05.7: why windows are split by time
#
# A window that begins at step *b* forecasts the steps *b* … *b* + 5. The windows above were split
# by time: training before validation before test. Here they are split at random instead. How many
# of the 12 test windows share at least one value to forecast with a training window?

# %%
order = torch.randperm(103, generator=torch.Generator().manual_seed(0)) + 36
train_begins, test_begins = order[:16].sort().values, order[16:28].sort().values

apart = (test_begins[:, None] - train_begins).abs()
leaking = int((apart < 6).any(1).sum())

check("05.7", leaking, train=train_begins, test=test_begins, horizon=6, context=36)

# %% [markdown]
# Windows of six values share one exactly where they begin less than six steps apart. In the split
# by time no test window does so: the first value that a test window forecasts comes after the last
# one that training was told.
