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

# %%
import mrviz

explorer = mrviz.explore()
explorer

# %% [markdown]
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
#
# ## Work with what you see
#
# Everything in the Explorer is at hand in the next cell: its choices, which can be set
# (`explorer.capacity = 4`), and its results.

# %%
explorer.wait(timeout=300)
explorer.results.spectrum

# %%
explorer.results.conditions

# %% [markdown]
# The open view can be set as well (`explorer.view = "learning"`), and `explorer.details` holds
# what it shows. The figure as it is now, and the lines that reproduce it without the Explorer:

# %%
explorer.snapshot()

# %%
print(explorer.experiment.code())
