"""What people do with a run: clusters that show a planted mark, summaries, drift; and the pages."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import apportion as ap
from apportion import Classifier, InputError
from apportion.bulk.clustering import cluster
from apportion.bulk.drift import drift
from apportion.bulk.pages import clusters_page, summary_page
from apportion.bulk.summaries import summarise
from apportion.cli.app import app
from apportion.domains.image import ImagePreparation
from surfaces import data_of

pytest.importorskip("pyarrow")

LABELS = ("<temple>", "<flower>")


@pytest.fixture(scope="module")
def watermarked(tmp_path_factory):
    """Pieces of two photos, a temple and a flower, as PNG in a folder; half of those of the flower have a mark in
    the corner. And a classifier that was trained on them."""
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("pieces")
    random = np.random.default_rng(0)
    pieces, labels = [], []
    for label, photo in enumerate(load_sample_images().images):
        grey = photo.mean(2).astype(np.uint8)
        places = random.integers(0, np.array(grey.shape) - 32, (1000, 2))
        windows = [grey[top : top + 32, left : left + 32].copy() for top, left in places]
        textured = [piece for piece in windows if piece.std() > 30][:120]
        for i, piece in enumerate(textured):
            marked = label == 1 and i % 2 == 0
            if marked:
                piece[26:31, 1:10] = 255 * (np.indices((5, 9)).sum(0) % 2)
            Image.fromarray(piece).save(folder / f"{label}_{i:03}{'_mark' if marked else ''}.png")
            pieces.append(piece)
            labels.append(label)
    prepare = ImagePreparation(resize=None, crop=None, accept=(32, 32), mean=(0.5,), std=(0.5,))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    x, y = torch.tensor(np.stack(pieces))[:, None] / 127.5 - 1, torch.tensor(labels)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return folder, Classifier(model.eval().requires_grad_(False), prepare, LABELS, "image", "pieces")


@pytest.fixture(scope="module")
def run(watermarked, tmp_path_factory):
    folder, classifier = watermarked
    return ap.explain_dataset(
        classifier, folder, "lrp", tmp_path_factory.mktemp("run"), batch=64, progress=False
    )


class Simulated:
    """A run of maps with an object somewhere and noise; half of the first class's have a mark besides."""

    folder = "simulated"

    def __init__(self, seed, strength, classes=5, many=40, size=32):
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:size, :size]
        self.maps, self.labels = [], []
        for place in range(classes * many):
            (cy, cx), width = random.uniform(6, 26, 2), random.uniform(3, 6)
            made = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)) + 0.15 * random.normal(
                size=(size, size)
            )
            made[26:31, 1:9] += strength * (place < many // 2)
            self.maps.append(torch.tensor(made, dtype=torch.float32))
            self.labels.append(f"class {place // many}")

    def rows(self):
        return [{"target": 0, "target_label": label} for label in self.labels]

    def map(self, place):
        return self.maps[place]


def test_the_class_with_a_mark_comes_first_whatever_the_sizes_of_clusters():
    """The mark has about 63 % of a map's squared norm."""
    runs = [cluster(Simulated(seed, strength=2.0)) for seed in range(8)]
    assert sum(found[0].label == "class 0" for found in runs) >= 7


def test_suspicion_has_no_floor_for_small_clusters():
    """Its mean cosine, pair by pair; and groups that were cut from one are joined again."""
    run = Simulated(0, strength=3.0, classes=1)
    (found,) = cluster(run, side=32)
    for one in found.clusters:
        flat = torch.stack([run.map(i).flatten().double() for i in one.members])
        flat = flat / flat.norm(dim=1, keepdim=True)
        many = len(flat)
        pairs = (flat @ flat.T)[torch.triu_indices(many, many, 1).unbind()]
        assert one.suspicion == pytest.approx(many / (many + 8) * pairs.mean().item())
    assert sum(1 for one in found.clusters if min(one.members) < 20) < 3
    noise = Simulated(0, strength=0.0, classes=1)
    noise.maps = [torch.from_numpy(np.random.default_rng(i).normal(size=(16, 16))) for i in range(40)]
    (found,) = cluster(noise, clusters=8)
    assert all(abs(one.suspicion) < 0.08 for one in found.clusters)


def test_a_planted_mark_is_the_most_suspicious_cluster(run):
    found = cluster(run)
    assert [one.label for one in found] == ["<flower>", "<temple>"]
    first = found[0].clusters[0]
    assert first.suspicion > 0.4
    assert found[1].clusters[0].suspicion < 0.2 < first.suspicion
    suspects = [run[place]["id"] for place in first.members]
    assert len(suspects) > 30
    marked = [run[place]["id"] for place in range(len(run)) if "_mark" in run[place]["id"]]
    assert set(marked) <= set(suspects)
    assert len(marked) > 0.85 * len(suspects)
    mean = np.abs(first.mean)
    assert mean[12:, :6].sum() > 0.6 * mean.sum()


def test_the_graph_falls_apart_into_what_is_apart():
    from apportion.bulk.clustering import _spectrum

    torch.manual_seed(0)
    blobs = torch.cat([torch.randn(40, 5) * 0.05 + torch.eye(5)[i] for i in range(3)]).double().numpy()
    values, _ = _spectrum(blobs)
    assert np.allclose(values[:3], 0, atol=1e-10)
    assert values[3] > 1e-3


def test_classes_are_chosen_by_name_or_number_and_must_be_there(run, tmp_path):
    assert [c.label for c in cluster(run, classes=["<flower>"], clusters=2)] == ["<flower>"]
    assert len(cluster(run, classes=["1"], clusters=4)[0].clusters) == 4
    with pytest.raises(InputError, match="no map of cat"):
        cluster(run, classes=["cat"])
    with pytest.raises(
        InputError, match=r"has 5000 maps: the largest has \d+; accepted: least from 4 to \d+$"
    ):
        cluster(run, least=5000)
    with pytest.raises(InputError, match="least is 3; accepted: at least 4"):
        cluster(run, least=3)
    table = ap.explain_dataset(nn.Linear(4, 2), torch.rand(60, 4), "lrp", tmp_path, progress=False)
    with pytest.raises(InputError, match="no height and width"):
        cluster(table)
    few = ap.explain_dataset(Bright(), torch.rand(3, 1, 8, 8), "saliency", tmp_path / "few", progress=False)
    with pytest.raises(
        InputError, match="has 4 maps: the largest has 3; accepted: runs with 4 maps of a class"
    ):
        cluster(few, least=4)


def test_the_page_is_escaped_and_asks_for_nothing(run, watermarked):
    page = clusters_page(run, cluster(run, classes=["1"]), watermarked[1])
    data = data_of(page)
    assert [chapter["title"] for chapter in data["chapters"]] == ["<flower>"]
    assert "<flower>" not in page
    assert page.count("<script") == 2  # the data and the code
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    pictures = pictures_of(data)
    assert len(pictures) > 12
    assert all(picture["src"].startswith("data:image/webp") for picture in pictures)
    assert "not shown" not in page
    assert data["chapters"][0]["articles"][0]["alike"]
    alone = clusters_page(run, cluster(run, classes=["1"]))
    assert "were given in memory" in alone


def pictures_of(data):
    """All pictures of a page."""
    return [
        picture
        for chapter in data["chapters"]
        for article in chapter["articles"]
        for group in article["groups"]
        for figure in group["figures"]
        for picture in figure["pictures"]
    ]


def test_a_run_says_in_one_line_what_it_is(run):
    assert repr(run).startswith(f"{len(run)} of {run.manifest.inputs} inputs explained and 0 failed in ")
    assert "LRP(" in run._repr_html_()


def test_the_page_of_a_summary_shows_words_and_pairs(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a <b>dull</b> film\na superb film\n")
    words = ap.explain_dataset("sentiment", texts, "lrp", tmp_path / "words", workers=1, progress=False)
    found = summarise(words)
    page = summary_page(words, found)
    articles = data_of(page)["chapters"][0]["articles"]
    assert [article["detail"] for article in articles] == ["1\N{NO-BREAK SPACE}input"] * 2
    names = [name for article in articles for name, *_ in article["means"][0]["rows"]]
    assert "<b>" in names
    assert "<b>" not in page
    assert len(names) == sum(map(len, found.features.values()))
    (few, _) = data_of(summary_page(words, summarise(words, 3)))["chapters"][0]["articles"]
    assert few["means"] == [{"what": "feature", "rows": []}]  # of which the page says why
    told = CliRunner().invoke(app, ["runs", "summary", str(words.folder), "--least", "3"]).stdout
    assert "no feature is in 3 inputs or more; --least 1 shows all" in told
    pairs = ap.explain_dataset("sentiment", texts, "ih", tmp_path / "pairs", workers=1, progress=False)
    assert "film × superb" in summary_page(pairs, summarise(pairs), 20)


def test_the_commands(run, tmp_path):
    found = CliRunner().invoke(app, ["cluster", str(run.folder), "--html", str(tmp_path / "c.html")])
    assert found.exit_code == 0, found.output
    assert "<flower>" in found.output.splitlines()[1]
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    html = tmp_path / "mean.html"
    found = CliRunner().invoke(app, ["runs", "summary", str(run.folder), "--html", str(html)])
    assert found.exit_code == 0, found.output
    assert "<flower>" in found.output
    data = data_of(html.read_text())
    assert (len(pictures_of(data)), len(data["chapters"][0]["articles"])) == (12, 2)
    assert data["layout"] == "list"  # each class with its mean map and its first five inputs
    found = CliRunner().invoke(app, ["runs", "drift", str(run.folder), str(run.folder)])
    assert "cosine of the maps 1.000 [1.000, 1.000]; 0.0% of the predictions changed" in found.output.replace(
        "\n", " "
    )
    for command in (["cluster", str(run.folder)], ["runs", "summary", str(run.folder)]):
        assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    both = CliRunner().invoke(app, ["runs", "drift", str(run.folder), str(run.folder), "--json"])
    assert json.loads(both.stdout)["flipped"] == 0
    found = CliRunner().invoke(app, ["cluster", str(tmp_path)])
    assert found.exit_code == 2
    assert "holds no run" in found.stderr


# ---- summaries ----


def test_mean_maps_and_remainders(run):
    found = summarise(run)
    assert sum(found.counts.values()) == len(run)
    mine = [(values, row) for row, values in run.maps() if row["target"] == 0]
    expected = torch.stack([values.double() for values, _ in mine]).mean(0)
    assert torch.allclose(found.maps["<temple>"], expected)
    share = sum(abs(r["remainder"]) for _, r in mine) / sum(abs(r["total"]) for _, r in mine)
    assert found.remainder["<temple>"] == pytest.approx(share)


def test_words_that_speak_for_a_class(tmp_path):
    texts = [
        "superb film film film film, superb",
        "a superb cast",
        "a Superb",
        "a dull film",
        "dull and long",
    ]
    run = ap.explain_dataset("sentiment", texts, "lrp", tmp_path, progress=False)
    found = summarise(run, least=2)
    words = {mean.name: mean for mean in found.features["positive"]}
    assert words["superb"].count == 3  # inputs: twice in the first
    assert max(words.values(), key=lambda mean: mean.mean).name == "superb"
    rows = [zip(row["features"], row["relevance"], strict=True) for row in run.rows()]
    sums = [sum(value for name, value in row if name.lower() == "superb") for row in rows[:3]]
    assert words["superb"].mean == pytest.approx(np.mean(sums))
    assert words["superb"].size == pytest.approx(np.mean(np.abs(sums)))
    assert "film" not in words  # in fewer inputs than two, though four times
    sizes = [mean.size for mean in found.features["positive"]]
    assert sizes == sorted(sizes, reverse=True)


def test_columns_and_pairs(tmp_path):
    def product(x):
        return x[:, :1] * x[:, 1:2]

    run = ap.explain_dataset(product, torch.ones(6, 2), "ih", tmp_path, progress=False)
    (pair,) = summarise(run).pairs["score"]
    assert (pair.name, pair.count) == ("0 × 1", 6)
    assert pair.mean == pytest.approx(2 * float(run.map(0)[0, 1]))


class Bright(nn.Module):
    """Takes pictures of any size."""

    def forward(self, x):
        return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)


def test_pictures_of_several_sizes_share_a_grid(tmp_path):
    pictures = [torch.rand(1, *((20, 30) if i % 2 else (40, 24))) for i in range(12)]
    run = ap.explain_dataset(Bright(), pictures, "inputxgradient", tmp_path, target=0, progress=False)
    (mean,) = summarise(run).maps.values()
    assert mean.shape == (40, 30)
    assert float(mean.sum()) == pytest.approx(np.mean([row["sum"] for row in run.rows()]), rel=1e-3)
    (found,) = cluster(run, side=32, least=5, clusters=2)
    assert {one.mean.shape for one in found.clusters} == {(32, 30)}
    assert sum(len(one.members) for one in found.clusters) == 12


# ---- drift ----


def test_drift_between_two_models(tmp_path):
    torch.manual_seed(0)
    data = torch.randn(50, 4)
    model, turned = nn.Linear(4, 2), nn.Linear(4, 2)
    turned.load_state_dict({"weight": -model.weight.detach(), "bias": -model.bias.detach()})
    rows = [{"x": x, "key": f"row {i}"} for i, x in enumerate(data)]
    settings = {"column": "x", "id_column": "key", "progress": False, "target": 0}
    for name, one, given in (("a", model, rows), ("b", turned, rows[:40]), ("c", model, rows)):
        ap.explain_dataset(one, given, "inputxgradient", tmp_path / name, **settings)
    a, b, c = (ap.open_run(tmp_path / name) for name in "abc")
    found = drift(a, b)
    assert found.flipped == 1.0
    assert torch.allclose(found.cosines, -torch.ones(40, dtype=torch.float64), atol=1e-3)
    assert (found.only_first, found.only_second) == (10, 0)
    assert set(found.settings) == {"model_fingerprint", "data_fingerprint"}
    same = drift(a, c)
    assert same.flipped == 0
    assert not same.settings
    assert torch.allclose(same.cosines, torch.ones(50, dtype=torch.float64))


def test_drift_between_unrelated_runs_is_refused(tmp_path):
    torch.manual_seed(0)
    data, key = torch.randn(20, 4), [{"x": torch.randn(4), "key": str(i)} for i in range(20)]
    model, other = nn.Linear(4, 2), nn.Linear(4, 2)

    def named(labels):
        return Classifier(
            model, ImagePreparation(resize=None, crop=None, accept=(2, 2)), labels, "image", "x"
        )

    given = {
        "a": (model, data, {}),
        "same data": (other, data, {}),
        "other data": (model, data + 1, {}),
        "other ids": (model, key, {"column": "x", "id_column": "key"}),
        "labels": (named(("cat", "dog")), data, {}),
        "others": (named(("cat", "cow")), data, {}),
    }
    runs = {
        name: ap.explain_dataset(one, x, "saliency", tmp_path / name, progress=False, **settings)
        for name, (one, x, settings) in given.items()
    }
    assert len(drift(runs["a"], runs["same data"]).inputs) == 20
    for name in ("other data", "other ids"):
        with pytest.raises(InputError, match="row 0 need not be the same"):
            drift(runs["a"], runs[name])
    with pytest.raises(InputError, match="models with other domains: None and 'image'"):
        drift(runs["a"], runs["labels"])
    with pytest.raises(InputError, match=r"models with other classes: \('cat', 'dog'\) and \('cat', 'cow'\)"):
        drift(runs["labels"], runs["others"])


def test_drift_refuses_ids_that_stand_there_twice(tmp_path):
    class Twice(torch.utils.data.Dataset):
        """A dataset, whose ids nobody looks through before."""

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"x": torch.full((4,), float(index)), "key": str(index // 2)}

    run = ap.explain_dataset(
        nn.Linear(4, 2), Twice(), "saliency", tmp_path, progress=False, column="x", id_column="key"
    )
    with pytest.raises(InputError, match="2 ids for 4 inputs"):
        drift(run, run)


def test_drift_needs_inputs_in_common(tmp_path):
    for name in ("a", "b"):
        rows = [{"text": "a dull film", "id": name}]
        ap.explain_dataset("sentiment", rows, "lrp", tmp_path / name, id_column="id", progress=False)
    with pytest.raises(InputError, match="no input in common"):
        drift(ap.open_run(tmp_path / "a"), ap.open_run(tmp_path / "b"))
