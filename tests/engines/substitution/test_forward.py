"""From what is explained to the scalar that is explained, through models that are not written for it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import apportion as ap
import small
from apportion.core.trees import tensors_in
from apportion.engines.substitution import Gradients
from apportion.errors import InputError

X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0]])


def gradient(function, x=X):
    """The gradient as autograd alone gives it, of a function written without any in-place step."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# ---- in-place operations: model → the same function written without them ----


def writes_into_its_input(x):
    x += 1
    return (x**2).sum(1)


def relu_in_place(x):
    y = x * 1
    F.relu(y, inplace=True)
    y.mul_(3)
    return y.sum(1)


def row_written_through_a_view(x):
    y = x * 2
    y[:, 0] *= y[:, 1]
    return y.sum(1)


def view_of_a_view(x):
    y = (x * 2).view(-1, 3)
    part = y[:, 1:]
    part[:, 0].add_(part[:, 1] ** 2)
    return (y**2).sum(1)


def base_written_view_read(x):
    y = x * 2
    view = y.view(-1)
    y.mul_(y)
    return view.view(-1, 3).sum(1)


def buffer_filled(x):
    y = torch.zeros(len(x), 4)
    y[:, :3] = x
    y[:, 3] = x[:, 0] * x[:, 2]
    return (y**2).sum(1)


def masked(x):
    y = x * 1
    y[y < 0] = 0
    y.masked_fill_(y > 2, 2.0)
    return (y**2).sum(1)


def copied_and_chained(x):
    y = torch.empty(len(x), 3)
    y.copy_(x)
    y.clamp_(min=0).pow_(3)
    return y.sum(1)


def scattered(x):
    y = torch.zeros(len(x), 5)
    y.scatter_(1, torch.tensor([[4, 2, 0]]).expand(len(x), -1), x**2)
    y.index_add_(1, torch.tensor([0, 1, 2]), x)
    return (y * torch.arange(5.0)).sum(1)


def swapped(x):
    y = x.clone()
    first, second = y[:, 0].clone(), y[:, 1].clone()
    y[:, 0], y[:, 1] = second, first
    return (y * torch.tensor([1.0, 10.0, 100.0])).sum(1)


def number_read_after_a_write(x):
    most = x.detach().abs().amax()
    most.clamp_(min=4)
    return x.sum(1) / most.item()


def shape_read_after_a_write(x):
    y = x * 1
    y.unsqueeze_(0)
    y.mul_(2)
    y.squeeze_(0)
    return y.view(y.shape[0], -1).sum(1)


def view_of_other_strides(x):
    y = x.t().clone()
    first = y[:2]
    y.cumsum_(0)
    return first.sum(0)


def written_by_out(x):
    y = torch.empty(0)
    torch.mul(x, x, out=y)
    return y.sum(1)


def detached_in_place(x):
    y = x * 2
    y.detach_()
    return (x * y).sum(1)


IN_PLACE = {
    writes_into_its_input: lambda x: ((x + 1) ** 2).sum(1),
    relu_in_place: lambda x: 3 * F.relu(x).sum(1),
    row_written_through_a_view: lambda x: 4 * x[:, 0] * x[:, 1] + 2 * x[:, 1] + 2 * x[:, 2],
    view_of_a_view: lambda x: 4 * x[:, 0] ** 2 + (2 * x[:, 1] + 4 * x[:, 2] ** 2) ** 2 + 4 * x[:, 2] ** 2,
    base_written_view_read: lambda x: (4 * x**2).sum(1),
    buffer_filled: lambda x: (x**2).sum(1) + (x[:, 0] * x[:, 2]) ** 2,
    masked: lambda x: (torch.where(x > 2, 2.0, F.relu(x)) ** 2).sum(1),
    copied_and_chained: lambda x: (F.relu(x) ** 3).sum(1),
    scattered: lambda x: x[:, 1] + 2 * x[:, 2] + 2 * x[:, 1] ** 2 + 4 * x[:, 0] ** 2,
    swapped: lambda x: x[:, 1] + 10 * x[:, 0] + 100 * x[:, 2],
    number_read_after_a_write: lambda x: x.sum(1) / 4,
    shape_read_after_a_write: lambda x: 2 * x.sum(1),
    view_of_other_strides: lambda x: 2 * x[:, 0] + x[:, 1],
    written_by_out: lambda x: (x**2).sum(1),
    detached_in_place: lambda x: (x * 2 * x.detach()).sum(1),
}


