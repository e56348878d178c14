import threading

import pytest
import torch

import apportion as ap
from apportion.core.progress import model_called, progress, watched


def test_only_the_outermost_batches_are_counted():
    seen = []
    with watched(lambda *far: seen.append(far)):
        model_called()
        for batch in progress([(1, 2), (3, 4)], 4, "masks"):
            model_called()
            list(progress([batch, batch], 4, "inputs"))
        model_called()
    assert seen == [(1, None, "model calls"), (2, 4, "masks"), (4, 4, "masks"), (2, None, "model calls")]


def test_a_watcher_that_raises_stops_the_work_and_nothing_stays(untouched):
    model, x = (
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)),
        torch.randn(1, 4),
    )
    untouched(model)

    def enough(done, total, what):
        if done >= 3:
            raise TimeoutError(what)

    for method, what in (
        (ap.SmoothGrad(samples=9, chunk=1), "model calls"),
        (ap.Occlusion(chunk=1), "masked inputs"),
    ):
        with pytest.raises(TimeoutError, match=what), watched(enough):
            method(model, x)
    seen = []
    list(progress([(1,)], 1, "numbers"))
    assert seen == []


@pytest.mark.parametrize("settings", [{"nodes": 4}, {"chunk": 2, "vectorize": 3}, {"pairs": [1]}])
def test_second_derivatives_are_counted_as_they_are_made(settings):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    seen = []
    with watched(lambda *far: seen.append(far)):
        found = ap.IntegratedHessians(**settings)(model, torch.randn(1, 4))
    told = [(done, total) for done, total, what in seen if what == "derivatives"]
    rows = 1 if "pairs" in settings else 4
    assert told[-1][0] == told[-1][1] >= found.notes["nodes"] * rows
    assert len(told) > 1 or rows == 1 or "chunk" not in settings
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_other_threads_are_not_watched():
    seen = []

    def work():
        list(progress([(1,)], 1, "numbers"))
        model_called()

    with watched(lambda *far: seen.append(far)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == []
