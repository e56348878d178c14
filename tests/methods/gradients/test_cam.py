"""Class activation maps against captum, the papers' formulas, and models whose layer is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
import peers
from apportion.errors import InputError
from apportion.methods.gradients.layer_grids import LayerChannels, grid_of


class Net(nn.Module):
    """Convolutions, a residual sum, a ReLU that is used twice, pooling and classes."""

    def __init__(self, dropout: bool = False) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5, inplace=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.stem(x))
        y = self.relu(self.body(y))
        return self.head(self.dropout(self.pool(y).flatten(1)))


def net() -> Net:
    torch.manual_seed(0)
    return Net().double().eval()


def images(size: int = 12) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def parts(model: Net, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Activation and gradient at the last grid, by hand."""
    activation = model.relu(model.body(model.relu(model.stem(x)))).detach().requires_grad_()
    score = model.head(model.pool(activation).flatten(1))[:, target].sum()
    return activation.detach(), torch.autograd.grad(score, activation)[0]


def enlarged(maps: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def test_the_papers_formulas() -> None:
    model, x = net(), images()
    a, g = parts(model, x, 1)
    gradcam = (g.mean((2, 3), keepdim=True) * a).sum(1)
    alpha = g**2 / (2 * g**2 + g**3 * a.sum((2, 3), keepdim=True))
    plus = ((torch.nan_to_num(alpha) * g.relu()).sum((2, 3), keepdim=True) * a).sum(1)
    layer = (g.relu() * a).sum(1)
    for method, coarse in ((ap.GradCAM(), gradcam), (ap.GradCAMPlusPlus(), plus), (ap.LayerCAM(), layer)):
        found = method(model, x, 1)
        assert found.notes == {"layer": "relu", "grid": [6, 6]}
        torch.testing.assert_close(found.values.sum(1), enlarged(coarse.relu(), x), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.values[:, 0], found.values[:, 2])
        assert found.total is None
    signed = ap.GradCAM(relu=False)(model, x, 1)
    torch.testing.assert_close(signed.values.sum(1), enlarged(gradcam, x), rtol=0, atol=1e-12)


def test_agrees_with_captum() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = net(), images()
    theirs = attr.LayerGradCam(model, model.body).attribute(x, target=2, relu_attributions=True)
    ours = ap.GradCAM(layer="body")(model, x, 2)
    torch.testing.assert_close(ours.values.sum(1), enlarged(theirs[:, 0], x).detach(), rtol=0, atol=1e-10)
    guided = ap.GradCAM(layer="body", guided=True)(model, x, 2)
    cam = ours.values.sum(1, keepdim=True)
    torch.testing.assert_close(guided.values, cam * ap.GuidedBackprop()(model, x, 2).values)


@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "LayerCAM"])
def test_agrees_with_pytorch_grad_cam(name: str) -> None:
    try:
        package = peers.grad_cam()
    except ImportError:
        pytest.skip("grad-cam is not installed")
    model, x = net().float(), images().float()
    model.relu.inplace = False  # its hook keeps a reference, which the ReLU would write over
    model.head.weight.data *= 1000  # it adds 1e-6 to the squares of the gradients
    targets = [package.utils.model_targets.ClassifierOutputTarget(2)] * len(x)
    with getattr(package, name)(model, [model.body]) as cam:
        theirs = torch.as_tensor(cam(x, targets))  # each map scaled to [0, 1]
    ours = getattr(ap, name)(layer="body")(model, x, 2).values.sum(1)
    low, high = (f(ours, dim=(1, 2), keepdim=True) for f in (torch.amin, torch.amax))
    torch.testing.assert_close((ours - low) / (high - low), theirs, rtol=0, atol=1e-5)


def test_a_layer_that_is_called_twice_is_taken_at_its_last_call() -> None:
    model, x = net(), images()
    named, found = ap.GradCAM(layer="relu")(model, x, 0), ap.GradCAM()(model, x, 0)
    torch.testing.assert_close(named.values, found.values)
    assert named.notes["grid"] == [6, 6]


