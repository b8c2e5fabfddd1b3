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
# # Solutions: the Explorer
#
# The exercises of `01-explorer` with one solution each. What a student reads in the Explorer is
# asked of it here: the choices are set by name, and the results are at hand.

# %%
import mrviz
from mrviz.classroom import check

explorer = mrviz.explore()
explorer.wait(timeout=300)
start = explorer.results.spectrum

# %% [markdown]
# ## Exercise 01.1: what is known of λ_min?
#
# Look at the right end of the spectrum, where the curve enters the shaded noise floor. What can be
# said of the smallest eigenvalue λ_min? Answer with a number, with `"zero"` or with
# `"not resolved"`.

# %%
print(f"{start.rank} of {start.order} eigenvalues lie above the floor {start.floor:.2g}")
smallest = "not resolved"

check("01.1", smallest, results=explorer.results)

# %% [markdown]
# `explorer.results.spectrum.smallest` is what the decomposition of a rounded matrix returned. Its
# error is about as large as the floor, so the number says nothing.
#
# ## Exercise 01.2: a border prompt and a linear program
#
# Press *Pin*, then change the *Input program* to *linear*. Which of the two programs, `"border"` or
# `"linear"`, has the larger rank (eigenvalues above its noise floor), effective rank and largest
# eigenvalue, and for which does the first mode hold the larger share of the residual energy (the
# first bar of the lower panel)?

# %%
explorer.pin("border")
explorer.set(program="linear").wait(timeout=300)
for name, result in {**explorer.pinned, "linear": explorer.results}.items():
    spectrum, steps = result.spectrum, result.conditions["T4"].value
    print(
        f"{name}: rank {spectrum.rank}, effective rank {spectrum.effective_rank:.1f}, "
        f"largest {spectrum.largest:.3g}, first energy {float(result.energy[0]):.2f}, "
        f"{steps:.0f} steps to a tenth of the loss"
    )
larger = {
    "rank": "linear",
    "effective rank": "linear",
    "largest eigenvalue": "linear",
    "first energy": "border",
}

check("01.2", larger, experiment=explorer.experiment, programs=("border", "linear"))

# %% [markdown]
# ## Exercise 01.3: too little capacity
#
# From here on choose the source *DNN*, the target *digits* and the *border prompt*: a small network
# with random weights, with which everything follows at once. Drag *Capacity*. What is the largest
# frame width at which T1, p ≥ nC, fails?

# %%
explorer.set(source="dnn", target="digits", program="border").wait(timeout=300)
for width in (5, 6, 7):
    explorer.set(capacity=width).wait(timeout=300)
    print(width, explorer.results.conditions["T1"])
widest = 6

check("01.3", widest, experiment=explorer.experiment)

# %% [markdown]
# ## Exercise 01.4: below the noise floor
#
# Take the whole frame again. In float32, T2 is undecided: some eigenvalues lie below the floor. Set
# *Precision* to *float64*. How many eigenvalues are resolved now?

# %%
explorer.set(capacity=None, dtype="float64").wait(timeout=300)
print(explorer.results.conditions["T2"])
resolved = explorer.results.spectrum.rank

check("01.4", resolved, experiment=explorer.experiment)

# %% [markdown]
# Whatever the frame does to the outputs goes through the first layer, so each row of J is a
# combination of the weight vectors of the units that are active for that sample. Units that are
# active for no sample add nothing:

# %%
model = explorer.experiment.build(
    explorer.experiment.load_source(), target := explorer.experiment.load_target()
)
flatten, first, relu, *_ = model.source.module
active = relu(first(flatten(model.programmed(target.x_train)))) > 0
print(f"{int(active.any(0).sum())} of {active.shape[1]} units are active for at least one sample")

# %% [markdown]
# ## Exercise 01.5: which capacity is predicted to be best?
#
# Open *Capacity*. The lowest panel predicts the held-out accuracy of training at every frame width,
# without training. At which width is it largest? (A point shows its numbers when the mouse is on
# it; `explorer.details["predicted_accuracy"]` has them while this view is open.)

# %%
explorer.set(dtype="float32")
explorer.view = "capacity"
explorer.wait(timeout=300)
predicted = explorer.details["predicted_accuracy"]
print({width: f"{accuracy:.1%}" for width, accuracy in predicted.items()})
best = max(predicted, key=predicted.get)

check("01.5", best, experiment=explorer.experiment)

# %% [markdown]
# λ_min and rank say what can be fitted on the training samples in the end. The prediction is that
# of a budget of steps, at half the largest stable step, on other samples. A wider frame has a
# larger λ_max, so the step is smaller, and what it adds may not help on held-out samples.
#
# ## Exercise 01.6: the trace kernel
#
# Open *Spectrum* and set *Kernel* to *trace*: the mean of the kernels of all outputs, of order *n*
# instead of *nC*. All of its eigenvalues lie above the floor. What does that say of the full
# kernel Θ?
#
# - a: λ_min(Θ) lies above the floor too.
# - b: λ_min(Θ) is at most that of the trace kernel.
# - c: nothing at all.

# %%
explorer.view = "spectrum"
explorer.set(reduce="trace").wait(timeout=300)
print(explorer.results.conditions["T2"])
says = "b"

check("01.6", says, experiment=explorer.experiment)

# %% [markdown]
# With a unit vector v of n entries, vᵀ Θ_trace v is the mean over outputs c of the values of
# (v ⊗ e_c)ᵀ Θ (v ⊗ e_c), and none of them is smaller than λ_min(Θ).