@pytest.mark.parametrize("function", list(IN_PLACE), ids=lambda f: f.__name__)
def test_in_place_operations(function):
    before = X.clone()
    found = ap.InputXGradient()(Functional(function), X)
    assert torch.equal(X, before)
    plain = IN_PLACE[function]
    torch.testing.assert_close(found.total, plain(X))
    torch.testing.assert_close(found.values, X * gradient(plain))


def test_shared_modules():
    torch.manual_seed(0)
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared)
    expected = gradient(lambda x: model(x)[:, 1])
    found = ap.InputXGradient()(model, X, target=1)
    torch.testing.assert_close(found.values, X * expected)


def test_functional_weights_are_constants():
    weight = torch.randn(2, 3, requires_grad=True)
    found = ap.InputXGradient()(lambda x: F.linear(x, weight), X, target=0)
    torch.testing.assert_close(found.values, X * weight[0].detach())
    assert weight.grad is None


# ---- inputs ----


def test_several_inputs():
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    expected_a = 2 * a * b
    for inputs in ((a, b), {"a": a, "b": b}):
        found = ap.InputXGradient()(lambda a, b: (a**2 * b).sum(1), inputs).values
        parts = found if isinstance(found, tuple) else (found["a"], found["b"])
        torch.testing.assert_close(parts[0], a * expected_a)
        torch.testing.assert_close(parts[1], b * a**2)


def test_an_input_that_is_not_used_gets_zeros():
    found = ap.InputXGradient()(lambda a, b: a.sum(1), (X, X)).values
    assert torch.equal(found[0], X)
    assert torch.equal(found[1], torch.zeros_like(X))


def test_inputs_that_require_a_gradient_keep_it():
    x = X.clone().requires_grad_()
    found = ap.Saliency()(lambda x: x.sum(1), x)
    assert not found.values.requires_grad
    assert x.requires_grad
    assert x.grad is None


def test_inputs_made_under_inference_mode():
    with torch.inference_mode():
        x = X.clone()
    ids = torch.ones(2, 4, dtype=torch.long)
    with torch.inference_mode():
        ids = ids + 1
    torch.manual_seed(0)
    assert ap.Saliency()(nn.Linear(3, 2), x).values.shape == (2, 3)
    model, _ = small.lstm()
    assert ap.InputXGradient()(model, ids).values.shape == (2, 4)


def test_embedding_ids_via_keywords():
    model, inputs = small.bert()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows = model.bert.embeddings.word_embeddings(ids).detach().requires_grad_()
    scores = model(inputs_embeds=rows, attention_mask=mask).logits
    slope = torch.autograd.grad(scores[:, 2].sum(), rows)[0]
    found = ap.InputXGradient()(model, inputs, target=2)
    assert list(found.values) == ["input_ids"]
    torch.testing.assert_close(found.values["input_ids"], (rows * slope).sum(-1).detach())
    torch.testing.assert_close(ap.Saliency()(model, inputs, target=2).values["input_ids"], slope.norm(dim=-1))
    alone = ap.InputXGradient()(model, ids, target=2)  # ids alone, by position
    assert alone.values.shape == ids.shape


def test_tokens_that_are_moved_keep_their_relevance():
    torch.manual_seed(0)
    embedding, head = nn.Embedding(10, 4), nn.Linear(4, 2)
    model = nn.ModuleDict({"embedding": embedding, "head": head})

    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, ids):
            ids = torch.cat([ids.flip(1), ids[:, :1]], 1)  # the first token stands at both ends
            weights = torch.arange(1.0, ids.shape[1] + 1)
            return head((embedding(ids) * weights[None, :, None]).sum(1))

    ids = torch.tensor([[3, 5, 7]])
    found = ap.InputXGradient()(Reversed(), ids, target=0)
    each = embedding(ids).detach() @ head.weight[0].detach()
    torch.testing.assert_close(found.values, each * torch.tensor([[3.0 + 4.0, 2.0, 1.0]]))


