import pytest
import torch
from torch import nn

from mrviz.errors import InputError
from mrviz.sources import SourceModel

SHAPE = (1, 4, 4)


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))


class Wrap(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: (y, y), "returned a tuple"),
        (lambda y: y.mean(0, keepdim=True), "for a batch of"),
        (lambda y: y[..., None], "for a batch of"),
        (lambda y: y / 0, "NaN or infinite"),
        (lambda y: y - y.mean(0), "alone than in a batch"),
        (lambda y: y + torch.rand(()), "second call"),
    ],
)
def test_modules_that_do_not_fit_are_errors(change, message):
    with pytest.raises(InputError, match=message):
        SourceModel(Wrap(change), SHAPE)


def test_a_wrong_input_shape_names_the_failure():
    with pytest.raises(InputError, match="Check input_shape"):
        SourceModel(net(), (1, 5, 5))
    with pytest.raises(InputError, match="positive sizes"):
        SourceModel(net(), (1, 0, 4))
    with pytest.raises(InputError, match="takes inputs of shape"):
        SourceModel(net(), SHAPE)(torch.rand(2, 1, 5, 5))


def test_batch_statistics_in_eval_mode_are_an_error():
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    with pytest.raises(InputError, match="alone than in a batch"):
        SourceModel(nn.Sequential(norm, *net()), SHAPE)


def test_dropout_is_off_in_use_and_each_module_gets_its_own_mode_back():
    module = nn.Sequential(nn.Dropout(0.5), *net())
    module[2].eval()
    source = SourceModel(module, SHAPE)
    x = torch.rand(4, *SHAPE)
    assert torch.equal(source(x), source(x))
    assert [m.training for m in module] == [True, True, False]


def test_the_modules_parameters_are_frozen_but_inputs_are_differentiable():
    source = SourceModel(net(), SHAPE)
    x = torch.rand(2, *SHAPE, requires_grad=True)
    source(x).sum().backward()
    assert x.grad is not None and not any(p.requires_grad for p in source.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "classes names 2 classes"),
        ({"normalize": ((0.5, 0.5), (0.5, 0.5))}, "2 means"),
        ({"normalize": ((0.5,), (0.0,))}, "positive"),
        ({"normalize": 3}, "mean, std"),
        ({"test_data": (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 1])}, "/ 255"),
        ({"test_data": (torch.zeros(2, 1, 4, 5), [0, 1])}, "is expected"),
        ({"test_data": (torch.zeros(2, 1, 4, 4), [0, 3])}, "3 classes"),
        ({"test_data": (torch.zeros(2, 1, 4, 4), [0])}, "one label for each"),
        ({"test_data": (torch.full((2, 1, 4, 4), torch.nan), [0, 1])}, "sample 0"),
    ],
)
def test_options_that_do_not_fit_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        SourceModel(net(), SHAPE, **options)


def test_something_else_than_a_module_is_an_error():
    with pytest.raises(InputError, match="function"):
        SourceModel(lambda x: x, SHAPE)


def test_normalisation_is_part_of_the_model():
    x = torch.rand(3, *SHAPE)
    source = SourceModel(net(), SHAPE, normalize=((0.2,), (0.4,)))
    torch.testing.assert_close(source(x), net()((x - 0.2) / 0.4))
    source = SourceModel(net(), SHAPE, normalize=torch.sqrt)
    torch.testing.assert_close(source(x), net()(x.sqrt()))


def test_the_fingerprint_tells_weights_and_normalisation_apart():
    changed = net()
    with torch.no_grad():
        changed[1].bias[0] += 1e-6
    prints = {
        SourceModel(net(), SHAPE).fingerprint(),
        SourceModel(changed, SHAPE).fingerprint(),
        SourceModel(net(), SHAPE, normalize=((0.2,), (0.4,))).fingerprint(),
        SourceModel(net(), SHAPE, normalize=((0.3,), (0.4,))).fingerprint(),
    }
    assert len(prints) == 4
    assert SourceModel(net(), SHAPE).fingerprint() in prints
