"""Documents, and which of their positions count, written out token by token."""

from collections import Counter

import pytest
import torch

from eagle.errors import InputError
from eagle.tokens.token_set import TokenSet, balance_by_tokens

STOP = 9
# two turns:      U  U  A  A stop nl U  A  stop nl        (A and stop are the assistant's)
TWO_TURNS_IDS = [1, 2, 5, 6, STOP, 3, 1, 7, STOP, 3]
TWO_TURNS_MASK = [0, 0, 1, 1, 1, 0, 0, 1, 1, 0]


def two_turns() -> TokenSet:
    """The written-out document between two others."""
    ids = [4, 4, 5, STOP, *TWO_TURNS_IDS, 1, 5, 6, STOP]
    mask = [0, 0, 1, 1, *TWO_TURNS_MASK, 0, 1, 1, 1]
    return TokenSet(
        torch.tensor(ids, dtype=torch.int32),
        torch.tensor(mask, dtype=torch.uint8),
        torch.tensor([0, 4, 14, 18]),
    )


def test_official_alignment_counts_t_when_token_t_is_the_assistants():
    counted = two_turns().counted(1, "official", [STOP])
    assert counted.tolist() == [bool(masked) for masked in TWO_TURNS_MASK[:-1]]


def test_decoding_alignment_counts_t_when_token_t_plus_1_continues_a_reply():
    counted = two_turns().counted(1, "decoding", [STOP])
    #        t:            0      1     2     3      4      5      6     7      8
    # token t+1:           U      A     A     stop   nl     U      A     stop   nl
    assert counted.tolist() == [False, True, True, False, False, False, True, False, False]


def test_the_last_position_of_a_document_has_no_target():
    tokens = two_turns()
    for alignment in ("official", "decoding"):
        for document in range(3):
            counted = tokens.counted(document, alignment, [STOP])
            assert len(counted) == tokens.length(document) - 1


def test_what_a_template_masks_after_the_stop_token_is_not_met_in_serving():
    tokens = TokenSet(  # as Llama-2's official mask: answer, </s>, <s>
        torch.tensor([1, 5, 6, STOP, 8, 5, STOP], dtype=torch.int32),
        torch.tensor([0, 1, 1, 1, 1, 0, 0], dtype=torch.uint8),
        torch.tensor([0, 7]),
    )
    counted = tokens.counted(0, "decoding", [STOP])
    assert counted.tolist() == [True, True, False, False, False, False]


def test_a_reply_without_a_stop_token_does_not_teach_what_the_template_put_behind_it():
    tokens = TokenSet(  # the first reply was cut: its stop token is not the assistant's
        torch.tensor(TWO_TURNS_IDS, dtype=torch.int32),
        torch.tensor([0, 0, 1, 1, 0, 0, 0, 1, 1, 0], dtype=torch.uint8),
        torch.tensor([0, 10]),
    )
    official = tokens.counted(0, "official", [STOP])
    #  t:                    U      U      A     A      stop   nl     U      A     stop
    assert official.tolist() == [False, False, True, False, False, False, False, True, True]
    decoding = tokens.counted(0, "decoding", [STOP])
    assert decoding.tolist() == two_turns().counted(1, "decoding", [STOP]).tolist()


def test_a_saved_set_comes_back_and_can_be_limited(tmp_path):
    tokens = two_turns()
    tokens.save(tmp_path / "t.safetensors")
    again = TokenSet.load(tmp_path / "t.safetensors")
    assert torch.equal(again.token_ids, tokens.token_ids)
    assert torch.equal(again.bounds, tokens.bounds)
    short = again.limited(3)
    assert [short.length(document) for document in range(3)] == [3, 3, 3]
    assert torch.equal(short.token_ids[short.span(1)], tokens.token_ids[4:7])


def test_a_cut_off_file_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    two_turns().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a token file"):
        TokenSet.load(path)


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_documents_are_distributed_whole_and_evenly(slots):
    lengths = [7, 100, 30, 30, 20, 60, 5, 9]
    balanced = balance_by_tokens(list(range(8)), lengths, slots)
    assert Counter(d for slot in balanced for d in slot) == Counter(range(8))
    filled = [sum(lengths[d] for d in slot) for slot in balanced]
    assert max(filled) <= max(100, 2 * sum(lengths) / slots)


def test_more_slots_than_documents_leaves_slots_empty():
    assert sorted(map(len, balance_by_tokens([3, 4], [0, 0, 0, 5, 6], 4))) == [0, 0, 1, 1]
