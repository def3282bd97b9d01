"""The cache stores what transformers' own would, and keeps the accepted rows in place."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from eagle.decoding.kv_cache import Extent, KeyValueCache, attention_mask, capacity_for

CONFIG = LlamaConfig(
    num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1
)

SHAPES = [((1, 4), (1, 4))] * 2


def states(tokens: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, G, T, D] of each layer."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, 1, 1, tokens, 4, generator=generator)) for _ in range(2)]


def make_cache(shapes=SHAPES) -> KeyValueCache:
    return KeyValueCache(shapes, 16, torch.float32, torch.device("cpu"))


def write(cache: KeyValueCache, part: list, read: int) -> list:
    """Write keys and values of each layer behind the text. Returns what each layer gives back."""
    cache.write_to(cache.length + torch.arange(part[0][0].shape[2]), read)
    return [cache.update(key, value, layer) for layer, (key, value) in enumerate(part)]


def test_it_stores_what_transformers_cache_would():
    ours, theirs = make_cache(), DynamicCache(config=CONFIG)
    for seed, tokens in enumerate((5, 1, 3)):
        part = states(tokens, seed)
        stored = write(ours, part, int(ours.length) + tokens)
        ours.keep(None, tokens)
        for layer, (key, value) in enumerate(part):
            expected = theirs.update(key, value, layer)
            for a, b in zip(stored[layer], expected, strict=True):
                assert torch.equal(a, b)
    assert ours.length == ours.get_seq_length() == theirs.get_seq_length() == 9


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 2, 3], [0], []])
def test_of_the_newest_rows_some_stay_without_a_new_buffer(rows):
    cache = make_cache()
    before, newest = states(5, 0), states(4, 1)
    write(cache, before, 5)
    cache.keep(None, 5)
    write(cache, newest, 9)
    address = cache.layers[0].keys.data_ptr()
    # as a path of fixed length, in which what is not kept stands for nothing
    cache.keep(torch.tensor(rows + [3] * (4 - len(rows))), torch.tensor(len(rows)))
    assert cache.length == 5 + len(rows)
    assert cache.layers[0].keys.data_ptr() == address
    after = states(1, 2)
    for layer, stored in enumerate(write(cache, after, 6 + len(rows))):
        for i, state in enumerate(stored):
            expected = [before[layer][i], newest[layer][i][:, :, rows], after[layer][i]]
            assert torch.equal(state, torch.cat(expected, dim=2))


def test_layers_and_their_keys_and_values_may_differ_in_shape():
    shapes = [((1, 4), (1, 6)), ((2, 8), (2, 8)), ((1, 4), (1, 6))]
    cache = make_cache(shapes)
    written = [tuple(torch.randn(1, heads, 3, size) for heads, size in kept) for kept in shapes]
    write(cache, written, 16)
    cache.keep(torch.tensor([0, 2]), 2)
    for layer, (heads, size) in enumerate(pair[0] for pair in shapes):
        key, value = written[layer]
        assert torch.equal(cache.layers[layer].keys[:, :, :2], key[:, :, [0, 2]])
        assert torch.equal(cache.layers[layer].values[:, :, :2], value[:, :, [0, 2]])
        assert cache.layers[layer].keys.shape == (1, heads, 16, size)


def test_rows_behind_the_text_are_hidden_but_for_those_that_a_tree_sees():
    seen = torch.tensor([[True, False, False], [True, True, False], [True, False, True]])
    for before in (0, 2):
        mask = attention_mask(seen, torch.tensor(before), 7)
        assert mask[:, :before].all()
        assert torch.equal(mask[:, before : before + 3], seen)
        assert not mask[:, before + 3 :].any()


def test_extents_and_capacities():
    assert Extent(300).rows(4) == 304
    assert Extent(300, fixed=512).rows(4) == 512
    assert [capacity_for(rows, False) for rows in (1, 256, 257, 600)] == [256, 256, 512, 768]
    assert [capacity_for(rows, True) for rows in (1, 256, 257, 600)] == [256, 256, 512, 1024]
