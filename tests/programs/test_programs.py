"""Programs: where pixels go, what is trainable, what is refused."""

import pytest
import torch

import mrviz
from mrviz.programs import Border, Chain, Linear, Overlay, build_program, linear_border
from tests.ntk.common import close, frame_pixels, on_canvas, uniform


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 8, 8), (1, 4, 4)),
        ((3, 8, 8), (1, 5, 5)),
        ((1, 8, 8), (3, 4, 4)),
        ((3, 9, 7), (3, 4, 5)),
    ],
)
def test_border_puts_the_image_in_the_middle_and_the_prompt_around(source, target):
    prompt = Border(source, target).double()
    x = uniform(2, *target)
    with torch.no_grad():
        prompt.delta.copy_(uniform(*source, seed=1) - 0.5)
    expected = on_canvas(x, source).flatten(1)
    frame = frame_pixels(source, target[1:])
    expected[:, frame] = torch.sigmoid(prompt.delta.detach().flatten()[frame])
    assert close(prompt(x).detach().flatten(1), expected, 1e-14)


@pytest.mark.parametrize("image_size", [1, 3, 6])
def test_border_resizes_the_image_first(image_size):
    prompt = Border((3, 8, 8), (1, 4, 4), image_size=image_size).double()
    x = uniform(2, 1, 4, 4)
    expected = on_canvas(x, (3, 8, 8), image_size).flatten(1)
    expected[:, frame_pixels((3, 8, 8), (image_size, image_size))] = 0.5
    assert close(prompt(x).detach().flatten(1), expected, 1e-14)
    assert "resized from 4×4" in prompt.describe()


def test_a_constant_image_stays_constant_when_resized():
    prompt = Overlay((1, 9, 9), (1, 4, 4))
    assert torch.allclose(prompt(torch.full((1, 1, 4, 4), 0.7)), torch.tensor(0.7))


@pytest.mark.parametrize("make", [Border, linear_border])
def test_pixels_that_are_not_trainable_get_exactly_no_gradient(make):
    canvas, image = (2, 8, 8), (1, 4, 4)
    program = make(canvas, image, width=1)
    prompt = program if isinstance(program, Border) else program.second
    weights = uniform(2, *canvas).float()
    (program(uniform(2, *image).float()) * weights).sum().backward()
    moved = prompt.delta.grad.flatten().nonzero().flatten()
    assert moved.tolist() == frame_pixels(canvas, (4, 4), 1).tolist()
    assert prompt.trainable.sum() == len(moved) == prompt.n_parameters


def test_width_does_not_change_the_programmed_input():
    prompt = Border((1, 8, 8), (1, 2, 2))
    with torch.no_grad():
        prompt.delta.copy_(uniform(1, 8, 8).float())
    x = uniform(2, 1, 2, 2).float()
    whole = prompt(x)
    counts = []
    for width in (1, 2, 3):
        prompt.capacity = width
        assert torch.equal(prompt(x), whole)
        counts.append(prompt.n_parameters)
        assert prompt.parameters_at(width) == counts[-1]
    assert counts == [28, 48, 60]
    assert prompt.parameters_at(1) == 28, "asking about another capacity"


@pytest.mark.parametrize(
    ("source", "target", "options", "widest"),
    [
        ((3, 64, 64), (1, 28, 28), {}, 18),
        ((1, 9, 9), (1, 4, 4), {}, 3),
        ((1, 9, 9), (1, 8, 8), {}, 1),
        ((1, 6, 8), (1, 6, 2), {}, 3),
        ((1, 64, 64), (1, 28, 28), {"image_size": 60}, 2),
    ],
)
def test_capacity_range_of_a_border(source, target, options, widest):
    prompt = Border(source, target, **options)
    image = (options["image_size"],) * 2 if options else target[1:]
    assert prompt.capacity_range == (1, widest) and prompt.capacity == widest
    counts = [prompt.parameters_at(w) for w in range(1, widest + 1)]
    assert counts == [len(frame_pixels(source, image, w)) for w in range(1, widest + 1)]
    assert counts == sorted(set(counts)), "every step adds parameters"
    assert counts[-1] == len(frame_pixels(source, image))


@pytest.mark.parametrize("width", [0, -1, 3, 100])
def test_capacity_outside_its_range(width):
    message = rf"width={width} is outside 1 to 2.*smaller image_size"
    with pytest.raises(mrviz.InputError, match=message):
        Border((1, 8, 8), (1, 4, 4), width=width)
    for program in (Border((1, 8, 8), (1, 4, 4)), linear_border((1, 8, 8), (1, 4, 4))):
        with pytest.raises(mrviz.InputError, match=message):
            program.capacity = width
        assert program.capacity == 2


@pytest.mark.parametrize("width", [1.0, "2", True])
def test_capacity_that_is_no_whole_number(width):
    with pytest.raises(mrviz.InputError, match="width must be a whole number, got"):
        Border((1, 8, 8), (1, 4, 4), width=width)


