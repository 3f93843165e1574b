"""Keys and values of answers side by side."""

from types import SimpleNamespace

import torch

from captioning.captioners.slot_cache import SlotCache


def cache_of(length):
    layer = SimpleNamespace(keys=torch.full((1, 2, length, 3), 7.0), values=torch.full((1, 2, length, 5), 8.0))
    return SimpleNamespace(layers=[layer, layer])


def test_each_slot_is_written_at_its_own_place_and_all_look_equally_far():
    cache = SlotCache(cache_of(2), 3, 8)
    cache.layers[0].put(1, torch.full((2, 2, 3), 7.0), torch.full((2, 2, 5), 8.0))
    cache.look(torch.arange(3), torch.tensor([0, 2, 4]), 5)
    token = torch.arange(3.0)[:, None, None, None] + 1
    keys, values = cache.update(token.expand(3, 2, 1, 3), token.expand(3, 2, 1, 5), 0)
    assert keys.shape == (3, 2, 5, 3)
    assert values.shape == (3, 2, 5, 5)
    assert keys[:, 0, :, 0].tolist() == [[1, 0, 0, 0, 0], [7, 7, 2, 0, 0], [0, 0, 0, 0, 3]]
    assert cache.get_seq_length() == 5
    assert (cache.layers[0].get_mask_sizes(1), cache.layers[0].get_max_length()) == ((5, 0), 8)


def test_a_longer_cache_holds_what_the_shorter_one_did():
    short = SlotCache(cache_of(2), 2, 4)
    short.layers[1].put(0, torch.full((2, 2, 3), 7.0), torch.full((2, 2, 5), 8.0))
    long = SlotCache(cache_of(2), 2, 8, short)
    assert long.layers[1].keys[0, 0, :, 0].tolist() == [7, 7, 0, 0, 0, 0, 0, 0]
    assert long.length == 8
