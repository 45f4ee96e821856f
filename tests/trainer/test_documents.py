"""Documents: where they start, and that nothing looks past their start."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer.contract import SEPARATOR, document_id
from trainer.model.documents import document_mask, document_starts, places, previous
from trainer.model.ngram import hash_ngrams

IDS = torch.tensor([[5, 6, 0, 7, 8, 0, 0, 9]])
STARTS = torch.tensor([[1, 0, 1, 0, 0, 1, 1, 0]], dtype=torch.bool)

SAFE = {"DOCUMENT_ATTENTION": 1, "NUM_LAYERS": 3}
LOOKING_BACK = [
    {},
    {"NGRAM_MAX_ORDER": 4, "NGRAM_DIM": 4, "NGRAM_LOGITS": 1, "DOCUMENT_NGRAMS": 1},
    {"SMEAR_GATE": "channel"},
    {"SMEAR_GATE": "token", "BIGRAM_VOCAB_SIZE": 64, "BIGRAM_DIM": 4},
    {"NUM_LOOPS": 1, "LOOP_START": 1, "LOOP_END": 1, "SKIP_GATES_ENABLED": 1},
]


def test_documents_start_at_their_separator_and_at_the_window() -> None:
    """A separator is the first id of its document; the window's first id starts one, whatever it is."""
    assert torch.equal(document_starts(IDS, 0), STARTS)
    assert torch.equal(places(STARTS), torch.tensor([[0, 1, 0, 1, 2, 0, 0, 1]]))


def test_document_mask_is_causal_and_within_documents() -> None:
    """Column s is open to row t exactly when s is not later and the two lie in one document."""
    mask = document_mask(STARTS)[0, 0]
    number = [0, 0, 1, 1, 1, 2, 3, 3]
    for row in range(8):
        for column in range(8):
            assert mask[row, column].item() == (column <= row and number[row] == number[column])


def test_previous_is_zero_at_document_starts() -> None:
    """Everything moves on by one, and nothing moves into a new document."""
    x = torch.arange(1.0, 9.0).view(1, 8, 1)
    assert previous(x, STARTS).flatten().tolist() == [0, 1, 0, 3, 4, 0, 0, 7]


def test_ngrams_within_documents_equal_those_of_the_document_alone() -> None:
    """The rows of a packed stream are those that each document has by itself."""
    packed = hash_ngrams(IDS, 4, 64, STARTS)
    for first, stop in ((0, 2), (2, 5), (5, 6), (6, 8)):
        assert torch.equal(packed[:, first:stop], hash_ngrams(IDS[:, first:stop], 4, 64))


@pytest.mark.parametrize("length", [16, 700])
@pytest.mark.parametrize("more", LOOKING_BACK, ids=str)
def test_packed_documents_do_not_see_each_other(more: dict[str, object], length: int) -> None:
    """[A, B] packed: another A leaves every logit of B as it was, to the last bit; without the switch it would not."""
    a, b = text(2, 1, length) % (VOCAB - 1) + 1, text(2, 2, length) % (VOCAB - 1) + 1
    other = text(2, 3, length) % (VOCAB - 1) + 1
    b[:, 0] = document_id("bytes")
    b[:, -3] = document_id("bytes")
    packed, changed = torch.cat([a, b], 1), torch.cat([other, b], 1)
    model = built(settings(**SAFE | more))
    with torch.no_grad():
        assert torch.equal(model(packed)[:, length:], model(changed)[:, length:])
        model = built(settings(**SAFE | more | {"DOCUMENT_ATTENTION": 0}))
        assert not torch.equal(model(packed)[:, length:], model(changed)[:, length:])


def test_packed_document_predicts_what_it_predicts_alone() -> None:
    """Positions are relative, so a document packed behind another has the logits it has at the start of a window."""
    model = built(settings(**SAFE | {"SMEAR_GATE": "token", "BIGRAM_VOCAB_SIZE": 64, "BIGRAM_DIM": 4}))
    a, b = text(2, 1) % (VOCAB - 1) + 1, text(2, 2) % (VOCAB - 1) + 1
    b[:, 0] = 0
    torch.testing.assert_close(model(torch.cat([a, b], 1))[:, a.shape[1] :], model(b))


def test_document_attention_changes_nothing_in_one_document() -> None:
    """Without a separator inside, masked attention is causal attention."""
    ids = text(2) % (VOCAB - 1) + 1
    torch.testing.assert_close(built(settings(DOCUMENT_ATTENTION=1))(ids), built(settings())(ids))


def test_document_id_is_the_alphabets() -> None:
    """Bytes are parted by the separator, pieces by the begin mark."""
    assert (document_id("bytes"), document_id("sp1024")) == (SEPARATOR, 1)
