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
# # Solutions: the paper's claims
#
# The exercises of `07-paper` with one solution each. The first cell reads the tables that come with
# `mrviz`, as the notebook does.

# %%
import math
from collections import defaultdict

from mrviz import paper
from mrviz.classroom import check

tables = paper.load()
answers = paper.answers(tables)

# %% [markdown]
# ## Exercise 07.1: the rule
#
# Every claim has a statistic with a 95 % interval and a threshold. For most of them the threshold
# is zero: "grows" is a correlation above it, "falls" one below it. All of the interval on the
# claim's side of zero: `"agrees"`; all of it on the other side: `"disagrees"`; otherwise
# `"cannot tell"`. Write this rule. `above` says whether the claim is "above zero" (`True`) or
# "below zero" (`False`).


# %%
def rule(low, high, above):
    if low > 0:
        return "agrees" if above else "disagrees"
    if high < 0:
        return "disagrees" if above else "agrees"
    return "cannot tell"


check("07.1", rule, answers=answers)

# %% [markdown]
# ## Exercise 07.2: what does "cannot tell" mean?
#
# Claim 3f, that the loss of VP behind a source of 112 × 112 falls as λ_min[K_S] grows, has the
# statistic −0.443 and the interval [−1, 0.319]. Which sentence is right?
#
# - a: λ_min[K_S] and the loss have nothing to do with each other there.
# - b: the loss probably falls, as most of the interval is below zero.
# - c: these runs are what one may see whether the loss falls or rises with λ_min[K_S].
# - d: the runs were flawed and should be left out.

# %%
meaning = "c"

check("07.2", meaning)

# %% [markdown]
# ## Exercise 07.3: Spearman's ρ by hand
#
# Six programs in front of one trained DNN. Rank the effective ranks from 1 to 6, rank the
# accuracies, and take the differences d of the ranks: ρ = 1 − 6 Σd² / (n (n² − 1)).

# %%
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


def ranks(values):
    return [sorted(values).index(value) + 1 for value in values]


pairs = list(zip(ranks(effective_rank), ranks(accuracy), strict=True))
print(pairs)
n = len(pairs)
rho = 1 - 6 * sum((a - b) ** 2 for a, b in pairs) / (n * (n**2 - 1))

check("07.3", rho, x=effective_rank, y=accuracy)

# %% [markdown]
# ## Exercise 07.4: within one source and across sources
#
# The 108 runs on images are in the list `runs`, with λ_min(Θ_T) in the column `lambda_min`. Give
# the mean of Spearman's ρ of `lambda_min` and `test_accuracy` over the groups of runs that share
# the columns of each scope. `spearman` gives NaN where all values are the same; leave such groups
# out.

# %%
from mrviz.paper.answer import spearman

scopes = {
    "within one source": ("source", "trained_on", "seed", "target"),
    "across sources": ("target", "program", "capacity"),
}
means = {}
for scope, names in scopes.items():
    groups = defaultdict(list)
    for row in runs:
        groups[tuple(row[name] for name in names)].append(row)
    found = [
        spearman([row["lambda_min"] for row in group], [row["test_accuracy"] for row in group])
        for group in groups.values()
    ]
    known = [rho for rho in found if not math.isnan(rho)]
    print(f"{scope}: {len(groups)} groups, {len(known)} with a correlation")
    means[scope] = sum(known) / len(known)

check("07.4", means, rows=runs, x="lambda_min", y="test_accuracy", scopes=scopes)

# %% [markdown]
# Behind one source, programs with more freedom have a larger λ_min and do better. Between sources
# λ_min also carries the scale of the source's outputs: of the same program, trained sources have
# the larger kernels here, and the lower accuracies.

# %%
for trained in (False, True):
    rows = [
        row
        for row in runs
        if bool(row["trained_on"]) == trained
        and (row["source"], row["target"], row["program"]) == ("dnn", "mnist-5k", "linear")
    ]
    for row in rows:
        kind = "trained" if trained else "random"
        print(f"{kind} dnn: λ_min {row['lambda_min']:.3g}, accuracy {row['test_accuracy']:.0%}")

# %% [markdown]
# ## Exercise 07.5: nineteen intervals
#
# Question 4 looks at 19 intervals of 95 %. How many of them miss their true value on average? And
# how probable is it that one or more does, if they were independent?

# %%
expected, probability = 19 * 0.05, 1 - 0.95**19

check("07.5", (expected, probability), intervals=19, level=0.95)

# %% [markdown]
# ## Exercise 07.6: which claim next?
#
# The verdicts of questions 2 and 3 have zero as their threshold. Suppose that more runs leave a
# statistic where it is, and that its interval narrows with the root of their number. Which claim
# with "cannot tell" then needs the smallest factor of runs until zero is outside of its interval?

# %%
of_two_questions = [answer for answer in answers if answer.question[0] in "23"]
factors = {}
for answer in of_two_questions:
    if answer.verdict == "cannot tell":
        low, high = answer.interval
        end = low if answer.statistic > 0 else high
        factors[answer.question] = ((end - answer.statistic) / answer.statistic) ** 2
print({question: round(factor, 2) for question, factor in factors.items()})
claim = min(factors, key=factors.get)

check("07.6", claim, answers=of_two_questions)
