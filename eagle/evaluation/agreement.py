"""Agreement of the draft's predictions with the verifier's on held-out text."""

import torch

from eagle.draft.draft import attend_within_documents
from eagle.errors import InputError
from eagle.evaluation.intervals import Rate
from eagle.evaluation.models import Models
from eagle.evaluation.work import of_agreement
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress
from eagle.training.features import compute_features


@torch.inference_mode()
def top1_agreement(held_out: TokenSet, models: Models, progress: Progress) -> Rate:
    """At how many of the decoding-aligned positions t head(draft) and head(f_{t+1}) have the same
    most likely token.

    Raises:
        InputError: features or predictions are not finite: NaN would agree with NaN.
    """
    verifier, draft, _ = models
    agreements = positions = 0
    for document in range(len(held_out)):
        counted = held_out.counted(document, "decoding", verifier.stop_token_ids)
        next_tokens = held_out.token_ids[held_out.span(document)][1:].long()
        features = compute_features(held_out, verifier, [document])
        pairs = len(next_tokens)
        predicted = draft(
            features[:-1],
            verifier.embedding[next_tokens.to(features.device)],
            torch.arange(pairs, device=features.device),
            attend_within_documents([pairs], "sdpa"),
        )
        if not predicted.isfinite().all():
            raise InputError(
                f"held-out document {document}: the draft's predictions are not finite in "
                f"{str(predicted.dtype).removeprefix('torch.')}; evaluate in bfloat16 or float32 "
                "(evaluate.dtype)"
            )
        drafted, true = (
            (states[counted.to(features.device)] @ verifier.head.T).argmax(-1)
            for states in (predicted, features[1:])
        )
        agreements += int((drafted == true).sum())
        positions += int(counted.sum())
        progress.advance(of_agreement(pairs), note="agreement")
    if not positions:
        raise InputError(
            f"none of {len(held_out)} held-out conversations has a position that counts, so there "
            "is no agreement to measure; raise sharegpt.validation_fraction"
        )
    return Rate(agreements, positions)
