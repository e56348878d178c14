"""Training text classifiers: what is kept, early stopping, and resuming after a real kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from apportion.core.checksummed import seal, unseal
from apportion.errors import InputError
from apportion.learning.documents import Documents, batches_by_length, shuffled_batches
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Epoch, Training, best_epoch, roc_auc, scores_by_model, train


def made(texts: int, seed: int, words: int = 12) -> Documents:
    """Texts of any length whose class is whether the word 2 is in them."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (texts,), generator=random).tolist()
    ids = [torch.randint(3, words, (n,), generator=random) for n in lengths]
    for text in ids[::2]:
        text[int(torch.randint(0, len(text), (1,), generator=random))] = 2
    return Documents(tuple(ids), torch.arange(texts).remainder(2).eq(0).long())


def model(dropout: float = 0.0) -> AttentionClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AttentionClassifier(12, embedding=6, hidden=5, dropout=dropout)


TRAIN, VALID = made(120, 0), made(60, 1)
SETTINGS = Training(epochs=4, rate=2e-2, batch=16)


def weights(trained: nn.Module) -> list[torch.Tensor]:
    return list(trained.state_dict().values())


def same(first: nn.Module, second: nn.Module) -> bool:
    """Equal but for the last bits, which in another process depend on where its memory lies."""
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(weights(first), weights(second), strict=True))


def test_learns_and_keeps_the_best_epoch() -> None:
    lines: list[str] = []
    trained = model()
    history = train(trained, TRAIN, VALID, SETTINGS, say=lines.append)
    scores = scores_by_model(trained, VALID)
    assert len(history) == len(lines) == 4
    assert not trained.training
    assert roc_auc(scores, VALID.labels) == max(epoch.validation_auc for epoch in history) > 0.9


def test_stops_after_patience_without_a_better_epoch() -> None:
    history = train(model(), TRAIN, VALID, Training(epochs=30, rate=2e-2, patience=2))
    assert len(history) < 30
    assert len(history) - 1 - best_epoch(history) == 2


def test_the_first_of_equal_epochs_is_kept() -> None:
    assert best_epoch([Epoch(1, 1, auc, 0) for auc in (0.5, 0.9, 0.9)]) == 1


