"""Seeded weights: the same numbers for ever, with the spread that keeps signals alive."""

import hashlib

import numpy as np
import pytest
import torch

from filters.scorers.stand_in import FORMAT, seeded


def test_the_numbers_are_those_of_this_format():
    """The digest was taken with FORMAT 1; where it changes, scores of stand-ins do, and FORMAT must too."""
    numbers = seeded({"a.weight": torch.zeros(2, 3)}, "test")["a.weight"].numpy()
    assert (FORMAT, numbers.dtype) == (1, np.float32)
    digest = "80b0b2821feaa2bcf605f839e7ca7585e7b724c5e0fe4ef5fefd6b6117b88670"
    assert hashlib.sha256(numbers.tobytes()).hexdigest() == digest


def test_a_tensor_depends_on_its_own_name_and_the_model_s():
    one = seeded({"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(2, 3)}, "test")
    two = seeded({"b.weight": torch.ones(2, 3), "a.weight": torch.ones(2, 3)}, "test")  # other order, other values
    other = seeded({"a.weight": torch.zeros(2, 3)}, "another")
    assert torch.equal(one["a.weight"], two["a.weight"])
    assert torch.equal(one["b.weight"], two["b.weight"])
    assert not torch.equal(one["a.weight"], one["b.weight"])
    assert not torch.equal(one["a.weight"], other["a.weight"])


def test_matrices_are_uniform_with_deviation_gain_over_the_root_of_fan_in():
    """Fan in 4 * 3 * 3 = 36, gain 3: the deviation is 3 / 6 = 0.5, the largest value 0.5 * sqrt(3) = 0.866."""
    kernel = seeded({"conv.weight": torch.zeros(1000, 4, 3, 3)}, "test", gain=3.0)["conv.weight"]
    assert kernel.shape == (1000, 4, 3, 3)
    assert kernel.std().item() == pytest.approx(0.5, rel=0.01)  # of 36,000 values: three errors of the estimate
    assert kernel.mean().item() == pytest.approx(0, abs=0.01)
    assert 0.86 < kernel.abs().max().item() <= 0.866026


def test_vectors_are_what_normalisation_layers_start_from():
    state = {
        "norm.weight": torch.zeros(3),
        "norm.bias": torch.ones(3),
        "norm.running_mean": torch.ones(3),
        "norm.running_var": torch.zeros(3),
        "norm.num_batches_tracked": torch.tensor(5),
        "logit_scale": torch.tensor(2.5),
    }
    numbers = {key: value.tolist() for key, value in seeded(state, "test").items()}
    assert numbers == {
        "norm.weight": [1, 1, 1],
        "norm.bias": [0, 0, 0],
        "norm.running_mean": [0, 0, 0],
        "norm.running_var": [1, 1, 1],
        "norm.num_batches_tracked": 5,
        "logit_scale": 2.5,
    }


def test_a_class_embedding_is_a_vector_that_is_drawn():
    """Its fan in is its length, 768: of deviation 1 / sqrt(768) = 0.036."""
    drawn = seeded({"visual.class_embedding": torch.zeros(768)}, "test")["visual.class_embedding"]
    assert drawn.std().item() == pytest.approx(0.0361, rel=0.08)
