"""The cache stores what transformers' own would, and keeps the accepted rows in place."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from eagle.decoding.kv_cache import KeyValueCache

CONFIG = LlamaConfig(
    num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1
)

SHAPES = [((1, 4), (1, 4))] * 2


def states(tokens: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, G, T, D] of each layer."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, 1, 1, tokens, 4, generator=generator)) for _ in range(2)]


def test_it_stores_what_transformers_cache_would():
    ours = KeyValueCache(SHAPES, 16, torch.float32, torch.device("cpu"))
    theirs = DynamicCache(config=CONFIG)
    for seed, tokens in enumerate((5, 1, 3)):
        for layer, (key, value) in enumerate(states(tokens, seed)):
            stored, expected = (c.update(key, value, layer) for c in (ours, theirs))
            for a, b in zip(stored, expected, strict=True):
                assert torch.equal(a, b)
    assert ours.length == ours.get_seq_length() == theirs.get_seq_length() == 9


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 2, 3], [0], []])
def test_of_the_newest_rows_some_stay_without_a_new_buffer(rows):
    cache = KeyValueCache(SHAPES, 16, torch.float32, torch.device("cpu"))
    before, newest = states(5, 0), states(4, 1)
    for part in (before, newest):
        for layer, (key, value) in enumerate(part):
            cache.update(key, value, layer)
    address = cache.layers[0].keys.data_ptr()
    cache.keep(rows, newest=4)
    assert cache.length == 5 + len(rows)
    assert cache.layers[0].keys.data_ptr() == address
    after = states(1, 2)
    for layer, (key, value) in enumerate(after):
        stored = cache.update(key, value, layer)
        for i, state in enumerate(stored):
            expected = [before[layer][i], newest[layer][i][:, :, rows], after[layer][i]]
            assert torch.equal(state, torch.cat(expected, dim=2))


def test_layers_and_their_keys_and_values_may_differ_in_shape():
    shapes = [((1, 4), (1, 6)), ((2, 8), (2, 8)), ((1, 4), (1, 6))]
    cache = KeyValueCache(shapes, 16, torch.float32, torch.device("cpu"))
    written = []
    for layer, kept in enumerate(shapes):
        written.append([torch.randn(1, heads, 3, size) for heads, size in kept])
        cache.update(*written[-1], layer)
    cache.keep([0, 2], newest=3)
    for layer, (heads, size) in enumerate(pair[0] for pair in shapes):
        key, value = written[layer]
        assert torch.equal(cache.layers[layer].keys[:, :, :2], key[:, :, [0, 2]])
        assert torch.equal(cache.layers[layer].values[:, :, :2], value[:, :, [0, 2]])
        assert cache.layers[layer].keys.shape == (1, heads, 16, size)
