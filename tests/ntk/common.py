"""Small sources and a brute-force tangent kernel that shares no code with mrviz."""

from math import prod

import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

REDUCTIONS = ("full", "trace", "sum", 1)


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fill(module, seed=0, scale=1.0):
    """Seeded normal weights of variance scale²/fan-in, so that sources are far from linear."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            fan_in = max(1, p[0].numel()) if p.ndim > 1 else 1
            value = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(value * scale * fan_in**-0.5)
    return module


def conv_net(shape, outputs=4, seed=0, width=3):
    """Convolution, tanh, dense: smooth, so that derivatives are exact everywhere."""
    net = nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(width * shape[1] * shape[2], outputs),
    )
    return fill(net.double(), seed, 1.5)


def dense_net(shape, outputs=4, seed=0, width=8):
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(prod(shape), width), nn.Tanh(), nn.Linear(width, outputs)
    )
    return fill(net.double(), seed, 1.5)


def brute_jacobian(f, theta, x):
    """Jacobian (n, C, p) of f: (theta (p,), x (n, …)) ↦ (n, C), everything written out."""
    return jacrev(f)(theta, x)


def contracted(j1, j2, reduce="full"):
    """Gram of two Jacobians (n, C, p), reduced by its definition."""
    c = j1.shape[1]
    if reduce == "full":
        return j1.flatten(0, 1) @ j2.flatten(0, 1).T
    if reduce == "trace":
        return sum(j1[:, k] @ j2[:, k].T for k in range(c)) / c
    if reduce == "sum":
        return j1.sum(1) @ j2.sum(1).T / c
    return j1[:, reduce] @ j2[:, reduce].T


def brute_gram(f, theta, x, reduce="full"):
    jacobian = brute_jacobian(f, theta, x)
    return contracted(jacobian, jacobian, reduce)


def recolour(x, channels):
    if x.shape[1] == channels:
        return x
    if x.shape[1] == 1:
        return torch.cat([x] * channels, 1)
    assert x.shape[1] == 3 and channels == 1
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def on_canvas(x, source_shape, size=None):
    """Recoloured, resized and centred on a canvas of zeros, pixel by pixel."""
    x = recolour(x, source_shape[0])
    if size is not None and (size, size) != tuple(x.shape[2:]):
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    (height, width), (h, w) = source_shape[1:], x.shape[2:]
    top, left = (height - h) // 2, (width - w) // 2
    return F.pad(x, (left, width - w - left, top, height - h - top))


def frame_pixels(source_shape, image, width=None):
    """Flat indices of frame pixels, all of them or those closer than width to the edge."""
    c, height, wide = source_shape
    h, w = image
    top, left = (height - h) // 2, (wide - w) // 2
    found = []
    for k in range(c):
        for r in range(height):
            for s in range(wide):
                inside = top <= r < top + h and left <= s < left + w
                edge = min(r, s, height - 1 - r, wide - 1 - s)
                if not inside and (width is None or edge < width):
                    found.append((k * height + r) * wide + s)
    return torch.tensor(found)


def prompt_function(head, source_shape, delta, frame, trainable, squash, place):
    """(θ, x) ↦ outputs of a prompt: θ replaces δ at ``trainable``; δ shows inside ``frame``."""
    mask = torch.zeros(prod(source_shape), dtype=delta.dtype)
    mask[frame] = 1

    def f(theta, x):
        full = delta.flatten().scatter(0, trainable, theta)
        return head(place(x) + (mask * squash(full)).view(source_shape))

    return f, delta.flatten()[trainable]


def module_function(head, program):
    """(θ, x) ↦ outputs for any module; θ are its trainable parameters, flattened in order."""
    named = [(k, p) for k, p in program.named_parameters() if p.requires_grad]
    sizes = [p.numel() for _, p in named]

    def f(theta, x):
        parts = theta.split(sizes)
        values = {k: v.view(p.shape) for (k, p), v in zip(named, parts, strict=True)}
        return head(functional_call(program, values, (x,)))

    return f, torch.cat([p.detach().flatten() for _, p in named])


def close(a, b, tolerance=1e-10):
    """‖a − b‖_F ≤ tolerance · ‖b‖_F, shapes included."""
    assert a.shape == b.shape
    return float((a - b).norm()) <= tolerance * float(b.norm())


def smallest(matrix):
    return float(torch.linalg.eigvalsh(matrix)[0])


def round_off(*matrices):
    """What eigenvalues of a sum of these can be off by."""
    return sum(len(m) * 1e-15 * float(m.norm()) for m in matrices)
