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
# # Larger Grams: on disk, on a cluster, or no matrix at all
#
# The Gram matrix of *n* samples with *C* outputs has *(nC)²* entries of 8 bytes: 3 MB for 64
# digits, 80 GB for 10,000. Two arguments of `mrviz.ntk_gram` take it from the first to the second:
# `store=` keeps the matrix on disk and continues after an interruption, `client=` spreads the work
# over the machines of a Dask cluster. Everything here runs in a minute on a laptop, with the small
# matrix; the lines stay the same for the large one.

# %%
import tempfile
import threading

import torch

import mrviz
from mrviz.figures.spectrum import Curve, spectrum_figure

source = mrviz.load_source(
    "cnn", depth=2, width=8, input_size=16, trained_on="digits", progress=False
)
target = mrviz.load_target("digits", n_train=64, n_test=100)
model = mrviz.reprogram(source, target, program="linear", mapping="identity")
x = target.x_train
options = {"dtype": torch.float64, "chunk_size": 8}

# %% [markdown]
# ## A matrix on disk, and an interruption
#
# The matrix is computed in tiles: here 8 chunks of samples, so 36 tiles in the upper triangle.
# Each finished tile goes into the folder `store`. We stop after 20 of them, as a closed laptop, a
# time limit or a power cut would; the tile that is just being finished is kept too.

# %%
folder = tempfile.mkdtemp()
stop = threading.Event()


def interrupt(done, total, label):
    if label == "Gram tiles" and done == 20:
        stop.set()


try:
    mrviz.ntk_gram(model, x, store=folder, progress=interrupt, cancel=stop, **options)
except mrviz.Cancelled as reason:
    print(reason)

# %% [markdown]
# The same line again goes on from there. What was finished is checked against its checksum, and
# the result has the same bits as without the interruption. With any other source, program, data or
# setting the call is refused: a store never mixes two matrices.

# %%
gram = mrviz.ntk_gram(model, x, store=folder, progress=False, **options)
print(gram.info.notes[0].partition(" the store")[0], "the store")
print(gram.info.computed, "of", gram.n, "source Jacobians were computed this time")

# %% [markdown]
# `gram.matrix` is an ordinary tensor, but it lies in the file and is read where it is used, so it
# may be larger than memory (`numpy.load(folder + "/matrix.npy", mmap_mode="r")` opens the same
# file). All eigenvalues at once need a matrix that fits, like this one:

# %%
spectrum = mrviz.spectrum(gram)
spectrum

# %%
spectrum_figure([Curve("64 digits, linear program", spectrum)], height=360)

# %% [markdown]
# ## The same line on a cluster
#
# `LocalCluster` starts two worker processes on this machine (`pip install "mrviz[cluster]"`). Model
# and samples are sent to each worker once. A worker that dies loses nothing: others take over.

# %%
from dask.distributed import Client, LocalCluster

cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
client = Client(cluster)
by_cluster = mrviz.ntk_gram(model, x, client=client, progress=False, **options)
difference = (by_cluster.matrix - gram.matrix).norm() / gram.matrix.norm()
print(f"relative difference to the matrix on disk: {difference:.1e}")

# %%
client.close()
cluster.close()

# %% [markdown]
# In float64 the two agree to 10⁻¹⁰ or better. Jacobians in float32 may differ in their last bits
# where workers use another number of threads or another kind of device.
#
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

# %%
operator = mrviz.ntk_operator(model, x, dtype=torch.float64, progress=False)
v = torch.ones(operator.shape[0], dtype=torch.float64)
expected = gram.matrix @ v
print(f"error of a product: {(operator @ v - expected).norm() / expected.norm():.1e}")

# %% [markdown]
# The largest eigenvalues, each with its residual:

# %%
largest = mrviz.extreme_eigenvalues(operator, k=5, progress=False)
print(largest)
print("from the matrix:", [f"{value:.4g}" for value in spectrum.eigenvalues[:5].tolist()])

# %% [markdown]
# How many eigenvalues lie above a threshold, by stochastic Lanczos quadrature, with its error:

# %%
density = mrviz.spectral_density(operator, probes=10, steps=80, seed=0, progress=False)
threshold = 1e-3 * spectrum.largest
print("estimate:", density.count_above(threshold))
print("from the matrix:", int((spectrum.eigenvalues > threshold).sum()))