def test_integers_without_an_embedding():
    with pytest.raises(InputError, match="none of them was looked up in an embedding"):
        ap.Saliency()(lambda x: x.float(), torch.ones(2, 3, dtype=torch.long))


def test_two_embeddings():
    torch.manual_seed(0)
    words, places = nn.Embedding(10, 4), nn.Embedding(5, 4)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = words, places

        def forward(self, ids):
            position = torch.arange(ids.shape[1]).expand(ids.shape)
            return (words(ids) * places(position)).sum(1)

    ids = torch.tensor([[1, 2, 3]])
    found = ap.InputXGradient()(Model(), ids, target=0)
    expected = words(ids)[..., 0] * places.weight[:3, 0]
    torch.testing.assert_close(found.values, expected.detach())


@pytest.mark.parametrize(
    "places",
    [
        lambda ids: torch.ones_like(ids).cumsum(1) - 1,
        lambda ids: ids.new_zeros(ids.shape),
        lambda ids: ids.argsort(1),
    ],
)
def test_integers_that_are_made_beside_the_ids_are_no_tokens(places):
    torch.manual_seed(0)
    words, positions = nn.Embedding(10, 4), nn.Embedding(5, 4)
    ids = torch.tensor([[5, 1, 3]])
    found = ap.InputXGradient()(lambda ids: (words(ids) + positions(places(ids))).sum(1), ids, target=0)
    torch.testing.assert_close(found.values, words(ids)[..., 0].detach())


def test_ids_that_are_looked_up_in_a_table_stay_tokens():
    torch.manual_seed(0)
    words, table = nn.Embedding(10, 4), torch.randperm(10)
    ids = torch.tensor([[5, 1, 3]])
    found = ap.InputXGradient()(lambda ids: words(table[ids]).sum(1), ids, target=0)
    torch.testing.assert_close(found.values, words(table[ids])[..., 0].detach())


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("settings", [{}, {"padding_idx": 0}, {"max_norm": 0.5}], ids=str)
def test_bags_of_embeddings(mode, settings):
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(10, 4, mode=mode, **settings)
    weight = bag.weight.detach().clone()
    ids = torch.tensor([[1, 2, 0, 0], [2, 2, 3, 9]])
    found = ap.InputXGradient()(bag, ids, target=0)
    assert torch.equal(bag.weight, weight)  # which `max_norm` would shrink
    torch.testing.assert_close(found.output, bag(ids).detach())
    torch.testing.assert_close(found.apportioned.float(), found.total)
    assert settings != {"padding_idx": 0} or (found.values[0, 2:] == 0).all()


def test_bags_of_embeddings_with_offsets():
    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 0, 0], [2, 2, 3, 9]])
    ends = nn.EmbeddingBag(10, 4, include_last_offset=True)
    found = ap.InputXGradient()(lambda ids: ends(ids.flatten(), torch.tensor([0, 4, 8])), ids, target=0)
    plain = nn.EmbeddingBag.from_pretrained(ends.weight.detach())
    torch.testing.assert_close(found.output, plain(ids))
    with pytest.raises(InputError, match="mode='max'; accepted: 'sum' or 'mean'"):
        ap.InputXGradient()(nn.EmbeddingBag(10, 4, mode="max"), ids)


@pytest.mark.parametrize("method", [ap.LRP(), ap.DeepLIFT(), ap.IntegratedHessians(nodes=4), ap.Saliency()])
@pytest.mark.parametrize("view", [lambda t: t.view(-1, 5, 8), lambda t: t.view_as(torch.empty(len(t), 5, 8))])
def test_a_view_of_what_a_fused_function_laid_out_is_one_of_what_stands_in_its_place(method, view):
    torch.manual_seed(0)
    project, out = nn.Linear(8, 24), nn.Linear(8, 2)

    def model(cut):
        def forward(x):
            q, k, v = (t.reshape(-1, 5, 2, 4).transpose(1, 2) for t in project(x).chunk(3, -1))
            return out(cut(F.scaled_dot_product_attention(q, k, v).transpose(1, 2)).mean(1))

        return forward

    x = torch.randn(2, 5, 8)
    found, same = (method(model(cut), x, target=0) for cut in (view, lambda t: t.reshape(-1, 5, 8)))
    torch.testing.assert_close(found.values, same.values)


