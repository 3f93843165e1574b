"""The GPT against LlamaGen's own outputs, names and counts, and its masks, tables and losses worked out by hand."""

import functools
import json
import sys

import numpy as np
import pytest
import torch

from pipeline.gpt import build_gpt, rope_tables, text_mask
from pipeline.gpt_spec import gpt_spec
from pipeline.sample import Sampling, generate
from pipeline.sampling.decode import Decoder
from tests.support.gpt_sizes import TABLE
from tests.support.paths import SHARED
from tests.support.small_gpt import prompts, small

ORACLE = SHARED / "oracle"
needs_oracle = pytest.mark.skipif(
    not ORACLE.is_dir(), reason="the reference outputs of shared/oracle are not on this machine"
)

CODES = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def fill():
    """Return the oracle's `fill`, which draws each tensor once: the two GPTs of one seed share most of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ORACLE)])
        import weights

        patch.setattr(weights, "tensor_for", functools.cache(weights.tensor_for))
        yield weights.fill


@needs_oracle
@pytest.mark.parametrize("kind", ["t2i", "c2i"])
def test_gpt_b_equals_the_reference(kind, fill, monkeypatch):
    for kind_of_layer in (torch.nn.Linear, torch.nn.Embedding):  # no numbers are drawn that `fill` writes over
        monkeypatch.setattr(kind_of_layer, "reset_parameters", lambda layer: None)
    monkeypatch.setattr("pipeline.gpt._initialise", lambda layer: None)
    expected = np.load(ORACLE / f"gpt_b_{kind}_256.npz")
    grid, seed, batch = int(expected["grid"]), int(expected["seed"]), len(expected["codes"])
    gpt = fill(build_gpt("GPT-B", "text" if kind == "t2i" else "class", grid), seed)
    rng = np.random.default_rng([seed, 5])
    codes = torch.from_numpy(rng.integers(0, 16384, (batch, grid**2)))
    if kind == "t2i":
        drawn, lengths = rng.standard_normal((batch, 120, 2048)).astype(np.float32), expected["text_lengths"]
        features = np.zeros_like(drawn)
        for row, values, length in zip(features, drawn, lengths, strict=True):
            row[120 - length :] = values[:length]
        condition = (torch.from_numpy(features), torch.from_numpy(lengths))
    else:
        condition = torch.from_numpy(rng.integers(0, 1000, batch))
    with torch.no_grad():
        logits = gpt.logits(codes, condition)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten())
    np.testing.assert_allclose(logits[:, :: max(1, grid**2 // 8), ::509], expected["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits.norm(dim=-1), expected["logits_l2"], atol=1e-3, rtol=0)
    assert float(loss) == pytest.approx(float(expected["loss"]), abs=1e-4)
    compile_ = torch.compile  # Inductor's C++ takes a minute; what dynamo captures is run as it is
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, fullgraph=True, backend="eager"))
    decoder = Decoder(gpt, 2 * batch, 8, compiled=True)
    greedy = generate(gpt, condition, 8, Sampling(cfg_scale=3.0, top_k=1), decoder=decoder)
    assert greedy.tolist() == expected["greedy_cfg3"][:, :8].tolist()


@needs_oracle
def test_state_dicts_have_llamagens_names_and_shapes():
    expected = json.loads((ORACLE / "state_dict_shapes.json").read_text())
    for name in ("GPT-B", "GPT-L", "GPT-XL"):
        for kind, condition in (("t2i", "text"), ("c2i", "class")):
            with torch.device("meta"):
                gpt = build_gpt(name, condition)
            assert {key: list(tensor.shape) for key, tensor in gpt.state_dict().items()} == expected[f"{name} {kind}"]


@pytest.mark.parametrize("name", TABLE)
def test_parameter_counts(name):
    for condition, expected in zip(("class", "text"), TABLE[name][-2:], strict=True):
        with torch.device("meta"):
            gpt = build_gpt(name, condition)
        assert sum(parameter.numel() for parameter in gpt.parameters()) == expected


def test_a_fresh_gpt_guesses_evenly():
    gpt = build_gpt("GPT-demo", "class", 4, vocab=50)
    assert not gpt.training
    assert float(gpt.loss(CODES, torch.tensor([0, 1])).detach()) == pytest.approx(np.log(50), abs=1e-6)


def test_rope_tables_by_hand():
    cos, sin = rope_tables(gpt_spec("GPT-demo", "text", 3, "zero", {"cond_len": 2}))
    assert cos.shape == (2 + 9, 16)
    assert not cos[:2].any()
    assert not sin[:2].any()
    row, column = 2, 1  # raster position 2 * 3 + 1; head width 32: 8 frequencies for the row, 8 for the column
    frequencies = 10000.0 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(cos[2 + 7], np.cos(np.concatenate((row * frequencies, column * frequencies))), atol=1e-6)
    np.testing.assert_allclose(sin[2 + 7], np.sin(np.concatenate((row * frequencies, column * frequencies))), atol=1e-6)
    cos, sin = rope_tables(gpt_spec("GPT-demo", "text", 3, "identity", {"cond_len": 2}))
    assert (cos[:2] == 1).all()
    assert not sin[:2].any()


def test_a_larger_grid_extends_a_smaller_one():
    small_cos, _ = rope_tables(gpt_spec("GPT-B", "class", 16, "zero", {}))
    large_cos, _ = rope_tables(gpt_spec("GPT-B", "class", 32, "zero", {}))
    assert torch.equal(large_cos[1:].view(32, 32, -1)[:16, :16].reshape(256, -1), small_cos[1:])


def test_text_mask_by_hand():
    mask = text_mask(torch.tensor([2, 0]), 4)[:, 0].int().tolist()
    assert mask[0] == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]  # two pads see themselves alone, and nobody sees them
    assert mask[1] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_zero_rope_attends_to_text_uniformly_and_identity_by_content():
    """LlamaGen's quirk: what the last text token reads of the text cannot depend on any query or key."""
    condition = prompts([6, 4])
    for rope_cond, uniform in (("zero", True), ("identity", False)):
        gpt = small(rope_cond=rope_cond)
        with torch.no_grad():
            before = gpt.logits(CODES, condition)
            for block in gpt.layers:
                block.attention.wqkv.weight[: 2 * 192].normal_(std=0.5)  # queries and keys
            after = gpt.logits(CODES, condition)
        assert torch.allclose(before[:, 0], after[:, 0], atol=1e-5) is uniform
        assert not torch.allclose(before[:, 1:], after[:, 1:], atol=1e-5)


