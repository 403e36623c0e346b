"""FID, Inception Score, precision, recall and cosines: the published evaluator's numbers, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from goldens import cases, tensors
from hypothesis import given, strategies as st
from mdm.errors import MdmError
from mdm_imagescores import statistics
from mdm_imagescores.statistics import Gaussian, Moments, frechet_distance, inception_score, precision_recall

GOLDENS = "images/fid"


def golden(kind):
    return [case for case in cases(GOLDENS, "cases") if case.values[0] is None or case.values[0]["kind"] == kind]


@pytest.fixture(scope="module")
def published():
    return {name: tensor.numpy() for name, tensor in tensors(GOLDENS, "cases").items()}


def gaussian(features, batch=1000):
    """Their mean and covariance, taken in batch by batch."""
    moments = Moments(features.shape[1])
    for start in range(0, len(features), batch):
        moments.add(features[start : start + batch])
    return moments.gaussian()


def normal(seed, count, dimensions, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, dimensions)) * np.arange(1, dimensions + 1) + shift


@pytest.mark.parametrize("case", golden("fid"))
def test_the_published_evaluator_s_fid(case, published):
    reference, sample = (published[f"{case['name']}.{part}"] for part in ("reference", "sample"))
    # It takes means, and the distance between them, in float32.
    theirs = [Gaussian(x.mean(0), np.cov(x, rowvar=False)) for x in (reference, sample)]
    rank_deficient = case["name"] in ("fid_fewer_samples_than_dims", "fid_dead_dimensions")
    close = pytest.approx(case["fid_by_symmetric_eigenvalues"], rel=1e-6 if rank_deficient else 1e-9, abs=1e-9)
    assert frechet_distance(*theirs) == close
    assert frechet_distance(gaussian(reference), gaussian(sample)) == pytest.approx(case["fid"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("case", golden("is"))
def test_the_published_evaluator_s_inception_score(case, published):
    logits = published[f"{case['name']}.features"] @ published[f"{case['name']}.weights"]
    assert inception_score(logits, case["split_size"]) == pytest.approx(case["inception_score"], rel=1e-6)


@pytest.mark.parametrize("case", golden("precision_recall"))
def test_the_published_evaluator_s_precision_and_recall(case, published):
    reference, sample = (published[f"{case['name']}.{part}"] for part in ("reference", "sample"))
    assert precision_recall(reference, sample) == (case["precision"], case["recall"])


@pytest.mark.parametrize("case", golden("clip_score"))
def test_the_published_cosines(case, published):
    cosines = statistics.cosines(published["clip.image_features"], published["clip.text_features"])
    assert cosines.tolist() == pytest.approx(case["scores"], abs=1e-6)
    assert cosines.mean() == pytest.approx(case["clip_score_mean"], abs=1e-6)


@given(st.integers(0, 99), st.integers(2, 40), st.integers(2, 40), st.integers(1, 12))
def test_fid_is_symmetric_and_zero_only_to_itself(seed, n, m, dimensions):
    a, b = gaussian(normal(seed, n, dimensions)), gaussian(normal(seed + 1, m, dimensions, shift=3))
    size = np.trace(a.covariance) + np.trace(b.covariance) + 9 * dimensions
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10 * size)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-10 * size)
    assert frechet_distance(a, b) > 0


def test_fid_of_gaussians_whose_distance_is_known():
    one, other = Gaussian(np.zeros(3), np.diag([1.0, 4, 0])), Gaussian(np.array([0, 3.0, 0]), np.diag([9.0, 1, 0]))
    assert frechet_distance(one, other) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 1) ** 2)
    nothing = Gaussian(np.zeros(3), np.zeros((3, 3)))
    assert frechet_distance(nothing, nothing) == 0 and frechet_distance(nothing, one) == pytest.approx(5)


def test_a_rotation_of_both_leaves_fid_as_it_is():
    turn, _ = np.linalg.qr(normal(5, 8, 8))
    a, b = normal(1, 30, 8), normal(2, 5, 8, shift=2)  # of which the second is of rank 4
    before = frechet_distance(gaussian(a), gaussian(b))
    assert frechet_distance(gaussian(a @ turn), gaussian(b @ turn)) == pytest.approx(before, rel=1e-9)


@given(st.integers(1, 60))
def test_moments_do_not_depend_on_the_batches(batch):
    features = normal(3, 50, 6, shift=1e4).astype(np.float32)
    by_batches = gaussian(features, batch)
    np.testing.assert_allclose(by_batches.mean, features.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(by_batches.covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-8)


def test_one_picture_has_no_covariance():
    with pytest.raises(MdmError, match="needs 2 pictures at least, and there are 1"):
        gaussian(normal(0, 1, 4))


def test_inception_scores_at_the_ends_of_the_scale():
    assert inception_score(np.zeros((7, 10))) == 1.0  # nothing is told apart
    certain = np.eye(10) * 1e6  # each is of a class of its own; other classes have probability 0
    assert inception_score(certain) == pytest.approx(10)
    assert inception_score(certain[:4], split=1) == 1.0
    assert inception_score(certain[:3], split=2) == pytest.approx((2 + 1) / 2)  # a split that is not full counts


def test_precision_and_recall_change_places_with_the_sets(monkeypatch):
    a, b = normal(1, 40, 3), normal(2, 30, 3, shift=1.0)
    precision, recall = precision_recall(a, b)
    assert precision_recall(b, a) == (recall, precision) and 0 < recall < 1
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, a + 1e3) == (0.0, 0.0)
    monkeypatch.setattr(statistics, "TILE", 7)  # the tiles of distances are not to be seen
    seen = []
    assert precision_recall(a, b, lambda done, total: seen.append((done, total))) == (precision, recall)
    assert seen == [(i, 16) for i in range(1, 17)]


def test_three_pictures_have_no_third_neighbour():
    with pytest.raises(MdmError, match="4 pictures at least on either side, and there are 3 against 9"):
        precision_recall(normal(1, 9, 2), normal(1, 3, 2))