# ---- nothing of the user's is written ----


class Scaling(nn.Module):
    """Writes into whatever it is given, and into what it holds."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("bias", torch.zeros(3))

    def forward(self, x, attention_mask):
        self.calls[0] += 1
        torch.add(self.bias, 1, out=self.bias)
        x /= 2
        attention_mask -= 0.25
        hidden = self.first(x)
        hidden += x
        return self.last(torch.tanh(hidden) * attention_mask + self.bias * int(self.calls[0]))


@pytest.mark.parametrize("at", [None, "first"])
@pytest.mark.parametrize(
    "method", [ap.Saliency, ap.InputXGradient, ap.IntegratedGradients, ap.SmoothGrad, ap.DeepLIFT, ap.LRP]
)
def test_models_that_write_leave_everything_as_it_was(method, at):
    torch.manual_seed(0)
    model, inputs = Scaling(), {"x": X.clone(), "attention_mask": torch.ones(2, 3)}
    before, state = copy.deepcopy(inputs), copy.deepcopy(model.state_dict())
    found, again = (method(at=at)(model, inputs, 0) for _ in range(2))
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    torch.testing.assert_close(found.output, copy.deepcopy(model)(**before).detach())
    torch.testing.assert_close(found.apportioned, again.apportioned)


@pytest.mark.parametrize(
    "method", [ap.DeepLIFT(at="0"), ap.SmoothGrad(at="0"), ap.IntegratedGradients(at="0")]
)
def test_a_layer_whose_output_is_written_into(method):
    torch.manual_seed(0)
    first, last = nn.Linear(3, 3), nn.Linear(3, 2)

    class Residual(nn.Sequential):
        def forward(self, x):
            hidden = self[0](x)
            hidden = hidden + x if self.training else hidden.add_(x)
            return self[1](torch.tanh(hidden))

    apart, within = Residual(first, last).train(), Residual(first, last).eval()
    torch.testing.assert_close(method(within, X, 0).values, method(apart, X, 0).values)


# ---- modes ----


def test_training_mode_warns_and_names_the_modules():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    state = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match=r"training mode: 1, 2 make its output random"):
        found = ap.Saliency()(model, X)
    assert "call model.eval() first" in found.warnings[0]
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    assert ap.Saliency()(model.eval(), X).warnings == ()


def test_the_random_state_is_put_back():
    model = Functional(lambda x: x * torch.rand(3))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="drew random numbers"):
        found = ap.Saliency()(model, X)
    assert torch.rand(1) == expected
    assert "call model.eval() first" in found.warnings[0]
    with pytest.warns(UserWarning, match="drew random numbers"):
        assert "drew random numbers" in ap.Occlusion()(model, X).warnings[0]


def test_compiled_models_are_explained_through_the_original():
    model, x = small.mlp()
    compiled = torch.compile(model)
    assert torch.equal(ap.Saliency()(compiled, x).values, ap.Saliency()(model, x).values)


def test_output_object_with_logits():
    model, inputs = small.bert()
    found = ap.Saliency()(model, inputs)
    torch.testing.assert_close(found.output, model(**inputs).logits.detach())


AGAIN = [
    ap.Saliency(),
    ap.LRP(),
    ap.SmoothGrad(),
    ap.DeepLIFT(),
    ap.IntegratedHessians(),
    ap.InputXGradient(at="2"),
]


@pytest.mark.filterwarnings("ignore:None of the inputs")  # of the model that is run without gradients
@pytest.mark.parametrize("method", AGAIN, ids=repr)
def test_parts_that_would_be_run_again_in_the_backward_pass_are_kept(method):
    """Then a checkpoint changes nothing, whatever is replaced, written into or looked up inside it."""
    torch.manual_seed(0)

    class Parts(nn.Sequential):
        again = True

        def inside(self, x):
            y = self[1](self[0](x).mean(1))
            y += 1
            return self[3](self[2](y))

        def forward(self, x):
            return checkpoint(self.inside, x, use_reentrant=False) if self.again else self.inside(x)

    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    model = Parts(nn.Embedding(9, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    once = method(model, ids, 1).values
    model.again = False
    assert torch.equal(method(model, ids, 1).values, once)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", [ap.Saliency(), ap.LRP(), ap.SmoothGrad()], ids=repr)
def test_parts_that_are_run_again_unseen_are_refused(method, reentrant):
    head = nn.Linear(3, 2) if reentrant else Cube.apply

    def model(x):
        return checkpoint(
            head, checkpoint(torch.sigmoid, 2 * x, use_reentrant=False), use_reentrant=reentrant
        )

    with pytest.raises(InputError, match=r"the model uses torch\.utils\.checkpoint.*switch it off"):
        method(model, X, 0)
    assert ap.Occlusion()(model, X, 0).values.shape == X.shape


# ---- inner layers ----


def test_layers_by_name():
    model, x = small.cnn()
    found = ap.InputXGradient(at="3.conv1")(model, x, target=1)
    assert found.values.shape == (3, 6, 8, 8)
    both = ap.InputXGradient(at=("0", "3.conv1"))(model, x, target=1)
    assert set(both.values) == {"0", "3.conv1"}
    torch.testing.assert_close(both.values["3.conv1"], found.values)


def test_layer_values_are_those_of_autograd():
    model, x = small.mlp()
    inner = model[:2](x).detach().requires_grad_()
    slope = torch.autograd.grad(model[2:](inner)[:, 1].sum(), inner)[0]
    torch.testing.assert_close(ap.InputXGradient(at="1")(model, x, target=1).values, inner.detach() * slope)


class Recurrent(nn.Module):
    """An LSTM over token ids that has the samples on the first or on the second axis."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 5)
        self.lstm = nn.LSTM(5, 4, batch_first=batch_first)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        time = 1 if self.lstm.batch_first else 0
        states, _ = self.lstm(self.embedding(ids if time else ids.t()))
        return self.head(states.tanh().mean(time))


