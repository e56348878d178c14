"""The engine that replaces functions: what it sees, under which names, and what it leaves alone."""

import gc
import random
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import apportion as ap
from apportion.engines.substitution import Substitution
from apportion.engines.substitution.function_names import MOVES, identify
from apportion.engines.substitution.tensor_notes import TensorNotes
from apportion.errors import InputError


def seen(function, *args, model=None):
    """The names of the active calls that a function makes."""
    names = []

    def note(call, *a, **k):
        names.append(call.name)
        return call.native()

    with Substitution({}, note, model):
        function(*args)
    return names


def leaf(*shape):
    return torch.randn(shape).requires_grad_()


def run(function, x, table=None, **settings):
    substitution = Substitution(table or {}, **settings)
    substitution.explained.add(x)
    with substitution:
        return substitution.current(function(x))


# ---- names ----


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.linear, "linear"),
        (torch._C._nn.linear, "linear"),
        (torch.ops.aten.linear.default, "linear"),
        (torch.ops.aten.linear, "linear"),
        (torch.Tensor.__truediv__, "div"),
        (torch.true_divide, "div"),
        (torch.ops.aten.div.Tensor, "div"),
        (torch.Tensor.__rsub__, "rsub"),
        (torch.dsmm, "matmul"),  # before mm, to which it compares equal
        (torch.mm, "matmul"),
        (torch.bmm, "matmul"),
        (torch.Tensor.__matmul__, "matmul"),
        (torch.ops.aten._softmax.default, "softmax"),
        (torch.ops.aten.convolution.default, "convolution"),
        (torch.special.expit, "sigmoid"),
    ],
)
def test_one_name_for_all_forms_of_a_function(function, name):
    found = identify(function)
    assert found.name == name
    assert not found.in_place
    assert not found.passive


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.Tensor.__iadd__, "add"),
        (torch.Tensor.add_, "add"),
        (torch.relu_, "relu"),
        (torch.ops.aten.add_.Tensor, "add"),
        (torch.Tensor.__setitem__, "setitem"),
        (torch.Tensor.masked_fill_, "masked_fill"),
    ],
)
def test_in_place_functions_are_known_as_such(function, name):
    found = identify(function)
    assert found.name == name
    assert found.in_place


@pytest.mark.parametrize(
    "function", [torch.Tensor.size, torch.Tensor.dim, torch.Tensor.shape.__get__, torch.Tensor.item]
)
def test_questions_are_passive(function):
    assert identify(function).passive


def test_names_of_moves_are_names_that_calls_get():
    x = leaf(2, 3)
    for function in (
        lambda t: t.T,
        lambda t: t[0],
        lambda t: torch.cat([t, t]),
        lambda t: t.reshape(-1),
        torch.stack,
    ):
        names = seen(function, [x, x] if function is torch.stack else x)
        assert set(names) <= MOVES


# ---- substitution ----


def test_only_what_depends_on_the_input_is_substituted():
    x, constant = leaf(2, 3), torch.ones(3)
    assert seen(lambda x: F.relu(constant) + F.relu(x), x) == []
    run_ = Substitution({}, lambda call, *a, **k: names.append(call.name) or call.native())
    names = []
    run_.explained.add(x)
    with run_:
        _ = F.relu(constant) + F.relu(x)
    assert names == ["relu", "add"]


def test_parameters_are_constants():
    linear, x = nn.Linear(3, 2), leaf(1, 3)
    y = run(linear, x, model=linear)
    y.sum().backward()
    assert linear.weight.grad is None
    assert x.grad is not None


def test_substitutes_see_modules_operators_and_exported_programs():
    double = {"relu": lambda call, input, **_: 2 * input}
    x = leaf(1, 3)
    exported = torch.export.export(nn.ReLU(), (torch.ones(1, 3),)).module()
    operators = (torch.ops.aten.relu, torch.ops.aten.relu.default, lambda x: torch.ops.aten.relu_(x * 1))
    functions = (F.relu, torch.relu, torch.Tensor.relu, lambda x: F.relu_(x * 1))
    for function in (nn.ReLU(), nn.ReLU(inplace=True), *functions, *operators, exported):
        assert torch.equal(run(function, x, double), 2 * x)


def test_a_substitute_can_be_substituted_in_its_turn():
    table = {
        "silu": lambda call, x, **_: call.run.again(torch.mul, x, call.run.again(torch.sigmoid, x)),
        "sigmoid": lambda call, x: torch.ones_like(x) + 0 * x,
    }
    x = leaf(4)
    assert torch.equal(run(F.silu, x, table), x)


def test_the_mode_ends_with_its_context():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="inside"), Substitution({"relu": lambda *_, **__: 1 / 0}):
        raise RuntimeError("inside")
    assert torch.equal(F.relu(x), x.clamp(min=0))


def test_where_names_the_running_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    places = []

    def note(call, *args, **kwargs):
        places.append((call.name, call.run.where()))
        return call.native()

    x = leaf(1, 2)
    run(model, x, default=note, model=model)
    assert places == [("linear", "0"), ("relu", "1.0"), ("linear", "1.1")]


# ---- nothing is written ----


def test_nothing_is_written_into_constants():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    model, x = Counting(), leaf(2)
    assert torch.equal(run(model, x, model=model), x)
    assert model.calls.item() == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True)])