def test_the_backward_pass_ends_at_the_layer() -> None:
    model, x = net(), images()
    model.requires_grad_(False)
    passed = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            passed.append(1)
            return gradient

    model.stem.register_forward_hook(lambda module, given, output: Watch.apply(output))
    for method in (ap.GradCAM(), ap.GradCAM(layer="body")):
        found = method(model, x, 0)
        assert (found.cost.forwards, found.cost.backwards) == (1, 1)
    assert passed == []
    assert len(model.stem._forward_hooks) == 1
    assert all(not m._forward_hooks for name, m in model.named_modules() if name != "stem")


def test_what_comes_before_a_named_layer_leaves_the_model_untouched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), net().double())
    model[3].stem = nn.Conv2d(4, 6, 3, padding=1)
    model, x = model.double(), images()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match="training mode"):
        ap.GradCAM(layer="3.body")(model, x, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_writes_into_its_inputs_does_not_write_into_the_users() -> None:
    class Centred(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(x.mean()))

    torch.manual_seed(0)
    model, x = Centred().double().eval(), images()
    before = x.clone()
    for method in (ap.GradCAM(), ap.GradCAM(layer="relu")):
        torch.testing.assert_close(method(model, x, 1).values, ap.GradCAM()(net(), x - x.mean(), 1).values)
        assert torch.equal(x, before)


def test_contrast_and_an_inner_grid_of_another_shape() -> None:
    model, x = net(), torch.randn(1, 3, 8, 16, dtype=torch.float64)
    found = ap.GradCAM(relu=False)(model, x, ap.Contrast(0, 1))
    parts_ = [ap.GradCAM(relu=False)(model, x, c).values for c in (0, 1)]
    torch.testing.assert_close(found.values, parts_[0] - parts_[1])
    assert found.notes["grid"] == [4, 8]


def test_the_last_grid_where_the_last_convolution_has_none() -> None:
    class Squeezed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.body(self.relu(self.stem(x))))
            return self.head(self.last(self.pool(y)).flatten(1))

    model, x = Squeezed().double().eval(), images()
    found, named = ap.GradCAM()(model, x, 2), ap.GradCAM(layer="relu")(model, x, 2)
    assert found.notes == {"layer": "relu", "grid": [6, 6]}
    torch.testing.assert_close(found.values, named.values)
    assert (found.cost.forwards, named.cost.forwards) == (2, 1)