@pytest.mark.parametrize("at", [None, "lstm"])
@pytest.mark.parametrize(
    "kind",
    [ap.InputXGradient, ap.LRP, ap.SmoothGrad, ap.DeepLIFT, ap.IntegratedGradients, ap.IntegratedHessians],
)
def test_samples_on_another_axis(kind, at):
    for shape in ((1, 6), (3, 3), (2, 4)):
        ids = torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(0))
        first, second = (kind(at=at)(Recurrent(b).double(), ids, 1) for b in (True, False))
        torch.testing.assert_close(second.values, first.values)
        assert second.total is None or torch.allclose(second.remainder, first.remainder)


def test_samples_on_no_axis_are_refused():
    class Flat(Recurrent):
        def forward(self, ids):
            return self.head(self.embedding(ids.t().flatten())[:, :4].view(*ids.t().shape, 4).mean(0))

    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    model = Flat(True)
    assert ap.Saliency()(model, ids).values.shape == (2, 3)
    with pytest.raises(InputError, match=r"an embedding has shape \(6, 5\) for 2 samples; accepted by"):
        ap.IntegratedGradients()(model, ids)
    with pytest.raises(InputError, match=r"layer 'embedding' returns shape \(6, 5\) for 2 samples"):
        ap.InputXGradient(at="embedding")(model, ids)


@pytest.mark.parametrize("at", ["0", ("1", "3")])
def test_layers_that_lead_to_each_other(at):
    twice = nn.Linear(3, 3)
    model = nn.Sequential(twice, nn.Tanh(), twice, nn.Tanh(), nn.Linear(3, 2))
    assert not ap.Saliency(at=at)(model, X).warnings
    for method in (ap.InputXGradient(at=at), ap.LRP(at=at)):
        found = method(model, X)
        assert found.total is None
        assert "is computed from another one" in found.warnings[0]
    for kind in (ap.SmoothGrad, ap.DeepLIFT, ap.IntegratedGradients, ap.IntegratedHessians, ap.InputHessian):
        with pytest.raises(InputError, match=r"layer '(0#2|3)' is computed from another one"):
            kind(at=at)(model, X)


def test_wrong_layers():
    model, x = small.cnn()
    with pytest.raises(InputError, match=r"no layer '3\.conv3'; nearest: 3\.conv[12]"):
        ap.Saliency(at="3.conv3")(model, x)
    with pytest.raises(InputError, match="plain callable without named modules"):
        ap.Saliency(at="conv1")(lambda x: x, X)
    unused = nn.Sequential(nn.Linear(3, 2))
    unused.register_module("other", nn.Identity())
    unused.forward = lambda x: unused[0](x)
    with pytest.raises(InputError, match=r"no layer of \('other',\) was called"):
        ap.Saliency(at="other")(unused, X)


