"""Batches of equal shape, state dicts that must fit, and files of tensors in which nothing is executed."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from filters.scorers.base import Compute, Direct, batches, load_exactly, padded, read_state, run_padded, to_device
from manifests.weights import WeightsError


def test_runs_of_at_most_size_items():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches("abcd", 4)) == ["abcd"]
    assert list(batches([], 3)) == []


def test_a_short_batch_is_filled_with_zeros():
    rows = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])]
    full = padded(rows, 4)
    assert full.tolist() == [[[1, 2]], [[3, 4]], [[0, 0]], [[0, 0]]]
    assert padded(rows, 2).tolist() == [[[1, 2]], [[3, 4]]]
    assert padded([torch.tensor([7])], 2).dtype == torch.int64  # tokens stay whole numbers


def test_a_model_sees_full_batches_and_its_padding_is_cut_off():
    sizes = []

    def model(batch):
        sizes.append(len(batch))
        return (10 * batch).double()

    rows = [torch.tensor([float(n)]) for n in range(1, 6)]
    finished = []
    out = run_padded(model, rows, Compute(batch_size=2), lambda part: finished.append(len(part)) or part + 1)
    assert out.tolist() == [[11], [21], [31], [41], [51]]
    assert out.dtype == np.float32
    assert (sizes, finished) == ([2, 2, 2], [2, 2, 1])


def test_bf16_is_asked_for_by_its_name():
    """1 + 2^-9 has no bfloat16: its fraction has 7 bits. A product with 1 rounds it to 1 there and keeps it in fp32."""
    rows, one = [torch.tensor([1 + 2**-9])], torch.ones(1, 1)
    exact = run_padded(lambda batch: batch @ one, rows, Compute(1), lambda part: part)
    rough = run_padded(lambda batch: batch @ one, rows, Compute(1, "bf16"), lambda part: part)
    assert (exact.item(), rough.item(), rough.dtype) == (1 + 2**-9, 1.0, np.float32)


def test_a_batch_on_the_cpu_is_not_copied():
    batch = torch.zeros(1, 3, 2, 2)
    assert to_device(batch, torch.device("cpu")) is batch


def test_an_encoder_s_column_is_passed_on_as_float32():
    scores = Direct("conse", "conse").score({"conse": np.array([0.5, np.nan]), "other": np.zeros(2)})
    assert list(scores) == ["conse"]
    assert scores["conse"].dtype == np.float32
    np.testing.assert_array_equal(scores["conse"], [0.5, np.nan])


def test_a_state_dict_that_fits_is_loaded():
    model = torch.nn.Linear(2, 1)
    load_exactly(model, {"weight": torch.tensor([[2.0, 3.0]]), "bias": torch.tensor([4.0])}, "x")
    assert model(torch.tensor([10.0, 100.0])).item() == 324


def test_faults_of_a_state_dict_are_named_four_at_most():
    model = torch.nn.Linear(2, 1)
    with pytest.raises(WeightsError, match=r"weights of x have another form: 'weight' is \(2, 2\), wanted \(1, 2\)$"):
        load_exactly(model, {"weight": torch.zeros(2, 2), "bias": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match=r"'bias' is \(\), wanted \(1,\); no 'weight'; unknown 'scale'$"):
        load_exactly(model, {"bias": 3, "scale": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match=r"no 'bias'; no 'weight'; unknown 'a'; unknown 'b'; …$"):
        load_exactly(model, {name: torch.zeros(1) for name in "abc"}, "x")


def test_both_kinds_of_files_are_read(tmp_path):
    state = {"a": torch.tensor([1.0, 2.0])}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    assert [read_state(str(tmp_path / name), "x")["a"].tolist() for name in ("a.safetensors", "a.pt")] == [[1, 2]] * 2


def test_scripts_and_pickles_are_not_executed(tmp_path):
    path = str(tmp_path / "script.pt")
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    with pytest.raises(WeightsError, match="is a TorchScript program"):
        read_state(path, "x")
    torch.save({"weights": pytest.Module}, path)
    with pytest.raises(WeightsError, match="holds no plain tensors"):
        read_state(path, "x")


def test_damaged_files_and_other_things_are_no_state_dict(tmp_path):
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "page.pt").write_text("<html>")
    for name in ("half.safetensors", "empty.pt", "page.pt", "none.pt", "none.safetensors"):
        with pytest.raises(WeightsError, match=rf"weights of x: .*{name} holds no plain tensors"):
            read_state(str(tmp_path / name), "x")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list, wanted a state dict"):
        read_state(str(tmp_path / "list.pt"), "x")
