"""The parts of ProtoPNet, each beside the formula written out slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from apportion import LRP
from apportion.core.target import Contrast
from apportion.errors import InputError
from apportion.models.prototypes import _fast as fast
from apportion.models.prototypes import _last_layer as last_layer
from apportion.models.prototypes import _training as training
from apportion.models.prototypes._backbone_features import Grids
from apportion.models.prototypes._images import images_of
from apportion.models.prototypes._network import (
    Backbone,
    LinearInPatches,
    PrototypeNet,
    add_on_layers,
    standardise,
)
from apportion.models.prototypes._push import (
    duplicates,
    find_nearest,
    merge_duplicates,
    own_neighbours,
    worth_keeping,
)
from apportion.models.prototypes._reasons import boxes
from apportion.models.prototypes.methods import PrototypeLRP, Prototypes, Upsampled, enlarge
from apportion.models.prototypes.quality import inside, purity, stability
from apportion.models.prototypes.settings import Fast, LastLayer, Paper, Pruning
from apportion.results.explanation import Explanation

KINDS = ("log", "cosine")


def net(kind: str = "log", bias: bool = True, prototypes: int = 6, classes: int = 3) -> PrototypeNet:
    """Random weights, over images (batch, 1, 9, 9) and a grid of 4 x 4 places."""
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2, bias=bias), nn.ReLU())
    add_on = add_on_layers(5, 4) if kind == "log" else nn.Identity()
    vectors = torch.rand(prototypes, 4 if kind == "log" else 5)
    class_of = torch.arange(classes).repeat_interleave(prototypes // classes)
    made = PrototypeNet(backbone, add_on, vectors, class_of, classes, kind)  # type: ignore[arg-type]
    return made.eval().requires_grad_(False)


def images(many: int = 7) -> Tensor:
    return torch.rand(many, 1, 9, 9, generator=torch.Generator().manual_seed(0))


def batches(patches: Tensor, size: int):
    numbers = torch.arange(len(patches))
    return ((rows, patches[rows]) for rows in numbers.split(size))


# ---- the network ----


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_paper_written_out(kind: str):
    model, x = net(kind), images(2)
    patches, found = model.features(x), model(x)
    for image in range(2):
        similar = []
        for p in model.prototypes:
            best = -math.inf
            for row in range(4):
                for column in range(4):
                    z = patches[image, :, row, column]
                    d = float(((z - p) ** 2).sum())
                    log = math.log((d + 1) / (d + 1e-4))
                    cosine = float(z @ p / z.norm() / p.norm())
                    best = max(best, log if kind == "log" else cosine)
            similar.append(best)
        for label in range(3):
            weights = [1.0 if int(own) == label else -0.5 for own in model.class_of]
            score = sum(w * s for w, s in zip(weights, similar, strict=True))
            assert float(found[image, label]) == pytest.approx(score, abs=1e-4)


def test_the_costs_are_those_of_the_authors():
    """Their form: `max_dist − max((max_dist − d) · mask)`, with the mask of the own class and its complement."""
    model, labels = net(), torch.tensor([0, 2, 1, 1])
    patches = model.features(images(4))
    costs, scores = training._costs(model, patches, labels, Paper())
    d = model.distances(patches).flatten(2).amin(2)
    most = 4.0
    mask = (labels[:, None] == model.class_of).float()
    cluster = (most - ((most - d) * mask).amax(1)).mean()
    separation = (most - ((most - d) * (1 - mask)).amax(1)).mean()
    entropy = nn.functional.cross_entropy(scores, labels)
    torch.testing.assert_close(costs[0], entropy + 0.8 * cluster - 0.08 * separation)
    torch.testing.assert_close(scores, model.last(model.similarities(patches).amax((2, 3))))


def test_the_paper_s_values_are_the_defaults():
    paper = Paper()
    assert (paper.width, paper.batch, paper.warm_epochs) == (128, 80, 5)
    assert (paper.rate, paper.backbone_rate, paper.weight_decay) == (3e-3, 1e-4, 1e-3)
    assert (paper.cluster, paper.separation, paper.last.l1, paper.last.ridge) == (0.8, 0.08, 1e-4, 0)
    assert [epoch for epoch in range(1, 21) if paper.pushes_after(epoch)] == [10, 20]
    assert [Paper(epochs=7).pushes_after(epoch) for epoch in (6, 7)] == [False, True]
    assert (paper.passes, paper.hidden, paper.standardise) == (1, 0, False)
    assert eval(repr(paper)) == paper


def test_add_on_layers_start_on_standardised_channels():
    """The same as standardising first, for a layer whose weights are √(width / channels) as large."""
    torch.manual_seed(0)
    x = torch.rand(50, 6, 3, 3) * torch.tensor([1, 10, 100, 0.1, 1, 0])[:, None, None] + 5
    mean, deviation = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)
    plain, made = add_on_layers(6, 4), add_on_layers(6, 4)
    made.load_state_dict(plain.state_dict())
    standardise(made, mean, deviation)
    scaled = (x - mean[:, None, None]) / deviation.clamp(min=1e-9)[:, None, None]
    expected = nn.functional.conv2d(scaled[:, :5], plain[0].weight[:, :5] * (4 / 6) ** 0.5)
    torch.testing.assert_close(made[0](x), expected, atol=1e-3, rtol=1e-3)
    grids = Grids(images_of(torch.zeros(50, 1, 2, 2), [0, 1] * 25, None), nn.Identity(), x)
    torch.testing.assert_close(
        torch.stack(training._moments(grids)), torch.stack([mean, deviation]), atol=1e-4, rtol=1e-5
    )


def test_hidden_places_are_another_half_in_each_image():
    x = torch.arange(9.0).reshape(1, 1, 3, 3).expand(40, 2, 3, 3)
    seen = training.some_places(x, 0.5)
    assert seen.shape == (40, 2, 4, 1)
    assert all(len(set(row.tolist())) == 4 for row in seen[:, 0, :, 0])
    assert len({tuple(sorted(row.tolist())) for row in seen[:, 0, :, 0]}) > 20
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert training.some_places(x, 0.99).shape == (40, 2, 1, 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Paper(epochs=0), "epochs is 0; accepted: a whole number of at least 1"),
        (lambda: Paper(rate=-1.0), "rate is -1.0"),
        (lambda: Paper(batch=2.5), "batch is 2.5"),  # type: ignore[arg-type]
        (lambda: Fast(patches=float("nan")), "patches is nan"),  # type: ignore[arg-type]
        (lambda: Pruning(nearest=2, own=3), "own is 3, more than nearest=2"),
        (lambda: LastLayer(l1=True), "l1 is True"),
        (lambda: Paper(hidden=1.0), "hidden is 1.0; accepted: a share from 0 to below 1"),
        (lambda: Paper(standardise=2), "standardise is 2; accepted: True or False"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_make_no_sense_are_refused(make, said: str):
    with pytest.raises(InputError, match=said):
        make()


def test_the_backbone_finds_its_grid():
    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)[:, : 1 + 16].contiguous()  # a class token and 4 x 4

    x = torch.rand(2, 3, 12, 12)
    assert Backbone(Tokens(), x)(x).shape == (2, 3, 4, 4)
    classifier = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert Backbone(classifier, x).layer == "1"
    assert Backbone(classifier, x, "0")(x).min() < 0
    with pytest.raises(InputError, match=r"grid of 1 × 1 for images of 12 × 12.*layer="):
        Backbone(nn.Sequential(nn.Conv2d(3, 4, 12)), x)
    with pytest.raises(InputError, match="no layer of the backbone gives a grid"):
        Backbone(nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), x)
    with pytest.raises(InputError, match="no layer 'conv'; nearest"):
        Backbone(classifier, x, "conv")


# ---- the last layer ----


@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1e-2]), st.sampled_from([0.0, 1e-2]))
@settings(max_examples=6, deadline=None)
def test_the_last_layer_is_where_no_step_helps(seed: int, l1: float, ridge: float):
    """The conditions of Karush, Kuhn and Tucker, in double precision."""
    random = torch.Generator().manual_seed(seed)
    s = torch.rand(60, 6, generator=random, dtype=torch.double)
    labels = torch.randint(3, (60,), generator=random)
    own = torch.arange(3)[:, None] == torch.arange(6) // 2
    start = torch.where(own, 1.0, -0.5)
    weight, iterations = last_layer.solve(s, labels, own, start, LastLayer(l1, ridge, 1e-8, 50_000))
    assert iterations < 50_000
    w = weight.clone().requires_grad_()
    loss = nn.functional.cross_entropy(s @ w.t(), labels) + ridge / 2 * w.square().sum()
    (slope,) = torch.autograd.grad(loss, w)
    assert slope[own].abs().max() < 1e-6
    free = ~own & (weight != 0)
    assert (slope[free] + l1 * weight[free].sign()).abs().max() < 1e-6 if free.any() else True
    assert slope[~own & (weight == 0)].abs().max() < l1 + 1e-6 if (~own & (weight == 0)).any() else True


# ---- push, pruning, duplicates ----


@given(st.integers(1, 9), st.sampled_from(KINDS))
@settings(max_examples=12, deadline=None)
def test_the_nearest_patches_are_those_of_a_search_through_all(size: int, kind: str):
    model, labels = net(kind), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    patches = model.features(images())
    table = torch.empty(7, 6)
    found = find_nearest(model, batches(patches, size), 2, labels, table)
    maps = model.similarities(patches)
    torch.testing.assert_close(table, maps.amax((2, 3)))
    for j, label in enumerate(model.class_of.tolist()):
        best = sorted(
            ((float(maps[i, j].max()), i, int(maps[i, j].argmax())) for i in range(7) if labels[i] == label),
            reverse=True,
        )[:2]
        assert found.image[j].tolist() == [i for _, i, _ in best]
        assert found.place[j].tolist() == [place for _, _, place in best]
        _, i, place = best[0]
        assert torch.equal(found.vector[j], patches[i, :, place // 4, place % 4])


def test_fewer_images_than_asked_for():
    model, patches = net(), net().features(images(2))
    found = find_nearest(model, batches(patches, 1), 5)
    assert found.image.shape == (6, 2)
    assert own_neighbours(model, found, torch.tensor([0, 1])).tolist() == [1, 1, 1, 1, 0, 0]


def test_merging_duplicates_changes_no_score():
    model = net()
    with torch.no_grad():
        model.prototypes[1] = model.prototypes[0]
        model.last.weight.copy_(torch.randn(3, 6))
    before = model(images())
    first = duplicates(model.class_of, torch.tensor([3, 3, 3, 4, 5, 6]), torch.tensor([9, 9, 9, 9, 9, 9]))
    assert first.tolist() == [0, 0, 2, 3, 4, 5]
    model.keep(merge_duplicates(model, first))
    assert len(model.prototypes) == 5
    torch.testing.assert_close(model(images()), before)


def test_pruning_leaves_every_class_a_prototype():
    own = torch.tensor([3, 2, 1, 0, 2, 6])
    assert worth_keeping(torch.tensor([0, 0, 1, 1, 2, 2]), own, Pruning()).tolist() == [0, 2, 5]


# ---- the fast recipe ----


def test_every_medoid_is_the_best_of_its_cluster():
    points = torch.randn(80, 4)
    medoids = fast.k_medoids(points, 5, 100, torch.Generator().manual_seed(0))
    cosine = nn.functional.cosine_similarity(points[:, None], points[None], dim=2)
    cluster = cosine[:, medoids].argmax(1)
    for number, medoid in enumerate(medoids.tolist()):
        members = (cluster == number).nonzero().flatten()
        sums = cosine[members][:, members].sum(1)
        assert sums[(members == medoid).nonzero().item()] == pytest.approx(float(sums.max()), abs=1e-5)


def test_medoids_of_equal_points_are_different_points():
    medoids = fast.k_medoids(torch.ones(6, 3), 6, 10, torch.Generator().manual_seed(0))
    assert sorted(medoids.tolist()) == list(range(6))


# ---- explanations ----


@pytest.mark.parametrize("kind", KINDS)
def test_prototypes_add_up_to_the_score(kind: str):
    model, x = net(kind), images(3)
    e = Prototypes()(model, x, target=[0, 1, 2])
    assert e.remainder.abs().max() < 1e-5
    similar = model.similarities(model.features(x)).amax((2, 3))
    torch.testing.assert_close(e.values, similar * model.last.weight[torch.arange(3)])
    rather = Prototypes()(model, x, Contrast(0, 1))
    torch.testing.assert_close(rather.values, similar * (model.last.weight[0] - model.last.weight[1]))
    with pytest.raises(InputError, match="Linear, which has no prototypes"):
        Prototypes()(nn.Linear(2, 2), x)


@pytest.mark.parametrize("kind", KINDS)
def test_upsampled_maps_are_those_enlarged_one_by_one(kind: str):
    model, x = net(kind), images(2)
    e = Upsampled()(model, x, target=1)
    assert e.values.shape == x.shape
    assert e.remainder.abs().max() < 1e-4
    maps = model.similarities(model.features(x))
    fine = enlarge(maps - maps.amin((2, 3), keepdim=True), (9, 9))
    shares = Prototypes()(model, x, target=1).values
    slow = (shares[:, :, None, None] * fine / fine.sum((2, 3), keepdim=True)).sum(1, keepdim=True)
    torch.testing.assert_close(e.values, slow, atol=1e-4, rtol=1e-4)
    one = Upsampled(prototype=2)(model, x)
    torch.testing.assert_close(one.total, maps.amax((2, 3))[:, 2])
    assert one.remainder.abs().max() < 1e-4
    with pytest.raises(InputError, match="prototype is 6; accepted: 0 to 5"):
        Upsampled(prototype=6)(model, x)


def test_a_flat_map_is_spread_evenly():
    model = PrototypeNet(nn.Identity(), nn.Identity(), torch.eye(2), torch.tensor([0, 1]), 2)
    e = Upsampled()(model, torch.ones(1, 2, 3, 3))
    torch.testing.assert_close(e.values, e.total.view(1, 1, 1, 1).expand(1, 2, 3, 3) / 18)


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_passes_relevance_to_channels_by_its_inner_product(kind: str):
    model, x = net(kind), images(3)
    torch.testing.assert_close(LinearInPatches(model)(x), model(x))
    z = model.features(x)
    head = PrototypeNet(nn.Identity(), nn.Identity(), model.prototypes, model.class_of, 3, kind)  # type: ignore[arg-type]
    e = LRP("epsilon")(LinearInPatches(head, similarities=True).eval(), z, target=4)
    place = model.similarities(z)[:, 4].flatten(1).argmax(1)
    best = z.flatten(2)[torch.arange(3), :, place]
    share = best * model.prototypes[4]
    expected = share / share.sum(1, keepdim=True) * e.total[:, None]
    torch.testing.assert_close(e.values.flatten(2)[torch.arange(3), :, place], expected, atol=1e-4, rtol=1e-4)
    assert e.remainder.abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_what_lrp_leaves_out_is_in_the_ledger(kind: str):
    e = PrototypeLRP("epsilon", ledger=True)(net(kind), images(2), target=1)
    assert float(e.remainder.sum()) == pytest.approx(sum(e.ledger.absorbed.values()), abs=1e-3)
    assert not any("no rule" in told for told in e.warnings)
    alone = PrototypeLRP("epsilon", prototype=3)(net(kind), images(2))
    torch.testing.assert_close(
        alone.total, net(kind).similarities(net(kind).features(images(2))).amax((2, 3))[:, 3]
    )


def test_without_biases_lrp_keeps_everything():
    e = PrototypeLRP("epsilon")(net("cosine", bias=False), images(2), target=0)
    assert e.remainder.abs().max() < 1e-3


def test_explanations_come_back_from_their_file(tmp_path):
    for method in (Prototypes(), Upsampled(prototype=1), PrototypeLRP("epsilon")):
        e = method(net(), images(2))
        assert Explanation.load(e.save(tmp_path / "e.safetensors")) == e


def test_boxes_are_those_of_the_authors():
    maps = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(3))
    for box, fine in zip(boxes(maps, (20, 30)), enlarge(maps[:, None], (20, 30))[:, 0].numpy(), strict=True):
        rows, columns = np.nonzero(fine >= np.percentile(fine.astype(np.float64), 95) - 1e-7)
        assert box == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


def test_a_frame_hides_nothing_but_the_edge_of_the_box():
    from apportion.display.pictures.panels import draw_frame
    from apportion.display.views import FOR

    picture = np.full((200, 300, 3), 9, dtype=np.uint8)
    shown = draw_frame(picture, (20, 60, 40, 100))
    column = [9, 255, *[FOR[0]] * 3, 9]
    assert shown[19:25, 70, 0].tolist() == column
    assert (shown != 9).any(2).sum() == 40 * 60 - 32 * 52
    tiny = draw_frame(picture[:8, :8], (0, 1, 0, 1))
    assert tuple(tiny[0, 0].tolist()) == FOR
    assert (tiny.reshape(-1, 3)[1:] == 9).all()


# ---- quality ----


def test_purity_place_and_stability():
    model, x = net(), images()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found = find_nearest(model, batches(model.features(x), 3), 4)
    by_hand = [float((labels[found.image[j]] == model.class_of[j]).double().mean()) for j in range(6)]
    assert purity(model, found, labels).tolist() == pytest.approx(by_hand)
    assert inside([(0, 10, 0, 10)], [(5, 20, 0, 10)]).tolist() == [0.5]
    data = images_of(x, labels, None)
    assert stability(model, data, noise=0.0).tolist() == [1.0] * 7
    assert stability(model, data, noise=30.0).mean() < 1
    with pytest.raises(InputError, match="noise is -1"):
        stability(model, data, noise=-1)