def test_padding_does_not_matter():
    gpt = small()
    x, lengths = prompts([2, 3])
    wide = gpt.logits(CODES, (x, lengths))
    torch.testing.assert_close(gpt.logits(CODES, (x[:, -3:], lengths)), wide, atol=1e-5, rtol=0)
    noisy = x.clone()
    noisy[0, :4] = 9.0
    torch.testing.assert_close(gpt.logits(CODES, (noisy, lengths)), wide, atol=1e-5, rtol=0)


def test_no_code_sees_itself_or_later_ones():
    gpt = small()
    condition = prompts([2, 6])
    changed = CODES.clone()
    changed[:, 9:] = 0
    before, after = gpt.logits(CODES, condition), gpt.logits(changed, condition)
    torch.testing.assert_close(before[:, :10], after[:, :10], atol=1e-5, rtol=0)
    assert not torch.allclose(before[:, 10:], after[:, 10:])
    torch.testing.assert_close(gpt.logits(CODES[:, :5], condition), before[:, :5], atol=1e-5, rtol=0)


def test_loss_weighs_samples_and_keeps_targets():
    gpt = small("class")
    labels = torch.tensor([4, 7])
    each = [float(gpt.loss(CODES[n : n + 1], labels[n : n + 1])) for n in (0, 1)]
    assert float(gpt.loss(CODES, labels)) == pytest.approx(sum(each) / 2, abs=1e-5)
    assert float(gpt.loss(CODES, labels, torch.tensor([0, 1]))) == pytest.approx(each[1], abs=1e-5)
    assert float(gpt.loss(CODES, labels, torch.tensor([0, 0]))) == 0.0
    other = CODES.flip(0)
    by_hand = torch.nn.functional.cross_entropy(gpt.logits(other, labels).flatten(0, 1), CODES.flatten())
    assert float(gpt.loss(CODES, labels, inputs_BN=other)) == pytest.approx(float(by_hand), abs=1e-6)


def test_condition_dropout_acts_in_training_alone():
    gpt = small(cond_dropout=1.0, token_dropout=0.0, resid_dropout=0.0, ffn_dropout=0.0)
    one, two = prompts([4, 4]), (prompts([4, 4])[0] * 5, torch.tensor([4, 4]))
    assert not torch.allclose(gpt.logits(CODES, one), gpt.logits(CODES, two))
    gpt.train()
    assert torch.equal(gpt.logits(CODES, one), gpt.logits(CODES, two))
    assert "cls_embedding.uncond_embedding" not in dict(gpt.named_parameters())