def test_the_last_grid_of_layers_that_run_without_gradients() -> None:
    class Frozen(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.relu(self.body(self.relu(self.stem(x))))
            return self.head(self.pool(y).flatten(1))

    model, x = net(), images()
    frozen = Frozen().double().eval()
    frozen.load_state_dict(model.state_dict())
    torch.testing.assert_close(ap.GradCAM()(frozen, x, 2).values, ap.GradCAM()(model, x, 2).values)


def test_series_and_volumes() -> None:
    torch.manual_seed(0)
    series = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert ap.GradCAM()(series, torch.randn(2, 2, 20)).values.shape == (2, 2, 20)
    volume = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    found = ap.LayerCAM()(volume, torch.randn(1, 1, 6, 7, 8))
    assert found.notes == {"layer": "1", "grid": [4, 5, 6]}


def test_the_token_grid_of_a_vision_transformer() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(2, 3, 32, 32)
    found = ap.GradCAM()(model, x, 1)
    assert found.notes["grid"] == [4, 4]
    assert "layernorm_before" in found.notes["layer"]  # the last that the class token reads
    named = ap.GradCAM(layer=found.notes["layer"])(model, x, 1)
    torch.testing.assert_close(found.values, named.values)
    assert found.values.abs().max() > 0
    assert (found.cost.forwards, found.cost.backwards) == (1, 2)
    by_name = ap.GradCAM()(model, {"pixel_values": x}, 1)
    torch.testing.assert_close(by_name.values["pixel_values"], found.values)


def test_grids() -> None:
    assert grid_of(torch.zeros(1, 50, 8), 1, (224, 224)).prefix == 1
    assert grid_of(torch.zeros(1, 32, 8), 1, (64, 128)).sides == (4, 8)
    assert grid_of(torch.zeros(2, 8, 1, 1), 2, (224, 224)) is None
    assert grid_of(torch.zeros(1, 8, 300, 300), 1, (224, 224)) is None
    assert grid_of(torch.zeros(3, 8, 7, 7), 2, (224, 224)) is None
    assert grid_of(torch.zeros(1, 7, 7, 96), 1, (224, 224)) is None
    assert grid_of(torch.zeros(1, 7, 7, 96), 1, (224, 224), LayerChannels(96, last=False)).sides == (7, 7)


def test_bad_input() -> None:
    model, x = net(), images()
    with pytest.raises(InputError, match="no layer 'bodi'; nearest: body"):
        ap.GradCAM(layer="bodi")(model, x)
    with pytest.raises(InputError, match="layer is 3; accepted: the name of a module"):
        ap.GradCAM(layer=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no grid of places"):
        ap.GradCAM(layer="head")(model, x)
    with pytest.raises(InputError, match="no grid of places"):
        ap.GradCAM(layer="pool")(model, x)
    with pytest.raises(InputError, match=r"GradCAM explains pictures.*\(1, 3\) float32"):
        ap.GradCAM()(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(InputError, match="no layer of the model keeps a grid"):
        ap.GradCAM()(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).double(), x)
    with pytest.raises(InputError, match="exported or scripted does not call its layers"):
        ap.GradCAM()(torch.export.export(model, (x,)).module(), x)
    with pytest.raises(InputError, match="plain callable"):
        ap.GradCAM()(lambda z: z.flatten(1)[:, :3], x)


class Weighing(nn.Module):
    """One head of attention whose weights come out of a module."""

    def __init__(self):
        super().__init__()
        self.mixed, self.attend = nn.Linear(16, 48), nn.Softmax(-1)

    def forward(self, x):
        query, key, value = self.mixed(x).chunk(3, -1)
        return self.attend(query @ key.transpose(1, 2) / 4) @ value


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.start = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.first, self.second, self.head = Weighing(), Weighing(), nn.Linear(16, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.start.expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + self.first(tokens)
        return self.head((tokens + self.second(tokens))[:, 0])


@pytest.mark.parametrize(
    ("model", "side", "layer", "grid"),
    [
        (Patches, 48, "first", [6, 6]),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 64, 8, 8), nn.Flatten(2), nn.AvgPool1d(64), nn.Flatten()),
            64,
            "0",
            [8, 8],
        ),
    ],
)
def test_what_only_looks_like_a_grid_is_none(model, side, layer, grid):
    torch.manual_seed(0)
    found = ap.GradCAM()(model(), torch.randn(1, 3, side, side), 0)
    assert found.notes["layer"] == layer
    assert list(found.notes["grid"]) == grid


class ChannelsLast(nn.Module):
    """A convolution, then layers that have the channels last, as those of Swin or of recurrent networks."""

    def __init__(self, convolution, channels, *layers):
        super().__init__()
        self.patches, self.inner = convolution, nn.Sequential(*layers)
        self.head = nn.Linear(channels, 3)

    def forward(self, x):
        y = self.inner(self.patches(x).movedim(1, -1))
        y = y[0] if isinstance(y, tuple) else y
        return self.head(y.flatten(1, -2).mean(1))