# ---- cost ----


def test_passes_are_counted():
    model, x = small.mlp()
    cost = ap.Saliency()(model, x).cost
    assert (cost.forwards, cost.backwards) == (1, 1)
    cost = ap.IntegratedGradients(nodes=8)(model, x).cost
    assert (cost.forwards, cost.backwards) == (10, 8)


def test_other_leaves_in_the_place_of_the_inputs():
    model, x = small.mlp()
    subject = Gradients(model, x)
    score = subject.forward()
    assert [leaf.shape for leaf in score.leaves] == [x.shape]
    again = subject.forward(leaves=[torch.cat([x, 2 * x])])
    assert again.value.shape == (6,)
    torch.testing.assert_close(again.value[:3], score.value)


class Wrapper:
    """What people write around a model: here, another scale of the inputs."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(10 * x)


@pytest.mark.parametrize("method", [ap.InputXGradient(), ap.Occlusion(), ap.LRP("epsilon")])
def test_a_wrapper_that_holds_a_model_is_what_is_explained(method):
    wrapper = Wrapper(torch.nn.Linear(3, 2, bias=False))
    x = torch.randn(2, 3)
    found = method(wrapper, x, 0)
    torch.testing.assert_close(found.output, wrapper(x).detach())
    torch.testing.assert_close(found.values, 10 * x * wrapper.model.weight[0].detach())


@pytest.mark.parametrize("method", [ap.InputXGradient(), ap.KernelSHAP()])
def test_one_number_a_sample_is_a_feature(method):
    found = method(
        lambda image, age: image.sum(1) + 2 * age, {"image": torch.ones(3, 2), "age": torch.ones(3)}
    )
    assert found.values["age"].shape == (3,)
    torch.testing.assert_close(found.values["age"].float(), torch.full((3,), 2.0))
    assert found.remainder.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("method", "data"),
    [
        (ap.SmoothGrad(), None), (ap.VarGrad(), None), (ap.DeepLIFT(), None), (ap.IntegratedGradients(), None),
        (ap.Taylor(), None), (ap.Taylor(), torch.tensor([-0.5, 0.5])), (ap.IntegratedHessians(), None),
        (ap.InputHessian(), None),
    ],
)  # fmt: skip
def test_one_number_a_sample_is_like_a_row_of_one(method, data):
    x, more = torch.tensor([2.0, 3.0]), {} if data is None else {"data": data}
    found = method(lambda x: torch.stack([x**2 - 1, x], 1), x, 0, **more)
    more = {name: tensor[:, None] for name, tensor in more.items()}
    row = method(lambda x: torch.cat([x**2 - 1, x], 1), x[:, None], 0, **more)
    torch.testing.assert_close(found.values.view(2), row.values.view(2))
    torch.testing.assert_close(found.total, row.total)


@pytest.mark.parametrize(
    "method",
    [
        ap.SmoothGrad(),
        ap.DeepLIFT(),
        ap.IntegratedGradients(),
        ap.Taylor(),
        ap.IntegratedHessians(),
        ap.InputHessian(),
    ],
)
def test_inputs_of_two_number_formats(method):
    def model(x, y):
        return ((x.double() * y.double().sum(1, keepdim=True)) ** 2).sum(1) - 1

    wide = (
        torch.tensor([[1.0, 2.0]], dtype=torch.float64),
        torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64),
    )
    expected = method(model, wide)
    for inputs in ((wide[0], wide[1].float()), (wide[0].float(), wide[1])):
        found = method(model, inputs)
        if isinstance(found.values, tuple):
            assert [v.dtype for v in found.values] == [t.dtype for t in inputs]
        for value, other in zip(tensors_in(found.values), tensors_in(expected.values), strict=True):
            torch.testing.assert_close(value, other, check_dtype=False, rtol=1e-3, atol=1e-5)


def test_floating_point_boxes_are_explained_and_masks_are_not():
    x = {"image": torch.ones(2, 3), "bbox": torch.ones(2, 4), "pixel_mask": torch.ones(2, 3)}
    found = ap.InputXGradient()(lambda image, bbox, pixel_mask: (image * pixel_mask).sum(1) + bbox.sum(1), x)
    assert list(found.values) == ["image", "bbox"]
    assert found.remainder.abs().max() < 1e-6


def test_a_mask_may_be_infinite_and_shared_by_all_samples():
    def model(x, attention_mask, position_ids):
        return ((x @ x.mT + attention_mask).softmax(-1) @ x).sum((1, 2)) + 0 * position_ids.sum(1)

    mask = torch.zeros(1, 4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
    x = {"x": torch.randn(3, 4, 2), "attention_mask": mask, "position_ids": torch.arange(4)[None]}
    for method in (ap.InputXGradient(), ap.Occlusion(), ap.IntegratedGradients()):
        assert method(model, x).values["x"].shape == (3, 4, 2)
    with pytest.raises(InputError, match="input 'x' contains NaN"):
        ap.Saliency()(model, {**x, "x": torch.full((3, 4, 2), torch.nan)})
    with pytest.raises(InputError, match=r"shapes \[\(3, 4, 2\), \(2, 4, 4\)"):
        ap.Saliency()(model, {**x, "attention_mask": mask.repeat(2, 1, 1)})


def test_complex_inputs_are_refused_by_their_type():
    with pytest.raises(InputError, match="the input has type"):
        ap.Saliency()(lambda x: x.abs(), torch.ones(2, 3, dtype=torch.complex64))


# ---- models that differentiate, or map over samples, on their own ----

W = torch.tensor([[0.7, -1.2, 0.4], [-0.3, 0.9, 1.1], [1.3, 0.2, -0.8]])


def energy(z):
    return (z @ W).relu().square().sum()


def force(x):
    """The gradient of an energy, as of atoms in a molecule."""
    with torch.enable_grad():
        place = (x @ W).requires_grad_()
        return x + torch.autograd.grad(energy(place), place, create_graph=True)[0]


def functional_force(x):
    return x + torch.func.grad(energy)(x @ W)


@pytest.mark.parametrize("model", [force, functional_force])
def test_models_that_differentiate_themselves(model):
    found = ap.Saliency()(model, X, 0)
    torch.testing.assert_close(found.values, gradient(lambda x: functional_force(x)[:, 0]).abs())
    torch.testing.assert_close(found.output, model(X).detach())
    assert ap.IntegratedGradients()(model, X, 0).remainder.abs().max() < 0.1


@pytest.mark.parametrize("method", [ap.LRP("epsilon"), ap.DeepLIFT(), ap.GuidedBackprop()], ids=repr)
def test_rules_would_change_the_derivatives_that_a_model_takes(method):
    with pytest.raises(InputError, match="the model differentiates itself"):
        method(force, X, 0)


@pytest.mark.parametrize("method", [ap.LRP("epsilon"), ap.DeepLIFT(), ap.GuidedBackprop()], ids=repr)
def test_functions_under_vmap_cannot_be_replaced_which_is_said(method):
    found = method(torch.func.vmap(lambda row: torch.tanh(W @ row).relu()), X, 0)
    assert any("relu" in warning and "torch.func" in warning for warning in found.warnings)
    weights = torch.stack([W, -W])  # mapped over, with the input as it is
    assert method(lambda x: torch.func.vmap(lambda w: (x @ w).relu())(weights).sum(0), X, 0).warnings


def test_vmap_of_what_does_not_depend_on_the_input_is_nothing_to_tell():
    def model(x):
        mask = torch.func.vmap(lambda i: (i - 1.5).relu() * W[0])(torch.arange(3.0))
        return x @ mask

    assert ap.LRP("epsilon")(model, X, 0).warnings == ()


@pytest.mark.parametrize("method", [*AGAIN[:-1], ap.IntegratedGradients(), ap.LRP(at="0")], ids=repr)
def test_weights_that_were_made_under_inference_mode_are_constants(method):
    torch.manual_seed(0)
    with torch.inference_mode():
        made = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).eval()
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).eval()
    model.load_state_dict(made.state_dict())
    assert torch.equal(method(made, X, 0).values, method(model, X, 0).values)
