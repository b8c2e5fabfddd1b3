"""Sources that really are in the kernel regime: kernel ridge regression with a tangent kernel."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from mrviz._checks import Array, as_labels, as_samples
from mrviz._memory import available_bytes, readable
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.factors import Reduce, Reduction
from mrviz.targets.options import as_count


class FeatureKernel(nn.Module):
    """The empirical NTK of a network at its present weights, with its features written out.

    Φ(u) stacks the gradients ∇_w (q_r · f(u)) over rows q_r, and k(u, u') = Φ(u)·Φ(u'): (1/C) Σ_c
    of the kernels of the outputs for "trace", the pseudo-NTK for "sum", one output's kernel for
    a class number. Meant for small networks: features are (n, R·P), P the number of weights.

    Args:
        network: maps (n, *shape) to (n, C), samples independent; a copy in eval mode is kept.
        reduce: "trace", "sum" or a class number.
        outputs: C.

    Example:
        >>> kernel = FeatureKernel(nn.Linear(3, 1), outputs=1)  # Φ(u) = (u, 1)
        >>> kernel(torch.zeros(1, 3), torch.rand(2, 3)).detach()
        tensor([[1., 1.]])
    """

    rows: Tensor

    def __init__(self, network: nn.Module, *, outputs: int, reduce: Reduce = "trace") -> None:
        super().__init__()
        if reduce == "full":
            raise InputError("features of the full kernel differ by output: use reduce='trace'")
        if not any(True for _ in network.parameters()):
            raise InputError("the network has no parameters, so it has no tangent kernel")
        self.network = copy.deepcopy(network).eval()
        self.reduction = Reduction(reduce, outputs)
        self.register_buffer("rows", feature_rows(self.reduction, next(network.parameters())))

    def features(self, u: Tensor) -> Tensor:
        """Φ(u), (n, R·P); differentiable in u.

        Raises:
            ResourceError: they do not fit into memory.
        """
        size = len(self.rows) * sum(p.numel() for p in self.network.parameters())
        needed, free = 3 * len(u) * size * u.element_size(), available_bytes(u.device)
        if free is not None and needed > 0.5 * free:
            raise ResourceError(
                f"tangent features of {len(u)} inputs need about {readable(needed)}, but "
                f"{u.device} has {readable(free)} free: use reduce='sum' or a class number, fewer "
                "inputs, or a smaller network"
            )
        weights = dict(self.network.named_parameters())

        def one(sample: Tensor) -> Tensor:
            def out(values: dict[str, Tensor]) -> Tensor:
                return self.rows @ functional_call(self.network, values, (sample[None],))[0]

            return torch.cat([part.flatten(1) for part in jacrev(out)(weights).values()], 1)

        return vmap(one)(u).flatten(1)

    def forward(self, u1: Tensor, u2: Tensor) -> Tensor:
        """k(u1, u2), (n1, n2); differentiable in both."""
        first = self.features(u1)
        return first @ (first if u2 is u1 else self.features(u2)).T


class WideKernel(nn.Module):
    """The NTK of an infinitely wide dense ReLU network, differentiable in its inputs.

    The numbers are those of :func:`~mrviz.ntk.source_kernel.infinite_width_ntk` with family "dnn".
    At u1 = u2 the kernel has a kink (docs/theory.md, section 4); its derivative is taken as that
    of the smooth part there.

    Args:
        depth: number of weight layers; 1 is linear.
        weight_std: standard deviation of a weight times √fan-in.
        bias_std: standard deviation of a bias.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> WideKernel(2, bias_std=0.0)(x, x)
        tensor([[2.0000, 0.3183],
                [0.3183, 2.0000]], dtype=torch.float64)
    """

    def __init__(
        self, depth: int = 3, *, weight_std: float = 2**0.5, bias_std: float = 0.1**0.5
    ) -> None:
        super().__init__()
        self.depth = as_count(depth, "depth", 1)
        self.weight_variance, self.bias_variance = weight_std**2, bias_std**2

    def forward(self, u1: Tensor, u2: Tensor) -> Tensor:
        """k(u1, u2), (n1, n2); differentiable in both."""
        a, b = u1.flatten(1), u2.flatten(1)
        w, v, size = self.weight_variance, self.bias_variance, a.shape[1]
        first, second = a.square().sum(1) * w / size + v, b.square().sum(1) * w / size + v
        cross = a @ b.T * w / size + v
        distance = (a[:, None] - b[None]).square().sum(2) * w / size
        kernel = cross
        for _ in range(self.depth - 1):
            norm = _root(first)[:, None] * _root(second)[None]
            apart = (_root(first)[:, None] - _root(second)[None]).square()
            # 1 − cos θ from the distance where it is small: θ then has full precision.
            versed = torch.where(distance < norm, (distance - apart) / 2, norm - cross)
            sine = _root(versed * (norm + cross))
            angle = torch.atan2(sine, cross)
            both = (math.pi - angle) / (2 * math.pi)
            distance = w * (distance / 2 - (sine - angle * cross) / math.pi)
            cross = w * (sine / (2 * math.pi) + cross * both) + v
            first, second = w * first / 2 + v, w * second / 2 + v
            kernel = w * kernel * both + cross
        return kernel


class KernelRegimeSource(nn.Module):
    """Kernel ridge regression f_S(u) = Y_Sᵀ (K_S + σ_S I)⁻¹ k(X_S, u), differentiable in u.

    The source of the paper's theory (its assumption of a wide network, exactly): wrap it in
    :class:`~mrviz.SourceModel` and reprogram it like any other.

    Args:
        kernel: a :class:`FeatureKernel` (a linearised network) or a :class:`WideKernel`; a copy
            is kept.
        x: X_S, (n, *shape), as the kernel takes them.
        y: Y_S: integer labels (n,), which become one-hot rows, or values (n, c_S).
        ridge: σ_S; zero needs a K_S of full rank.
        n_classes: c_S, for labels; default: the largest label and one.
        dtype: of kernel, data and solution.

    Attributes:
        inputs: X_S.
        outputs: Y_S, (n, c_S).
        gram: K_S, (n, n).
        dual: (K_S + σ_S I)⁻¹ Y_S, (n, c_S).

    Raises:
        InputError: data that do not fit, or K_S + σ_S I is singular to working precision.

    Example:
        >>> x = torch.rand(6, 1, 3, 3)
        >>> regime = KernelRegimeSource(WideKernel(2), x, [0, 1, 2, 0, 1, 2])
        >>> source = mrviz.SourceModel(regime, (1, 3, 3))
        >>> source(x.double()).argmax(1)  # it interpolates
        tensor([0, 1, 2, 0, 1, 2])
    """

    inputs: Tensor
    outputs: Tensor
    gram: Tensor
    dual: Tensor
    weights: Tensor

    def __init__(
        self,
        kernel: FeatureKernel | WideKernel,
        x: Array,
        y: Array,
        *,
        ridge: float = 0.0,
        n_classes: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not isinstance(kernel, FeatureKernel | WideKernel):
            raise InputError(
                f"kernel must be a FeatureKernel or a WideKernel, got {type(kernel).__name__}"
            )
        if not 0 <= ridge < math.inf:
            raise InputError(f"ridge must be a finite number, 0 or more, got {ridge}")
        self.kernel = copy.deepcopy(kernel).to(dtype).requires_grad_(False)
        self.ridge = ridge
        inputs = as_samples(x, "x", dtype=dtype).detach()
        with torch.no_grad():
            gram = self.kernel(inputs, inputs)
            gram = (gram + gram.T) / 2
            outputs = _values(y, len(inputs), n_classes).to(gram)
            dual = _solve(gram, ridge, outputs)
        tensors = {"inputs": inputs, "outputs": outputs, "gram": gram, "dual": dual}
        if isinstance(self.kernel, FeatureKernel):
            with torch.no_grad():
                tensors["weights"] = self.kernel.features(inputs).T @ dual
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, u: Tensor) -> Tensor:
        """Outputs (n, c_S) of inputs u (n, *shape)."""
        if isinstance(self.kernel, FeatureKernel):
            return self.kernel.features(u) @ self.weights
        return self.kernel(u, self.inputs) @ self.dual

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"n={len(self.inputs)}, ridge={self.ridge:g}"


def feature_rows(reduction: Reduction, like: Tensor) -> Tensor:
    """Rows q_r, (R, C), whose gradients are the features of a reduced kernel."""
    return reduction.cotangents(like.detach()) * reduction.scale**0.5


def _values(y: Array, n: int, n_classes: int | None) -> Tensor:
    values: Any = torch.as_tensor(y)
    if values.is_floating_point():
        if values.ndim != 2 or len(values) != n or not bool(torch.isfinite(values).all()):
            raise InputError(
                f"y must hold integer labels ({n},) or finite values ({n}, c_S), got "
                f"{values.dtype} of shape {tuple(values.shape)}"
            )
        return values.detach()
    labels = as_labels(values, "y", n, n_classes)
    return nn.functional.one_hot(labels, -1 if n_classes is None else n_classes)


def _solve(gram: Tensor, ridge: float, values: Tensor) -> Tensor:
    """(K + σI)⁻¹ Y."""
    matrix = gram + ridge * torch.eye(len(gram)).to(gram)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    unit = torch.finfo(gram.dtype).eps
    floor = len(gram) * unit * float(matrix.diagonal().max())
    if int(failed) or float(factor.diagonal().min()) ** 2 <= floor:
        raise InputError(
            f"K_S of {len(gram)} source samples with ridge {ridge:.3g} is singular to working "
            f"precision: pass a ridge well above {floor:.2g}, or other samples"
        )
    return torch.cholesky_solve(values, factor)


def _root(value: Tensor) -> Tensor:
    """Square root with the derivative zero, not infinite, at zero."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