def test_running_statistics_stay(norm):
    x = leaf(4, 3, 5)
    from apportion.engines.substitution import HARMLESS

    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    for table in ({}, HARMLESS):
        if table:
            run(norm, x, table, model=norm)
        with torch.no_grad():
            run(norm, x.detach(), table, model=norm)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())


def test_what_was_written_is_read_through_any_view():
    def function(x):
        y = x * 1
        rows = list(y)
        rows[0].mul_(2)
        y[1:].add_(rows[0])
        return torch.stack(list(y))

    x = leaf(2, 3)
    torch.testing.assert_close(run(function, x), torch.stack([2 * x[0], x[1] + 2 * x[0]]))


def test_somebodys_own_operator_is_not_torchs():
    @torch.library.custom_op("apportion_tests::relu", mutates_args=())
    def squared(x: torch.Tensor) -> torch.Tensor:
        return x.relu() ** 2

    squared.register_autograd(lambda context, slope: slope)
    assert seen(squared, leaf(2) * 1) == ["apportion_tests::relu"]


def test_arrays_of_what_is_explained_are_refused():
    with pytest.raises(InputError, match="leaves PyTorch"):
        run(lambda x: torch.from_numpy(x.numpy()), leaf(2))


# ---- notes ----


def test_notes_forget_with_their_tensors():
    notes = TensorNotes()
    tensor = torch.ones(1)
    notes[tensor] = "known"
    assert notes.get(tensor) == "known"
    assert notes.get(torch.ones(1)) is None
    del tensor
    gc.collect()
    assert not notes


def test_nothing_is_kept_alive_after_a_run():
    x = leaf(4)
    result = run(lambda t: (t * 2).relu_().view(2, 2), x)
    gone = weakref.ref(result)
    del result
    gc.collect()
    assert gone() is None


def test_threads_do_not_see_each_others_substitutes():
    x = torch.ones(2, requires_grad=True)
    inside, done = threading.Event(), threading.Event()
    found = []

    def other():
        inside.wait(600)
        found.append(F.relu(x))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    substitution = Substitution({"relu": lambda call, input, **_: 5 * input})
    substitution.explained.add(x)
    with substitution:
        inside.set()
        done.wait(600)
    thread.join()
    assert torch.equal(found[0], x)


def test_a_write_that_is_passed_as_an_argument_is_seen_where_nothing_is_explained() -> None:
    x = torch.tensor([-1.0, 2.0])
    with Substitution(), torch.no_grad():
        torch.nn.functional.relu(x, inplace=True)
        assert (x + 0).tolist() == [0.0, 2.0]
    assert x.tolist() == [-1.0, 2.0]


def _writing(seed):
    """A program of random steps, most of which write into a tensor or a view of one, and read others later."""

    def program(x):
        choose = random.Random(seed)
        live = [
            x @ torch.arange(16.0, dtype=x.dtype).view(4, 4).cos() if choose.random() < 0.7 else x.clone()
        ]
        live += [torch.zeros_like(x)] if choose.random() < 0.5 else []
        steps = [
            lambda y: live.append(y[..., :2]),
            lambda y: live.append(y[..., 1:]),
            lambda y: live.append(y.mT if y.dim() > 1 else y[:]),
            lambda y: live.append(y.view(-1)) if y.is_contiguous() else None,
            lambda y: live.append(y.mul_(3.0)),
            lambda y: live.append(y.tanh()),
            lambda y: y.relu_(),
            lambda y: y.add_(1.0).mul_(0.5),
            lambda y: y.copy_(y * y * 0.1),
            lambda y: y[0].add_(y[-1]),
            lambda y: y.__setitem__((..., 0), live[0].sum() * 0.1),
            lambda y: y.__iadd__(live[0].sum() * 0.1),
        ]
        for _ in range(choose.randint(2, 7)):
            choose.choice(steps)(choose.choice(live))
        return torch.stack([(i + 1) * y.sum() + 0.01 * (y * y).sum() for i, y in enumerate(live)]).sum()[
            None, None
        ]

    return program


@pytest.mark.parametrize("seed", range(0, 120, 8))
def test_programs_that_write_into_views_compute_what_they_compute_without_us(seed):
    for program in map(_writing, range(seed, seed + 8)):
        x = torch.randn(1, 4, 4, dtype=torch.float64)
        leaf = x.clone().requires_grad_()
        try:
            expected = program(leaf)
            gradient = torch.autograd.grad(expected.sum(), leaf)[0]
        except RuntimeError:  # PyTorch itself refuses some
            continue
        for method in (ap.Saliency(), ap.LRP("epsilon")):
            torch.testing.assert_close(method(program, x).output, expected.detach())
        torch.testing.assert_close(ap.Saliency()(program, x).values, gradient.abs())


@pytest.mark.parametrize("name", ["epsilon", "epsilon-alpha2beta1", "epsilon-gamma-box", "epsilon-plus-flat"])
def test_writing_into_a_part_of_a_layers_output_keeps_the_rule_of_the_rest(name):
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)

    def written(x):
        y = F.conv2d(x, weight)
        y[:, :2].relu_().mul_(2)
        return y.mean((2, 3))

    def joined(x):
        y = F.conv2d(x, weight)
        return torch.cat([y[:, :2].relu() * 2, y[:, 2:]], 1).mean((2, 3))

    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for target in (0, 3):
        found = [ap.LRP(name, ledger=True)(model, x, target) for model in (written, joined)]
        torch.testing.assert_close(found[0].values, found[1].values)
        assert abs(found[0].ledger.residual) < 1e-9
