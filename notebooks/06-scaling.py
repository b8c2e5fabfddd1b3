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
# # Larger Grams: on disk, on a cluster, or no matrix at all
#
# The Gram matrix of *n* samples with *C* outputs has *(nC)²* entries of 8 bytes: 3 MB for 64
# digits, 80 GB for 10,000. Two arguments of `mrviz.ntk_gram` take it from the first to the second:
# `store=` keeps the matrix on disk and continues after an interruption, `client=` spreads the work
# over the machines of a Dask cluster. Everything here runs in a minute on a laptop, with the small
# matrix; the lines stay the same for the large one.
#
# Time: 40 minutes with the six exercises. An exercise has a cell with a gap, `...`, and a cell that
# checks what you put there and says what is wrong with it. Solutions are in the folder `solutions`.

# %% slideshow={"slide_type": "skip"}
import tempfile
import threading

import torch

import mrviz
from mrviz.classroom import check
from mrviz.figures import Curve, density_figure, spectrum_figure

source = mrviz.load_source(
    "cnn", depth=2, width=8, input_size=16, trained_on="digits", progress=False
)
target = mrviz.load_target("digits", n_train=64, n_test=100)
model = mrviz.reprogram(source, target, program="linear", mapping="identity")
x = target.x_train
options = {"dtype": torch.float64, "chunk_size": 8}

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.1: how large is it?
#
# A data set of 10,000 images with 100 classes, such as CIFAR-100. How many bytes does the matrix
# need with `reduce="full"`, and how many with `reduce="trace"`, which keeps one number for each
# pair of samples?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
memory = {"full": ..., "trace": ...}

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.1", memory, n=10_000, outputs=100)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A matrix on disk, and an interruption
#
# The matrix is computed in tiles: here 8 chunks of samples, so 36 tiles in the upper triangle.
# Each finished tile goes into the folder `store`. We stop after 20 of them, as a closed laptop, a
# time limit or a power cut would; the tile that is just being finished is kept too.

# %% slideshow={"slide_type": "-"}
folder = tempfile.mkdtemp()
stop = threading.Event()


def interrupt(done, total, label):
    if label == "Gram tiles" and done == 20:
        stop.set()


try:
    mrviz.ntk_gram(model, x, store=folder, progress=interrupt, cancel=stop, **options)
except mrviz.Cancelled as reason:
    print(reason)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The same line again goes on from there. What was finished is checked against its checksum, and
# the result has the same bits as without the interruption. With any other source, program, data or
# setting the call is refused: a store never mixes two matrices.

# %% slideshow={"slide_type": "-"}
gram = mrviz.ntk_gram(model, x, store=folder, progress=False, **options)
print(gram.info.notes[0].partition(" the store")[0], "the store")
print(gram.info.computed, "of", gram.n, "source Jacobians were computed this time")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.2: how many tiles?
#
# The matrix is symmetric, so tiles below the diagonal are not computed. How many tiles are there
# for 1,000 samples in chunks of 150?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
tiles = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.2", tiles, n=1000, chunk_size=150)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.3: what is left to do?
#
# Tiles are computed row by row: (1, 1), (1, 2), … (1, 8), then (2, 2), … (2, 8), and so on. A tile
# needs the source Jacobians of the samples in its row chunk and in its column chunk. Suppose that
# 30 of the 36 tiles were finished when the power went, and with it all Jacobians. How many tiles
# are left, and of how many of the 64 samples are Jacobians computed again?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
left = {"tiles": ..., "samples": ...}

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.3", left, n=64, chunk_size=8, finished=30)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Larger than memory
#
# `gram.matrix` is an ordinary tensor, but it lies in the file and is read where it is used, so it
# may be larger than memory (`numpy.load(folder + "/matrix.npy", mmap_mode="r")` opens the same
# file). All eigenvalues at once need a matrix that fits, like this one:

# %% slideshow={"slide_type": "-"}
spectrum = mrviz.spectrum(gram)
spectrum

# %% slideshow={"slide_type": "subslide"}
spectrum_figure([Curve("64 digits, linear program", spectrum)], height=360)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same line on a cluster
#
# `LocalCluster` starts two worker processes on this machine (`pip install "mrviz[cluster]"`). Model
# and samples are sent to each worker once. A worker that dies loses nothing: others take over.

# %% slideshow={"slide_type": "subslide"}
from dask.distributed import Client, LocalCluster

cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
client = Client(cluster)
by_cluster = mrviz.ntk_gram(model, x, client=client, progress=False, **options)
difference = (by_cluster.matrix - gram.matrix).norm() / gram.matrix.norm()
print(f"relative difference to the matrix on disk: {difference:.1e}")

# %% slideshow={"slide_type": "subslide"}
client.close()
cluster.close()

