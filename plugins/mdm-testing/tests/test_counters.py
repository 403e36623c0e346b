"""Every way of waiting for the device is counted, and nothing else is counted as one."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest
import torch
from mdm.models import transfer
from mdm.protocols.upload import to_device, upload
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


HERE = X.device


@pytest.mark.parametrize(
    "copy",
    [
        lambda: torch.tensor([1, 2], device="cpu"), lambda: torch.as_tensor([3.0], device=HERE),
        lambda: torch.tensor([1, 2]).to(HERE), lambda: torch.tensor([1, 2]).to(HERE, non_blocking=True),
        lambda: torch.tensor([[1], [2]]).view(2).float().to(device=HERE), lambda: torch.zeros(3).to(HERE),
        lambda: torch.as_tensor(np.arange(3)).to(HERE), lambda: torch.tensor([1.0]).to(X),
        lambda: torch.cat([torch.ones(2), torch.tensor([3.0])]).to(HERE), lambda: X.new_tensor([1.0]),
        lambda: X.clone().copy_(torch.arange(6)), lambda: X[[1, 2]], lambda: X[torch.tensor([1, 2])],
        lambda: X.clone().__setitem__([0, 2], 1.0), lambda: torch.tensor([1, 2]).to(HERE).to(HERE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inference", [True, False])
def test_a_copy_of_what_the_host_made_waits(copy, inference):
    with torch.inference_mode(inference), counting() as counts:
        copy()
    assert (counts.to_device, counts.pageable, counts.syncs) == (1, 1, 0)


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.tensor([1, 2]), lambda: torch.ones(2, device="cpu"), lambda: X.to(HERE), lambda: X[1:3, None],
        lambda: X * torch.tensor(2.0), lambda: X[X.long()], lambda: X[torch.arange(3, device=HERE)].to(HERE),
        lambda: torch.tensor([1, 2]).to(torch.float64), lambda: torch.zeros_like(X).to(HERE), lambda: X[0].to(HERE),
        lambda: torch.tensor([1, 2])[[0, 1]], lambda: X.new_zeros(3).to(HERE), lambda: X.clone().__setitem__(0, 1.0),
    ],
)  # fmt: skip
def test_nothing_is_copied_where_a_tensor_is(work):
    with torch.inference_mode(), counting() as counts:
        work()
    assert (counts.to_device, counts.pageable) == (0, 0)


def test_an_upload_does_not_wait_and_what_comes_again_is_there():
    values = [8127, 9131, 4099]
    with counting() as counts:
        upload(torch.tensor([1, 2]), HERE).to(HERE)
        first = to_device(values, HERE)
        again = to_device(tuple(values), HERE)
    assert first.tolist() == values and again is first
    assert (counts.to_device, counts.pageable) == (2, 0)