def test_image_that_leaves_no_frame():
    with pytest.raises(mrviz.InputError, match=r"leaves no frame .*choose image_size below 8"):
        Border((1, 8, 8), (1, 8, 8))
    with pytest.raises(mrviz.InputError, match="leaves no frame"):
        linear_border((3, 8, 8), (1, 4, 4), image_size=8)
    assert Border((1, 8, 8), (1, 8, 8), image_size=7).n_parameters == 15


@pytest.mark.parametrize("options", [{}, {"image_size": 9}, {"image_size": 0}])
def test_image_that_does_not_fit(options):
    target = (1, 9, 9) if not options else (1, 4, 4)
    with pytest.raises(
        mrviz.InputError, match=r"does not fit into .*choose image_size from 1 to 8"
    ):
        Border((1, 8, 8), target, **options)


@pytest.mark.parametrize("image_size", [4.5, "4"])
def test_image_size_that_is_no_whole_number(image_size):
    with pytest.raises(mrviz.InputError, match="image_size must be a whole number of pixels"):
        Border((1, 8, 8), (1, 4, 4), image_size=image_size)


@pytest.mark.parametrize(("c_s", "c_t"), [(3, 2), (1, 4), (2, 3), (4, 3), (1, 2)])
def test_unsupported_colours(c_s, c_t):
    for kind in (Border, Overlay):
        with pytest.raises(mrviz.InputError, match="convert the images first"):
            kind((c_s, 8, 8), (c_t, 4, 4))


def test_linear_takes_any_shapes():
    program = Linear((7,), (2, 3))
    x = uniform(4, 2, 3).float()
    expected = x.flatten(1) @ program.weight.T + program.bias
    assert torch.allclose(program(x), expected)
    assert program.n_parameters == 7 * 7
    assert Linear((7,), (2, 3), bias=False).n_parameters == 42


def test_linear_start_values_are_seeded():
    a, b, c = (Linear((1, 4, 4), (1, 2, 2), seed=s) for s in (1, 1, 2))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)
    assert not torch.equal(a.weight, c.weight)
    assert 0.4 < float(a.weight.abs().max()) <= 0.5


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8, 8), (0, 8, 8), (3, -1, 8)])
def test_prompts_need_images(shape):
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        Border(shape, (1, 4, 4))
    with pytest.raises(mrviz.InputError, match="target_shape must"):
        Overlay((1, 16, 16), shape)


def test_shapes_that_are_no_shapes():
    with pytest.raises(mrviz.InputError, match="must be a tuple such as"):
        Linear(16, (1, 2, 2))


def test_unknown_activation():
    for kind in (Border, Overlay, linear_border):
        with pytest.raises(mrviz.InputError, match="activation must be one of sigmoid, identity"):
            kind((1, 8, 8), (1, 4, 4), activation="tanh")


def test_chain_of_programs_that_do_not_meet():
    with pytest.raises(mrviz.InputError, match="make the two shapes equal"):
        Chain(Linear((1, 5, 5), (1, 4, 4)), Border((1, 8, 8), (1, 4, 4)))


def test_linear_border_works_in_the_colours_of_the_source():
    program = linear_border((3, 8, 8), (1, 4, 4), width=1, seed=3)
    assert program.first.source_shape == (3, 4, 4)
    assert program.capacity == 1 and program.capacity_range == (1, 2)
    assert program.n_parameters == 48 * 17 + 3 * 28
    assert program.parameters_at(2) == 48 * 17 + 3 * 48
    x = uniform(2, 1, 4, 4).float()
    assert torch.equal(program(x), program.second(program.first(x)))
    program.capacity = 2
    assert program.second.capacity == 2


@pytest.mark.parametrize("kind", [Border, Overlay, Linear, linear_border])
def test_programs_describe_themselves(kind):
    program = kind((3, 8, 8), (1, 4, 4))
    text = program.describe()
    assert len(text) > 20 and program.label
    assert ("grey repeated over 3 channels" in text) == (kind in (Border, Overlay))
    assert (program.capacity_label is None) == (program.capacity_range is None)
    assert "source_shape=(3, 8, 8)" in repr(program)


def test_programs_by_name():
    assert isinstance(build_program("overlay", (3, 8, 8), (1, 4, 4), seed=1), Overlay)
    assert build_program("border", (3, 8, 8), (1, 4, 4), width=1, seed=1).capacity == 1
    with pytest.raises(mrviz.InputError, match="one of border, overlay, linear, linear_border"):
        build_program("vp", (3, 8, 8), (1, 4, 4))
    with pytest.raises(mrviz.InputError, match="has no option rank, wdth; its options are width"):
        build_program("border", (3, 8, 8), (1, 4, 4), wdth=1, rank=2)


def test_state_survives_saving_and_loading(tmp_path):
    a, b = (linear_border((1, 8, 8), (1, 4, 4), seed=s) for s in (1, 2))
    with torch.no_grad():
        a.second.delta.add_(1)
    torch.save(a.state_dict(), tmp_path / "p.pt")
    b.load_state_dict(torch.load(tmp_path / "p.pt"))
    x = uniform(2, 1, 4, 4).float()
    assert torch.equal(a(x), b(x))