# %% [markdown] slideshow={"slide_type": "fragment"}
# In float64 the two agree to 10⁻¹⁰ or better. Jacobians in float32 may differ in their last bits
# where workers use another number of threads or another kind of device.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Many machines
#
# Only the cluster changes. The workers need the same packages; a module of your own is sent with
# `client.upload_file("my_module.py")`.
#
# Machines that you can reach by `ssh`, the first of which becomes the scheduler:
#
# ```python
# from dask.distributed import Client, SSHCluster
#
# cluster = SSHCluster(["node0", "node1", "node2"], worker_options={"nthreads": 4})
# gram = mrviz.ntk_gram(model, x, client=Client(cluster), store="/scratch/gram")
# ```
#
# Kubernetes (`pip install dask-kubernetes`), with workers that come and go by need:
#
# ```python
# from dask_kubernetes.operator import KubeCluster
#
# cluster = KubeCluster(name="mrviz", image="your/image-with-mrviz")
# cluster.adapt(minimum=1, maximum=20)
# gram = mrviz.ntk_gram(model, x, client=Client(cluster), store="/scratch/gram")
# ```
#
# All GPUs of a machine (`pip install dask-cuda`): one worker for each, and `device="cuda"` means
# the worker's own. The notebook itself may run where there is no GPU.
#
# ```python
# from dask_cuda import LocalCUDACluster
#
# gram = mrviz.ntk_gram(model, x, client=Client(LocalCUDACluster()), device="cuda")
# ```
#
# The matrix comes to the machine of the client, into its memory or into `store=`. If the whole
# cluster is lost, the finished tiles in the store are kept, and the same line with another client,
# or with none, goes on.
#
# ## No matrix at all
#
# Most questions need no matrix, only products with vectors. `mrviz.ntk_operator` gives them from
# the source's Jacobians alone, at a cost that grows with *n* instead of *n²*. The same 64 digits
# as above, so that every answer can be checked against the full spectrum:

# %% slideshow={"slide_type": "-"}
operator = mrviz.ntk_operator(model, x, dtype=torch.float64, progress=False)
v = torch.ones(operator.shape[0], dtype=torch.float64)
expected = gram.matrix @ v
print(f"error of a product: {(operator @ v - expected).norm() / expected.norm():.1e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.4: when is no matrix cheaper?
#
# The operator keeps for each sample the source's Jacobian A_i, C × q numbers with q = 256 pixels,
# and the m = 65 numbers (φ_i, 1) that the linear program multiplies. A product Θv takes, for each
# sample, Cq multiplications for A_iᵀ v_i, qm to spread the result over the features, and the same
# again on the way back. The matrix takes (nC)². With C = 10 outputs, from which number of samples
# *n* on does the operator need fewer multiplications?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
enough = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.4", enough, outputs=10, pixels=256, features=65)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The largest eigenvalues
#
# Each comes with its residual ‖Θv − λv‖ / λ_max: an eigenvalue of Θ lies within residual · λ_max of
# λ, however λ and v were found.

# %% slideshow={"slide_type": "-"}
largest = mrviz.extreme_eigenvalues(operator, k=5, progress=False)
print(largest)
print("from the matrix:", [f"{value:.4g}" for value in spectrum.eigenvalues[:5].tolist()])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.5: reading a residual
#
# `v` is what three products made of a random vector; it is not normalised. Give the estimate of
# λ_max that belongs to it, the Rayleigh quotient λ = vᵀΘv / vᵀv, and the radius ρ = ‖Θv − λv‖ / ‖v‖
# around λ within which there is an eigenvalue of Θ for sure.

# %% slideshow={"slide_type": "-"}
generator = torch.Generator().manual_seed(0)
v = torch.randn(operator.shape[0], dtype=torch.float64, generator=generator)
for _ in range(3):
    v = operator @ v

# %% slideshow={"slide_type": "-"} tags=["exercise"]
estimate, radius = ..., ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.5", (estimate, radius), operator=operator, v=v, spectrum=spectrum)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* λ is never larger than λ_max. Why? And is the eigenvalue within the radius the largest
# one for sure?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The whole spectrum
#
# Stochastic Lanczos quadrature estimates how many eigenvalues lie where, from products with a few
# random vectors, the *probes*. The band reaches two standard errors to either side, and the bars
# are the eigenvalues of the matrix.

# %% slideshow={"slide_type": "-"}
density = mrviz.spectral_density(operator, probes=10, steps=80, seed=0, progress=False)
density_figure(density.density(), spectrum, height=400)

# %% [markdown] slideshow={"slide_type": "subslide"}
# How many eigenvalues lie above a threshold? The first error is that of the mean over the probes;
# the range after it is what the finite number of Lanczos steps leaves open.

# %% slideshow={"slide_type": "-"}
threshold = 1e-3 * spectrum.largest
count = density.count_above(threshold)
print("estimate:", count)
print("from the matrix:", int((spectrum.eigenvalues > threshold).sum()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 06.6: how many probes?
#
# `count.error` is the standard error of the mean over 10 probes. About how many probes would it
# take to bring it down to one eigenvalue?

# %% slideshow={"slide_type": "-"} tags=["exercise"]
probes = ...

# %% slideshow={"slide_type": "-"} tags=["check"]
check("06.6", probes, estimate=count, probes=density.probes, wanted=1.0)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Discuss:* the number from the matrix lies several standard errors from the estimate. Which of the
# two errors explains it? Would more probes help, or more Lanczos steps?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What to take along
#
# - A full Gram matrix grows with (nC)². `reduce=`, `store=`, `client=` and `device=` go some way;
#   an operator needs no matrix.
# - A store keeps finished tiles. Only what is missing is computed again.
# - Every number that is found without the matrix comes with its error: a residual for an
#   eigenvalue, a standard error and a range for a count.
#
# *Homework:* take 500 samples and measure the time of `operator @ v` and of `gram.matrix @ v`. Do
# they agree with exercise 06.4?
