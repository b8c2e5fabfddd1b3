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
# # The paper's claims, put to the test
#
# *Model Reprogramming Demystified: A Neural Tangent Kernel Perspective* (arXiv 2506.00620) explains
# how well a reprogrammed model does by the smallest eigenvalue of its source's tangent kernel. Here
# are its claims as six questions, each with our own runs, a figure and a verdict: **agrees**,
# **disagrees** or **cannot tell**, with an interval and the number of runs. Settings and rules of
# the verdicts were fixed before the runs; a claim that fails is shown as failing. The networks are
# small ones that train on a laptop, so read the verdicts as *what these runs show*, not as the last
# word.
#
# This notebook reads the tables that come with `mrviz` and trains nothing.

# %%
from IPython.display import Markdown

from mrviz import paper
from mrviz.figures.paper import paper_figures
from mrviz.paper.report import as_table, made

tables = paper.load()
answers = paper.answers(tables)
figures = paper_figures(tables)


def verdicts(question):
    return Markdown(as_table([a for a in answers if a.question.startswith(str(question))]))


Markdown(made(paper.about()))

# %% [markdown]
# ## 1. Does λ_min[K_S] grow with depth?
#
# **Claim** (Corollary 1): the smallest eigenvalue of the source's own kernel, K_S on 10 images of
# each class, grows with the depth of the source. **Measured**: for each draw of images (infinite
# width) or each random network (empirical kernel), Kendall's τ of λ_min with depth; 1 is "grows at
# every step".

# %%
figures[1]

# %%
verdicts(1)

# %% [markdown]
# **What it does not show.** These are random weights, as in the paper; training changes the
# empirical kernel. The two kinds of kernel have different scales and are not compared with each
# other. λ_min also grows because *all* eigenvalues grow with depth: that the kernel gets larger is
# not yet that it gets better conditioned.

# %% [markdown]
# ## 2. Do source and target accuracy rise with depth?
#
# **Claim** (experiments): over depth 1 to 6 the source gets better, and with it the reprogrammed
# model; behind a pretrained feature extractor, VP beats FC. **Measured**: Spearman's ρ of accuracy
# with depth in each sweep (one family, one seed), behind EfficientNet-Lite0 features (the paper has
# CLIP) and without them.

# %%
figures[2]

# %%
verdicts(2)

# %% [markdown]
# **What it does not show.** Sources are trained for a few epochs on 3,750 digits, and deeper ones
# may need more; the paper's data sets and feature extractor are others. Programs have a fixed small
# budget of steps: an accuracy here is that of the budget, not of the best that can be reached.

# %% [markdown]
# ## 3. Does the target loss fall as λ_min[K_S] grows?
#
# **Claim** (Corollary 1): yes; in the paper's experiments for FC, but for VP only where the input
# of the source is large. **Measured**: Spearman's ρ of the target's training loss with the
# infinite-width λ_min[K_S] over the depths of one sweep. Falling is negative. The image keeps 20
# pixels while the source grows, so the frame of VP grows with it.

# %%
figures[3]

# %%
verdicts(3)

# %% [markdown]
# **What it does not show.** Along a sweep depth is the only thing that changes, and everything else
# that goes with depth changes too: the correlation cannot say that λ_min is the reason. The loss is
# that of a budget of steps, and larger kernels learn faster.

# %% [markdown]
# ## 4. What, known before training, goes with the accuracy after it?
#
# **Question**: is the spectrum of the *target* kernel a guide, compared with a prediction that
# simulates training in function space and with scores from the literature? **Measured**: mean
# Spearman's ρ with held-out accuracy *within one source* (which program and capacity?) and *across
# sources* (which source for this program?), for images and time series; intervals by resampling
# whole sources.

# %%
figures[4]

# %%
verdicts(4)

# %% [markdown]
# **What it does not show.** Nineteen intervals are looked at, none corrected for it: about one of
# them would miss its value by chance. One budget, one step size rule, full-batch gradient descent,
# which the matched prediction simulates exactly; other optimizers are in `docs/prediction.md`.

# %% [markdown]
# ## 5. Do the assumptions hold on real sources?
#
# **Claims**: Assumption 3 (features move with the input at least as much as λ_min[K_S] says),
# Eq. 16 (the target kernel is made of three factors), Proposition 1 (kernels of all outputs are
# alike) and lazy training. **Measured**: on small trained and random networks, and for Eq. 16 on a
# source that is kernel ridge regression as a control.

# %%
figures[5]

# %%
verdicts(5)

# %% [markdown]
# **What it does not show.** λ_min of ∇Φᵀ∇Φ is one reading of Assumption 3, the one that is not
# trivially zero (`docs/theory.md`, section 4); it depends on the scale of the pixels. The networks
# are small, as their tangent features are written out. Eq. 16 is the kernel of a regression to
# one-hot labels; networks trained with cross-entropy have larger outputs, so that a distance near 1
# may be a matter of scale. The wide limit is looked at for
# Proposition 1 alone.

# %% [markdown]
# ## 6. How loose is the bound of Voice2Series?
#
# **Claim** (Yang et al. 2021): target risk ≤ source risk + 2√K · W₁ of the logits. **Measured**:
# both sides after training, with the exact W₁ of equally many held-out samples. No risk is larger
# than √2, so a bound above that says nothing.

# %%
figures[6]

# %%
verdicts(6)

# %% [markdown]
# **What it does not show.** W₁ of samples is larger than that of the distributions; the lower ends
# of the bars take off what the sample size can explain, which in ten dimensions is much. The bound
# is not the only use of W₁: as a score that orders runs it may serve where its value does not.

# %% [markdown]
# ## Run it anew
#
# The same from the command line. A study that is stopped goes on where it was; `--quick` takes a
# minute or two, the default about half an hour on one CPU core, and `--full` wants a GPU. The cell
# runs one small table of the quick study.

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
paper.run(folder, "quick", tables=["width"])
print("mrviz study paper --quick    # or without --quick, or with --full --device cuda")
print("mrviz study paper --report   # answers from the stored tables, --html FILE for the figures")
print(len(paper.load(folder)["width"]), "rows measured just now")