@pytest.mark.parametrize("many", [16, 24, 48])
@pytest.mark.parametrize(
    ("sides", "layers"),
    [
        ((64, 64), lambda many: (nn.LayerNorm(many), nn.Linear(many, many), nn.ReLU())),
        ((32, 64), lambda many: (nn.LayerNorm(many),)),
        ((64,), lambda many: (nn.LSTM(many, many // 2, batch_first=True, bidirectional=True),)),
        ((64,), lambda many: (nn.TransformerEncoderLayer(many, 2, 96, batch_first=True), nn.Dropout())),
        ((16, 16, 16), lambda many: (nn.Linear(many, many),)),
    ],
)
def test_channels_that_are_last(many, sides, layers):
    torch.manual_seed(0)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(sides) - 1](3, many, 4, 4)
    model = ChannelsLast(convolution, many, *layers(many)).double().eval()
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    found = ap.GradCAM(relu=False)(model, x, 1)
    assert found.notes["grid"] == [side // 4 for side in sides]
    activation = model.inner(model.patches(x).movedim(1, -1))
    activation = (activation[0] if isinstance(activation, tuple) else activation).detach().requires_grad_()
    model.head(activation.flatten(1, -2).mean(1))[:, 1].sum().backward()
    weights = activation.grad.flatten(1, -2).mean(1)
    coarse = torch.einsum("bk,b...k->b...", weights, activation.detach())
    assert found.notes["layer"].split(".")[0] == "inner"
    mode = ("linear", "bilinear", "trilinear")[len(sides) - 1]
    expected = F.interpolate(coarse[:, None], sides, mode=mode, align_corners=False)[:, 0]
    torch.testing.assert_close(found.values.sum(1), expected)
    named = ap.GradCAM(layer=found.notes["layer"], relu=False)(model, x, 1)
    torch.testing.assert_close(named.values, found.values)


def test_channels_that_are_first_again() -> None:
    """A block of ConvNeXt: its layers have the channels last, its output has them first."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.norm = nn.Conv1d(8, 8, 3, padding=1), nn.LayerNorm(8)
            self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)

        def forward(self, x):
            y = self.norm(self.mix(x).transpose(1, 2))
            return x + self.narrow(self.wide(y).relu()).transpose(1, 2)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 8, 4, 4), Block(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    for layer in (None, "1"):
        found = ap.GradCAM(layer=layer)(model, torch.randn(1, 2, 64), 0)
        assert found.notes == {"layer": "1", "grid": [16]}


def test_the_tokens_of_a_volume() -> None:
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm = nn.Conv3d(1, 6, 4, 4), nn.LayerNorm(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.norm(torch.cat([tokens[:, :1], tokens], 1)).mean(1))

    found = ap.GradCAM()(Tokens(), torch.randn(1, 1, 8, 12, 16), 0)
    assert found.notes == {"layer": "norm", "grid": [2, 3, 4]}


class Pair(nn.Module):
    """The similarity of a picture to a second one that is fixed, in either order."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        )
        self.first = first
        self.other = torch.randn(1, 3, 12, 12).double()

    def embedded(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x, self.other.expand(len(x), -1, -1, -1)]
        both = [self.embedded(part) for part in (parts if self.first else parts[::-1])]
        return F.cosine_similarity(*both)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("layer", [None, "body.2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_only_calls_that_depend_on_the_picture_are_taken(
    first: bool, layer: str | None, frozen: bool
) -> None:
    model, x = Pair(first).double().eval(), images()
    if frozen:  # a stem without gradients leads on from the picture all the same
        stem = model.body[0].forward
        model.body[0].forward = torch.no_grad()(stem)
    activation = model.body(x).detach().requires_grad_()
    fixed = model.embedded(model.other).detach().expand(2, -1)
    score = F.cosine_similarity(activation.mean((2, 3)), fixed).sum()
    (gradient,) = torch.autograd.grad(score, activation)
    coarse = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True)
    expected = F.interpolate(coarse.detach(), (12, 12), mode="bilinear")[:, 0]
    found = ap.GradCAM(layer=layer, relu=False)(model, x)
    torch.testing.assert_close(found.values.sum(1), expected)
    assert found.warnings == ()


def test_a_layer_that_does_not_depend_on_the_picture_is_refused() -> None:
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.see = nn.Conv2d(3, 4, 3, padding=1)
            self.read = nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, picture, words):
            grid = words.view(-1, 2, 6, 1).expand(-1, -1, -1, 6)  # of the shape of a picture's
            return (self.see(picture).mean((2, 3)) * self.read(grid).mean((2, 3))).sum(1)

    torch.manual_seed(0)
    model, inputs = Towers().double(), (images(), torch.randn(2, 12).double())
    assert ap.GradCAM()(model, inputs).notes["layer"] == "see"
    with pytest.raises(InputError, match="does not depend on the picture"):
        ap.GradCAM(layer="read")(model, inputs)


def test_a_lost_way_from_the_picture_is_told() -> None:
    @torch.jit.script
    def unseen(x: Tensor) -> Tensor:
        return x * 2.0

    model = net()
    whole = model.forward
    model.forward = lambda x: whole(unseen(x))  # type: ignore[method-assign]
    found = ap.GradCAM()(model, images(), 0)
    torch.testing.assert_close(found.values, ap.GradCAM()(net(), 2 * images(), 0).values)
    assert "cannot be seen" in found.warnings[0]


def test_a_map_of_zeros_is_told() -> None:
    model = net()
    model.head.weight.data.abs_().neg_()
    found = ap.GradCAM()(model, images(), 0)
    assert not found.values.any()
    assert "zero everywhere" in found.warnings[0]
    assert ap.GradCAM(relu=False)(model, images(), 0).warnings == ()