def test_dropout_default_is_a_tenth():
    gpt = build_gpt("GPT-demo", grid=4)
    assert {module.p for module in gpt.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}
    assert gpt.spec.cond_dropout == 0.1


def test_an_unknown_size_lists_the_choices():
    with pytest.raises(ValueError, match="choices: GPT-B, GPT-L"):
        build_gpt("GPT-Z")


def test_wrong_shapes_are_named():
    gpt = small()
    x, lengths = prompts([2, 3])
    for codes, condition, says in (
        (CODES[0], (x, lengths), r"wanted \(B, N\)"),
        (CODES.repeat(1, 2), (x, lengths), "1 to 16"),
        (CODES, x, "got one tensor"),
        (CODES, (x[..., :3], lengths), r"got \(2, 6, 3\)"),
        (CODES, (x.repeat(1, 2, 1), lengths), r"T<=6"),
    ):
        with pytest.raises(ValueError, match=says):
            gpt.logits(codes, condition)
    with pytest.raises(ValueError, match="labels of shape"):
        small("class").logits(CODES, (x, lengths))


@pytest.mark.parametrize("rope_cond", ["zero", "identity"])
def test_rolled_rows_give_the_mask_s_logits_and_gradients(rope_cond):
    """Captions of all lengths, prompts narrower than the model's: to 1e-5."""
    gpt = small(rope_cond=rope_cond).requires_grad_(True)
    codes = torch.randint(0, 50, (5, 16), generator=torch.Generator().manual_seed(2))
    condition = prompts([1, 5, 3, 2, 4], width=5)
    both = []
    for dense in (False, True):
        gpt.zero_grad()
        logits = gpt._logits(codes, condition, dense=dense)
        logits.square().mean().backward()
        both.append((logits.detach(), [parameter.grad.clone() for parameter in gpt.parameters()]))
    assert torch.allclose(both[0][0], both[1][0], atol=1e-5)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(both[0][1], both[1][1], strict=True))


def test_a_caption_without_a_token_takes_the_mask():
    gpt, codes = small(), torch.arange(32).view(2, 16)
    condition = prompts([0, 3])
    assert torch.equal(gpt.logits(codes, condition), gpt._logits(codes, condition, dense=True))
    alone = prompts([0, 3])[0][:1], torch.tensor([0])
    assert torch.allclose(gpt.logits(codes[:1], alone), gpt.logits(codes, condition)[:1], atol=1e-5)


@pytest.mark.parametrize("kind", ["text", "class"])
def test_the_training_step_has_no_graph_breaks_and_one_graph_for_each_width(kind):
    gpt, graphs = small(kind).requires_grad_(True).train(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(gpt, backend=count, fullgraph=True, dynamic=False)
    for width, lengths in ((6, [1, 6]), (6, [3, 2]), (4, [4, 1]), (6, [5, 5])):
        condition = prompts(lengths, width) if kind == "text" else torch.tensor([lengths[0], 9])
        loss = compiled(torch.randint(0, 50, (2, 16)), condition)
    assert loss.requires_grad
    assert len(graphs) == (2 if kind == "text" else 1)


def test_values_out_of_range_are_refused_at_every_entry():
    text, classes = small(), small("class")
    codes = torch.zeros(2, 16, dtype=torch.int64)
    for call, says in (
        (lambda: text.logits(codes + 50, prompts([1, 2])), "codes from 50 to 50, wanted 0 to 49"),
        (lambda: text.logits(codes, (prompts([1, 2])[0], torch.tensor([1, 7]))), "lengths from 1 to 7, wanted 0 to 6"),
        (lambda: classes.logits(codes, torch.tensor([0, 10])), "labels from 0 to 10, wanted 0 to 9"),
        (lambda: classes.loss(codes, torch.tensor([-1, 1])), "labels from -1 to 1, wanted 0 to 9"),
        (lambda: generate(classes, torch.tensor([10]), 4), "labels from 10 to 10, wanted 0 to 9"),
        (lambda: generate(text, (prompts([1])[0], torch.tensor([9])), 4), "lengths from 9 to 9, wanted 0 to 6"),
    ):
        with pytest.raises(ValueError, match=says):
            call()


def test_the_loss_by_row_is_the_mean_of_each():
    gpt, codes, condition = small(), torch.arange(32).view(2, 16), prompts([2, 3])
    rows = gpt(codes, condition, by_row=True)
    assert rows.shape == (2,)
    assert torch.allclose(rows.mean(), gpt(codes, condition))
    assert torch.allclose(gpt.loss(codes, condition), gpt(codes, condition))
