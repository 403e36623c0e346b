"""Every way of waiting for the device is counted, and nothing else is counted as one."""

from __future__ import annotations

from threading import Event, Thread

import pytest
import torch
from mdm.models import transfer
from mdm_testing.counters import counting
from torch import Tensor

X = torch.arange(6.0)


@pytest.mark.parametrize(
    "wait",
    [
        lambda: X.sum().item(), lambda: X.tolist(), lambda: bool(X[0] == 0), lambda: int(X[0]), lambda: float(X[1]),
        lambda: X.nonzero(), lambda: torch.nonzero(X), lambda: X[X > 2], lambda: X.cpu(), lambda: X.numpy(),
        lambda: X.to("cpu"), lambda: X.masked_select(X > 2), lambda: torch.equal(X, X), lambda: torch.unique(X),
        lambda: X.repeat_interleave(torch.arange(6)), lambda: X.clone().__setitem__(X > 2, X[:3]),
        lambda: torch.where(X > 2), lambda: X[0].__index__() if X.dtype == torch.long else X.long()[0].__index__(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inference", [True, False])
def test_a_wait_counts_once(wait, inference):
    with torch.inference_mode(inference), counting() as counts:
        wait()
    assert counts.syncs == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: X[torch.tensor([1, 2])], lambda: X.where(X > 2, 0), lambda: X.clone().__setitem__(X > 2, 1.0),
        lambda: torch.nonzero_static(X, size=5), lambda: X.masked_fill(X > 2, 0), lambda: X.to(X.device),
        lambda: X.repeat_interleave(2), lambda: X.double(), lambda: X.softmax(0).topk(2), lambda: X[1:3].view(2, 1),
    ],
)  # fmt: skip
def test_work_is_not_a_wait(work):
    with torch.inference_mode(), counting() as counts:
        work()
    assert counts.syncs == 0


def test_what_was_there_before_is_not_made():
    weight = torch.ones(4, 3)
    with counting() as counts:
        weight[1:].t()
        weight[:2].add_(1)
    assert counts.largest == counts.peak_bytes == 0


def test_operations_and_memory_are_those_of_the_block():
    with counting() as counts:
        a = X + 1
        b = torch.nn.functional.linear(a.view(2, 3), torch.ones(4, 3), torch.ones(4))
        del a
        c = b * 2
    # The sum, two tensors of ones, the product with its bias, and the doubling; a transpose makes nothing.
    assert counts.operations == 5
    assert counts.largest == 12
    assert counts.peak_bytes == 4 * (6 + 12 + 4 + 8)
    assert counts.live_bytes == 4 * (8 + 8)
    del b, c
    assert counts.live_bytes == 0


def test_what_another_thread_does_is_not_counted():
    def waits():
        X.tolist()
        X.sum().item()
        torch.tensor([1.0], device="cpu")

    with counting() as counts:
        thread = Thread(target=waits)
        thread.start()
        thread.join()
    assert (counts.syncs, counts.operations, counts.to_device) == (0, 0, 0)
    with counting() as counts:
        waits()
    assert (counts.syncs, counts.to_device) == (2, 1)


def test_two_threads_count_their_own_and_leave_torch_as_it_was():
    methods = [getattr(Tensor, name) for name in ("tolist", "numpy", "cpu", "to", "__array__")]
    counting_too, end, others = Event(), Event(), []

    def begin_inside_and_end_after():
        with counting() as theirs:
            others.append(theirs)
            counting_too.set()
            end.wait(60)
            X.tolist()

    thread = Thread(target=begin_inside_and_end_after)
    with counting() as ours:
        thread.start()
        counting_too.wait(60)
        X.cpu()
    end.set()
    thread.join()
    assert (ours.syncs, others[0].syncs) == (1, 1)
    assert [getattr(Tensor, name) for name in ("tolist", "numpy", "cpu", "to", "__array__")] == methods


def test_numbers_made_on_the_host_are_read_without_a_wait():
    with counting() as counts:
        assert transfer.on_host(X).tolist() == X.numpy().tolist()
    assert counts.syncs == 1  # of X.numpy() alone


def test_values_that_go_to_a_device_are_counted():
    with counting() as counts:
        torch.tensor([1, 2])
        torch.ones(2, device="cpu")
        X.to(X.device)
        torch.tensor([1, 2], device="cpu")
        torch.as_tensor([3.0], device=torch.device("cpu"))
    assert counts.to_device == 2
