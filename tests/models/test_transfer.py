"""Numbers on their way between host and device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mdm.models.transfer import to_device, to_host

GRID = torch.arange(12).view(4, 3)


@pytest.mark.parametrize(
    "tensor",
    [GRID.float() / 7, GRID > 3, GRID.T, GRID[:, 1], GRID[:1, 1], GRID[:, :0], torch.tensor(5), GRID[0, 0].expand(3)],
    ids=["float", "bool", "transposed", "column", "number of a column", "empty", "scalar", "expanded"],
)
def test_tensors_of_any_layout_arrive_as_they_are_beside_others(tensor):
    before, found, after = to_host([GRID[:, 2], tensor, GRID < 5])
    assert np.array_equal(found, tensor.numpy()) and found.dtype == tensor.numpy().dtype
    assert before.tolist() == [2, 5, 8, 11] and after.sum() == 5


def test_what_an_inference_uploads_may_be_used_outside_of_one():
    with torch.inference_mode():
        index = to_device([3, 1, 7753], torch.device("cpu"))
    assert index.tolist() == [3, 1, 7753] and index.dtype == torch.long and not index.is_inference()
    assert to_device([], torch.device("cpu")).tolist() == []