def test_resumes_after_a_kill(tmp_path: Path) -> None:
    """A process that is killed (SIGKILL) in its third epoch leaves two; dropout and order go on as they would."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_training as t
        calls = []
        forward = t.AttentionClassifier.forward
        def dying(self, ids):
            if self.training:
                calls.append(ids)
            if len(calls) == 20:  # of 8 batches an epoch
                os.kill(os.getpid(), signal.SIGKILL)
            return forward(self, ids)
        t.AttentionClassifier.forward = dying
        t.train(t.model(0.3), t.TRAIN, t.VALID, t.SETTINGS, t.Path({str(checkpoint)!r}))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ)
    assert died.returncode == -signal.SIGKILL
    assert len(unseal(checkpoint)[0]["history"]) == 2
    resumed, whole = model(0.3), model(0.3)
    lines: list[str] = []
    found = train(resumed, TRAIN, VALID, SETTINGS, checkpoint, lines.append)
    expected = train(whole, TRAIN, VALID, SETTINGS)
    losses = [[epoch.training_loss for epoch in history] for history in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert same(resumed, whole)
    assert len(lines) == 2
    finished = model(0.3)
    train(finished, TRAIN, VALID, SETTINGS, checkpoint, lines.append)
    assert same(finished, whole)
    assert len(lines) == 2


def test_a_corrupt_checkpoint_is_named_and_training_starts_anew(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    first = model()
    train(first, TRAIN, VALID, Training(epochs=1), checkpoint)
    data = bytearray(checkpoint.read_bytes())
    data[-3] ^= 1
    checkpoint.write_bytes(data)
    again = model()
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is corrupt.*anew"):
        train(again, TRAIN, VALID, Training(epochs=1), checkpoint)
    assert same(first, again)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(model(), TRAIN, VALID, Training(epochs=1), checkpoint)
    with pytest.raises(InputError, match="is of another training"):
        train(model(), TRAIN, VALID, Training(epochs=2), checkpoint)
    with pytest.raises(InputError, match="is of another training"):
        train(model(), made(120, 5), VALID, Training(epochs=1), checkpoint)
    with pytest.raises(InputError, match="is of another training"):
        train(model(), TRAIN, made(60, 7), Training(epochs=1), checkpoint)
    other = model()
    other.forward_count = 0  # an attribute of one of ours says nothing
    train(other, TRAIN, VALID, Training(epochs=1), checkpoint)
    other.__class__ = type("AttentionClassifier", (AttentionClassifier,), {"width": 3})
    with pytest.raises(InputError, match="is of another training"):
        train(other, TRAIN, VALID, Training(epochs=1), checkpoint)


def test_the_global_random_state_is_as_it_was() -> None:
    before = torch.get_rng_state()
    train(model(0.5), TRAIN, VALID, Training(epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_refuses_what_cannot_be_trained_on() -> None:
    with pytest.raises(InputError, match="60 training texts are not of at least two classes"):
        train(model(), TRAIN.select(range(0, 120, 2)), VALID, SETTINGS)
    with pytest.raises(InputError, match="30 validation texts"):
        train(model(), TRAIN, VALID.select(range(1, 60, 2)), SETTINGS)
    with pytest.raises(InputError, match="the training loss became nan"):
        train(model(), TRAIN, VALID, Training(epochs=1, rate=1e38))
    for settings in ({"epochs": 0}, {"batch": 0}, {"patience": 0}, {"rate": 0.0}, {"decay": -1.0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            Training(**settings)  # type: ignore[arg-type]


def test_documents_refuse_what_is_no_text() -> None:
    one = torch.tensor([3])
    with pytest.raises(InputError, match="text 1 is empty"):
        Documents((one, one[:0]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="which stands for padding"):
        Documents((one, one * 0), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="2 texts with 1 labels"):
        Documents((one, one), torch.tensor([0]))
    with pytest.raises(InputError, match="one value per token"):
        Documents((one,), torch.tensor([0]), (torch.ones(2),))
    with pytest.raises(InputError, match="map of text 0 contains NaN"):
        Documents((one,), torch.tensor([0]), (torch.tensor([torch.nan]),))


def test_every_text_is_in_one_batch() -> None:
    lengths = TRAIN.lengths
    for batches in (
        shuffled_batches(lengths, 16, torch.Generator().manual_seed(0)),
        list(batches_by_length(lengths, tokens=40, most=7)),
    ):
        assert sorted(row for batch in batches for row in batch) == list(range(120))
    assert all(
        len(b) * int(lengths[b].max()) <= 40 and len(b) <= 7 for b in batches_by_length(lengths, 40, 7)
    )
    assert list(batches_by_length(torch.tensor([90, 90]), 40, 7)) == [[0], [1]]


def test_scores_do_not_depend_on_the_batch() -> None:
    trained = model().eval()
    alone = torch.cat([trained(ids[None]) for ids in VALID.ids])
    assert torch.allclose(scores_by_model(trained, VALID), alone, atol=1e-6)


def test_roc_auc_of_more_than_two_classes() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert roc_auc(torch.eye(3)[labels], labels) == 1.0
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    expected = roc_auc_score(labels, scores.double().softmax(1), multi_class="ovr")
    assert roc_auc(scores, labels) == pytest.approx(expected)
    assert roc_auc(torch.eye(4)[labels], labels) == 1.0  # the last class is not among them


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": "32"},
        {"patience": 0},
        {"rate": 0.0},
        {"decay": -1e-3},
        {"rate": "fast"},
        {"seed": -1},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*accepted"):
        Training(**wrong)


@pytest.mark.parametrize("place", [8, 40, -1])
def test_a_sealed_file_shows_every_change(tmp_path: Path, place: int) -> None:
    path = seal(
        tmp_path / "file.safetensors", {"a": [1, 2]}, {"t": torch.arange(4), "empty": torch.zeros(0, 2)}
    )
    numbers, tensors = unseal(path)
    assert numbers == {"a": [1, 2]}
    assert tensors["t"].tolist() == [0, 1, 2, 3]
    assert tensors["empty"].shape == (0, 2)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"file\.safetensors is corrupt"):
        unseal(path)
