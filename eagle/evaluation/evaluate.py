"""The evaluation of a draft: agreement on held-out text, acceptance, speed and losslessness."""

from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from eagle.checksums import checked
from eagle.config import Evaluate
from eagle.decoding.sampler import GREEDY, Sampler, Sampling
from eagle.decoding.speculative import Decoders, Generation, Launch
from eagle.decoding.tree import Tree
from eagle.draft.checkpoint import draft_files
from eagle.errors import InputError
from eagle.evaluation import work
from eagle.evaluation.agreement import top1_agreement
from eagle.evaluation.automatic import named_choices, resolved
from eagle.evaluation.decoder import choose_decoder, stated_decoder
from eagle.evaluation.lossless import largest_rounding, prove_lossless
from eagle.evaluation.metrics import RATE_POSITIONS
from eagle.evaluation.models import Models, frequent_tokens, load_models
from eagle.evaluation.race import Prompt, Race, race_decoders
from eagle.evaluation.samples import decode_samples
from eagle.evaluation.summary import Evaluation, Measurements, summarize
from eagle.questions import select_questions
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress


def evaluate(
    settings: Evaluate,
    verifier_folder: Path,
    draft_folder: Path,
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    trained_on: TokenSet,
    held_out: TokenSet,
    progress_seconds: float,
) -> Evaluation:
    """Measure a draft in the official layout.

    Speed, tau and agreement in `settings.dtype`, with vanilla and the draft's decoder in turn on
    each prompt; acceptance rates in float32, by a chain. Losslessness in both: in float32 a first
    difference must be a tie in float64; in `settings.dtype` it must be a near-tie in float32,
    within twice the largest difference that this run measures between verifying the same tokens at
    once and one by one.

    Args:
        trained_on: tells which tokens are frequent, for `settings.draft_vocabulary`.
        held_out: agreement is measured on these conversations, and a decoder is chosen on replies
            to them, so that the questions have no influence on it.

    Raises:
        InputError: questions, draft or decoder cannot be used, or a model's files are damaged.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked, settings = settings, resolved(settings, device.type)
    if choices := named_choices(asked, settings, device.type):
        print(choices, flush=True)
    questions = select_questions(settings.bench, settings.questions)
    decoder = stated_decoder(settings)
    sampler = _sampler(settings)
    on_gpu = device.type == "cuda"
    launch = Launch(
        graphs=on_gpu and settings.cuda_graphs == "auto",
        compiled=on_gpu and settings.compile == "auto",
    )
    load = partial(
        load_models, verifier_folder, draft_folder,
        device=device,
        drafted=frequent_tokens(trained_on, verifier_folder, settings.draft_vocabulary),
    )  # fmt: skip
    # once: they are loaded again in float32
    with checked(verifier_folder, *draft_files(draft_folder)):
        models = load(getattr(torch, settings.dtype))
    turns = sum(len(question["turns"]) for question in questions)
    total = work.of_all(settings, turns, len(held_out.token_ids), decoder is None)
    with Progress("evaluate", total, "steps", progress_seconds) as progress:
        if decoder is None:
            decoder = choose_decoder(settings.decoder, models, held_out, launch)
            progress.advance(work.CHOICE, note="choice of a decoder")
        race = race_decoders(
            questions,
            Decoders(*models, sampler, launch),
            decoder.shape,
            template,
            tokenizer,
            settings,
            progress,
        )
        samples = decode_samples(
            questions,
            race,
            Decoders(*models, _sampler(settings), launch),
            decoder.shape,
            tokenizer,
            settings,
            progress,
        )
        rounding = largest_rounding(models.verifier, race)
        agreement = top1_agreement(held_out, models, progress)
        del models  # makes room for the models in float32
        exact = load(torch.float32)
        greedy, chains = _decode_chains(settings, exact, race, sampler, launch, progress)
        proof = prove_lossless(settings, verifier_folder, exact.verifier, greedy, race, rounding)
        progress.advance(work.of_proof(settings, len(greedy)), note="losslessness")
    _check_drafted(settings, race.speculative)
    _check_drafted(settings, chains)
    return summarize(settings, Measurements(decoder, race, samples, agreement, chains, proof))


def _sampler(settings: Evaluate) -> Sampler:
    if settings.temperature == 0:
        return GREEDY
    sampling = Sampling(settings.temperature, settings.top_p, settings.top_k)
    return Sampler(sampling, torch.Generator().manual_seed(settings.seed))


def _decode_chains(
    settings: Evaluate,
    models: Models,
    race: Race,
    sampler: Sampler,
    launch: Launch,
    progress: Progress,
) -> tuple[list[Generation], list[Generation]]:
    """Generations by chains, greedy ones and ones by the sampler; at temperature 0 the same ones.

    Both are for the first of the race's prompts.
    """
    shape = Tree.chain(RATE_POSITIONS)

    def decode(prompt: Prompt, decoders: Decoders) -> Generation:
        return decoders.speculate(prompt.token_ids, settings.lossless_tokens, shape)

    most_likely = Decoders(*models, GREEDY, launch)
    prompts = race.prompts[: settings.lossless_prompts]
    greedy = []
    for prompt in prompts:
        greedy.append(decode(prompt, most_likely))
        progress.advance(work.of_chain(settings), note="losslessness")
    if settings.temperature == 0:
        return greedy, greedy
    drawn = Decoders(*models, sampler, launch)
    return greedy, [decode(prompt, drawn) for prompt in prompts]


def _check_drafted(settings: Evaluate, generations: list[Generation]) -> None:
    if not any(generation.accepted for generation in generations):
        raise InputError(
            f"{settings.bench}: the verifier ended every reply to the first {len(generations)} "
            "prompts with its first token, so nothing was drafted; check the prompts and the "
            "chat template, or raise evaluate.questions and evaluate.lossless_prompts"
        )
