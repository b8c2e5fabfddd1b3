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
# # The Explorer
#
# Model reprogramming keeps a **source model** frozen and trains only an **input program** in
# front of it: *x → program → u → source → mapping → f*. Whether that can work is written in the
# spectrum of one matrix, the Neural Tangent Kernel (NTK) of the reprogrammed model on the
# target data.
#
# Run the next cell and change anything on the left. The eigenvalues and the conditions for
# transfer follow. (On a page without a running kernel, such as GitHub, the pictures below are
# what was there when the notebook was stored; a kernel makes them live.)

# %% slideshow={"slide_type": "-"}
import mrviz

explorer = mrviz.explore()
explorer

# %% [markdown] slideshow={"slide_type": "slide"}
# **Things to try**
#
# 1. Drag *Capacity*: fewer trainable frame pixels, fewer resolved eigenvalues. When
#    does T1 (capacity) begin to fail? Raise *Samples in the Gram* and look again.
# 2. Press *Pin*, change the *Input program* to *linear*, and compare the two spectra.
# 3. Set *Precision* to *float64*: the shaded noise floor sinks, and conditions that were
#    undecided are decided.
# 4. Choose a preset, for example *Random vs pretrained source*.
# 5. Open *Capacity* and click a point; open *Learning curve* and press *Train*: how well was the
#    run predicted? *Gram and factors* and *Source* show where the kernel comes from.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Work with what you see
#
# Everything in the Explorer is at hand in the next cell: its choices, which can be set
# (`explorer.capacity = 4`), and its results.

# %% slideshow={"slide_type": "-"}
explorer.wait(timeout=300)
explorer.results.spectrum

# %% slideshow={"slide_type": "subslide"}
explorer.results.conditions

# %% [markdown] slideshow={"slide_type": "slide"}
# The open view can be set as well (`explorer.view = "learning"`), and `explorer.details` holds
# what it shows. The figure as it is now, and the lines that reproduce it without the Explorer:

# %% slideshow={"slide_type": "-"}
explorer.snapshot()

# %% slideshow={"slide_type": "subslide"}
print(explorer.experiment.code())

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Time: 40 minutes with the six exercises. Each is answered with the Explorer above: find the answer
# there, write it over the gap, `...`, and run the cell below it, which says what is wrong. Checks
# compute what is true for the choices that the Explorer has when they run. Solutions are in the
# folder `solutions`.
#
# The first two are about the choices of the start. If you changed them, run the cell of the
# Explorer again.

# %% slideshow={"slide_type": "-"}
from mrviz.classroom import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.1: what is known of λ_min?
#
# Look at the right end of the spectrum, where the curve enters the shaded noise floor. What can be
# said of the smallest eigenvalue λ_min? Answer with a number, with `"zero"` or with
# `"not resolved"`.

# %% slideshow={"slide_type": "-"} tags=["exercise"]
smallest = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.1", smallest, results=explorer.results)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* `explorer.results.spectrum.smallest` is a number. Where does it come from?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.2: a border prompt and a linear program
#
# Press *Pin*, then change the *Input program* to *linear*. Which of the two programs, `"border"` or
# `"linear"`, has the larger rank (eigenvalues above its noise floor), effective rank and largest
# eigenvalue, and for which does the first mode hold the larger share of the residual energy (the
# first bar of the lower panel)?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
larger = {
    "rank": ...,
    "effective rank": ...,
    "largest eigenvalue": ...,
    "first energy": ...,
}

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.2", larger, experiment=explorer.experiment, programs=("border", "linear"))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* which of the two would you train if you had ten steps, and which if you had ten
# thousand? T4 gives the steps to a tenth of the loss.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.3: too little capacity
#
# From here on choose the source *DNN*, the target *digits* and the *border prompt*: a small network
# with random weights, with which everything follows at once. Drag *Capacity*. What is the largest
# frame width at which T1, p ≥ nC, fails?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
widest = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.3", widest, experiment=explorer.experiment)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.4: below the noise floor
#
# Take the whole frame again. In float32, T2 is undecided: some eigenvalues lie below the floor. Set
# *Precision* to *float64*. How many eigenvalues are resolved now?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
resolved = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.4", resolved, experiment=explorer.experiment)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* there are 960 parameters for 640 residuals, so T1 holds. Why are there fewer than 640
# resolved eigenvalues even so? (Whatever the frame does to the outputs goes through the units of
# the first layer. How many of the 512 are active for at least one sample?)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.5: which capacity is predicted to be best?
#
# Open *Capacity*. The lowest panel predicts the held-out accuracy of training at every frame width,
# without training. At which width is it largest? (A point shows its numbers when the mouse is on
# it; `explorer.details["predicted_accuracy"]` has them while this view is open.)

# %% slideshow={"slide_type": "-"} tags=["exercise"]
best = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.5", best, experiment=explorer.experiment)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* λ_min and the effective rank only grow with the width (the kernel of a wider frame is
# that of the narrower one and something positive semi-definite). The predicted accuracy does not
# have to. Why?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 01.6: the trace kernel
#
# Open *Spectrum* and set *Kernel* to *trace*: the mean of the kernels of all outputs, of order *n*
# instead of *nC*. All of its eigenvalues lie above the floor. What does that say of the full
# kernel Θ?
#
# - a: λ_min(Θ) lies above the floor too.
# - b: λ_min(Θ) is at most that of the trace kernel.
# - c: nothing at all.

# %% slideshow={"slide_type": "-"} tags=["exercise"]
says = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("01.6", says, experiment=explorer.experiment)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - The kernel's spectrum is read against its noise floor: what lies below is not resolved, neither
#   small nor zero.
# - T1, p ≥ nC, is necessary for λ_min > 0 and not sufficient.
# - A spectrum says what can be fitted and how fast; the predicted accuracy adds the task.
# - A reduced kernel can refute trainability of the full one, never establish it.
#
# *Homework:* repeat the last four with a source of your choice that is trained (*Trained on*).
