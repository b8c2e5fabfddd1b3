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
# This notebook reads the tables that come with `mrviz` and trains nothing but the small table at
# the end.
#
# Time: 50 minutes with the six exercises. An exercise has a cell with a gap, `...`, and a cell that
# checks what you put there and says what is wrong with it. Solutions are in the folder `solutions`.

# %% slideshow={"slide_type": "subslide"}
import pandas
from IPython.display import Markdown

from mrviz import paper
from mrviz.classroom import check
from mrviz.figures.paper import paper_figures
from mrviz.paper.report import as_table, made

tables = paper.load()
answers = paper.answers(tables)
figures = paper_figures(tables)


def verdicts(question):
    return Markdown(as_table([a for a in answers if a.question.startswith(str(question))]))


Markdown(made(paper.about()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.1: the rule
#
# Every claim has a statistic with a 95 % interval and a threshold. For most of them the threshold
# is zero: "grows" is a correlation above it, "falls" one below it. All of the interval on the
# claim's side of zero: `"agrees"`; all of it on the other side: `"disagrees"`; otherwise
# `"cannot tell"`. Write this rule. `above` says whether the claim is "above zero" (`True`) or
# "below zero" (`False`).


# %% slideshow={"slide_type": "-"} tags=["exercise"]
def rule(low, high, above): ...


# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.1", rule, answers=answers)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 1. Does λ_min[K_S] grow with depth?
#
# **Claim** (Corollary 1): the smallest eigenvalue of the source's own kernel, K_S on 10 images of
# each class, grows with the depth of the source. **Measured**: for each draw of images (infinite
# width) or each random network (empirical kernel), Kendall's τ of λ_min with depth; 1 is "grows at
# every step".

# %% slideshow={"slide_type": "-"}
figures[1]

# %% slideshow={"slide_type": "subslide"}
verdicts(1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** These are random weights, as in the paper; training changes the
# empirical kernel. The two kinds of kernel have different scales and are not compared with each
# other. λ_min also grows because *all* eigenvalues grow with depth: that the kernel gets larger is
# not yet that it gets better conditioned.

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* 1a and 1b have the interval [1, 1]. Are these claims certain?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 2. Do source and target accuracy rise with depth?
#
# **Claim** (experiments): over depth 1 to 6 the source gets better, and with it the reprogrammed
# model; behind a pretrained feature extractor, VP beats FC. **Measured**: Spearman's ρ of accuracy
# with depth in each sweep (one family, one seed), behind EfficientNet-Lite0 features (the paper has
# CLIP) and without them.

# %% slideshow={"slide_type": "-"}
figures[2]

# %% slideshow={"slide_type": "subslide"}
verdicts(2)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** Sources are trained for a few epochs on 3,750 digits, and deeper ones
# may need more; the paper's data sets and feature extractor are others. Programs have a fixed small
# budget of steps: an accuracy here is that of the budget, not of the best that can be reached.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 3. Does the target loss fall as λ_min[K_S] grows?
#
# **Claim** (Corollary 1): yes; in the paper's experiments for FC, but for VP only where the input
# of the source is large. **Measured**: Spearman's ρ of the target's training loss with the
# infinite-width λ_min[K_S] over the depths of one sweep. Falling is negative. The image keeps 20
# pixels while the source grows, so the frame of VP grows with it.

# %% slideshow={"slide_type": "-"}
figures[3]

# %% slideshow={"slide_type": "subslide"}
verdicts(3)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** Along a sweep depth is the only thing that changes, and everything else
# that goes with depth changes too: the correlation cannot say that λ_min is the reason. The loss is
# that of a budget of steps, and larger kernels learn faster.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.2: what does "cannot tell" mean?
#
# Claim 3f, that the loss of VP behind a source of 112 × 112 falls as λ_min[K_S] grows, has the
# statistic −0.443 and the interval [−1, 0.319]. Which sentence is right?
#
# - a: λ_min[K_S] and the loss have nothing to do with each other there.
# - b: the loss probably falls, as most of the interval is below zero.
# - c: these runs are what one may see whether the loss falls or rises with λ_min[K_S].
# - d: the runs were flawed and should be left out.

# %% slideshow={"slide_type": "-"} tags=["exercise"]
meaning = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.2", meaning)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 4. What, known before training, goes with the accuracy after it?
#
# **Question**: is the spectrum of the *target* kernel a guide, compared with a prediction that
# simulates training in function space and with scores from the literature? **Measured**: mean
# Spearman's ρ with held-out accuracy *within one source* (which program and capacity?) and *across
# sources* (which source for this program?), for images and time series; intervals by resampling
# whole sources.

# %% slideshow={"slide_type": "-"}
figures[4]

# %% slideshow={"slide_type": "subslide"}
verdicts(4)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** Nineteen intervals are looked at, none corrected for it: about one of
# them would miss its value by chance. One budget, one step size rule, full-batch gradient descent,
# which the matched prediction simulates exactly; other optimizers are in `docs/prediction.md`.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.3: Spearman's ρ by hand
#
# Six programs in front of one trained DNN. Rank the effective ranks from 1 to 6, rank the
# accuracies, and take the differences d of the ranks: ρ = 1 − 6 Σd² / (n (n² − 1)).

# %% slideshow={"slide_type": "-"}
runs = [
    {**row, "lambda_min": row["T2_value"] or 0.0}  # not resolved, or zero: the lowest rank
    for row in tables["indicators"]
    if row["kind"] == "image"
]
six = [
    row for row in runs if (row["source"], row["trained_on"], row["seed"]) == ("dnn", "digits", 1)
]
effective_rank = [row["effective_rank"] for row in six]
accuracy = [row["test_accuracy"] for row in six]
pandas.DataFrame(six)[["program", "capacity", "effective_rank", "test_accuracy"]].round(3)

# %% slideshow={"slide_type": "-"} tags=["exercise"]
rho = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.3", rho, x=effective_rank, y=accuracy)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.4: within one source and across sources
#
# The 108 runs on images are in the list `runs`, with λ_min(Θ_T) in the column `lambda_min`. Give
# the mean of Spearman's ρ of `lambda_min` and `test_accuracy` over the groups of runs that share
# the columns of each scope. `spearman` gives NaN where all values are the same; leave such groups
# out.

# %% slideshow={"slide_type": "-"}
from mrviz.paper.answer import spearman

scopes = {
    "within one source": ("source", "trained_on", "seed", "target"),
    "across sources": ("target", "program", "capacity"),
}
spearman([row["lambda_min"] for row in six], accuracy)  # one group within one source

# %% slideshow={"slide_type": "-"} tags=["exercise"]
means = {"within one source": ..., "across sources": ...}

# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.4", means, rows=runs, x="lambda_min", y="test_accuracy", scopes=scopes)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* how can the two signs differ (this is Simpson's paradox)? Which of the two is the
# question when you choose a program for the model you have, and which when you choose a source?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.5: nineteen intervals
#
# Question 4 looks at 19 intervals of 95 %. How many of them miss their true value on average? And
# how probable is it that one or more does, if they were independent?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
expected, probability = ..., ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.5", (expected, probability), intervals=19, level=0.95)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 5. Do the assumptions hold on real sources?
#
# **Claims**: Assumption 3 (features move with the input at least as much as λ_min[K_S] says),
# Eq. 16 (the target kernel is made of three factors), Proposition 1 (kernels of all outputs are
# alike) and lazy training. **Measured**: on small trained and random networks, and for Eq. 16 on a
# source that is kernel ridge regression as a control.

# %% slideshow={"slide_type": "-"}
figures[5]

# %% slideshow={"slide_type": "subslide"}
verdicts(5)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** λ_min of ∇Φᵀ∇Φ is one reading of Assumption 3, the one that is not
# trivially zero (`docs/theory.md`, section 4); it depends on the scale of the pixels. The networks
# are small, as their tangent features are written out. Eq. 16 is the kernel of a regression to
# one-hot labels; networks trained with cross-entropy have larger outputs, so that a distance near 1
# may be a matter of scale. The wide limit is looked at for
# Proposition 1 alone.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## 6. How loose is the bound of Voice2Series?
#
# **Claim** (Yang et al. 2021): target risk ≤ source risk + 2√K · W₁ of the logits. **Measured**:
# both sides after training, with the exact W₁ of equally many held-out samples. No risk is larger
# than √2, so a bound above that says nothing.

# %% slideshow={"slide_type": "-"}
figures[6]

# %% slideshow={"slide_type": "subslide"}
verdicts(6)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **What it does not show.** W₁ of samples is larger than that of the distributions; the lower ends
# of the bars take off what the sample size can explain, which in ten dimensions is much. The bound
# is not the only use of W₁: as a score that orders runs it may serve where its value does not.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 07.6: which claim next?
#
# The verdicts of questions 2 and 3 have zero as their threshold. Suppose that more runs leave a
# statistic where it is, and that its interval narrows with the root of their number. Which claim
# with "cannot tell" then needs the smallest factor of runs until zero is outside of its interval?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
of_two_questions = [answer for answer in answers if answer.question[0] in "23"]
claim = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("07.6", claim, answers=of_two_questions)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* is the claim that is the cheapest to decide the one that you would test next? Which one
# would you, and with which runs?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Run it anew
#
# The same from the command line. A study that is stopped goes on where it was; `--quick` takes a
# minute or two, the default about half an hour on one CPU core, and `--full` wants a GPU. The cell
# runs one small table of the quick study.

# %% slideshow={"slide_type": "-"}
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
paper.run(folder, "quick", tables=["width"])
print("mrviz study paper --quick    # or without --quick, or with --full --device cuda")
print("mrviz study paper --report   # answers from the stored tables, --html FILE for the figures")
print(len(paper.load(folder)["width"]), "rows measured just now")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - A verdict needs a rule that was fixed before, an interval, and the number of independent runs.
# - "Cannot tell" is a result. So is "disagrees".
# - A correlation belongs to a way of grouping. Within one source and across sources can have
#   opposite signs.
# - Of many intervals some miss. Say how many were looked at.
#
# *Homework:* `mrviz study paper --quick` makes all tables of the small size in a minute or two.
# Which verdicts change, and do they contradict those here?
