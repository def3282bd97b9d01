"""How fast the decoders are, compared with each other and with transformers' own `generate`.

    python -m benchmarks.decode_speed

It needs the default's outputs of `dvc repro` (resources/verifier, models/export), and runs in
bfloat16. All decoders take turns on each of the shipped questions, so that whatever slows the
machine slows them alike. `generate` runs the model as transformers loads it; our decoders run on
reordered weights (eagle/draft/onednn_weights.py), and vanilla also on the weights as loaded. "auto"
is the decoder that `evaluate` chooses by default, compared with its own forecast. Prints tokens/s
and writes benchmarks/results/decode_speed.json. Steps of a 7B verifier on a GPU are timed in
benchmarks/gpu.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.compare_worker import DRAFT, DRAFT_VOCABULARY, SHAPES, VERIFIER
from eagle.decoding.speculative import Decoders, Generation, Launch
from eagle.evaluation.forecast import forecast_on
from eagle.evaluation.intervals import interval_over_prompts
from eagle.evaluation.metrics import (
    acceptance_length,
    draft_share,
    speedup,
    tokens_per_second,
)
from eagle.evaluation.models import frequent_tokens, load_models
from eagle.files import write_json
from eagle.provenance import provenance
from eagle.questions import select_questions
from eagle.template.template import encode_prompt, own_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.training.memory_and_flops import peak_memory_mb
from eagle.verifier.verifier import Verifier

RESULT = Path("benchmarks/results/decode_speed.json")
AUTO = "auto"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained_on = TokenSet.load(Path("resources/tokens/train.safetensors"))
    drafted = frequent_tokens(trained_on, VERIFIER, DRAFT_VOCABULARY)
    verifier, draft, vocabulary = load_models(VERIFIER, DRAFT, torch.bfloat16, device, drafted)
    tokens = arguments.tokens
    prompts = read_prompts(arguments.questions)
    held_out = TokenSet.load(Path("resources/tokens/validation.safetensors"))
    on_gpu = device.type == "cuda"
    launch = Launch(graphs=on_gpu, compiled=on_gpu)
    best = forecast_on(held_out, verifier, draft, vocabulary, chains=False, launch=launch)[0]
    shapes = SHAPES | {AUTO: best.shape}
    ours = Decoders(verifier, draft, vocabulary, launch=launch)
    for shape in shapes.values():  # before the weights in their ordinary layout are loaded
        ours.speculate(max(prompts, key=len), tokens, shape)
    peak = peak_memory_mb(device)
    as_loaded = Verifier.load(VERIFIER, torch.bfloat16, device)
    plain = Decoders(as_loaded, launch=launch)
    decoders: dict[str, Callable[[list[int]], Generation]] = {
        "transformers.generate": lambda prompt: generate(as_loaded, prompt, tokens),
        "vanilla, plain weights": lambda prompt: plain.vanilla(prompt, tokens),
        "vanilla": lambda prompt: ours.vanilla(prompt, tokens),
    } | {
        name: lambda prompt, shape=shape: ours.speculate(prompt, tokens, shape)
        for name, shape in shapes.items()
    }
    generations: dict[str, list[Generation]] = {name: [] for name in decoders}
    for number, prompt in enumerate(prompts):
        for name, decode in decoders.items():
            if number == 0:
                decode(prompt)  # the first call also pays for allocation and cold caches
            generations[name].append(decode(prompt))
    rows = {}
    reference = generations["vanilla"]
    for name, decoded in generations.items():
        rows[name] = {
            "seconds": round(sum(generation.seconds for generation in decoded), 1),
            "tokens_per_second": tokens_per_second(decoded),
            "over_vanilla": speedup(decoded, reference),
            "over_vanilla_95": interval_over_prompts(
                speedup,
                decoded,
                reference,
                trials=sum(len(generation.token_ids) for generation in decoded),
                seed=0,
            ),
            "tau": acceptance_length(decoded) if decoded[0].accepted else 1.0,
            "draft_share": draft_share(decoded) if decoded[0].accepted else 0.0,
        }
        print(
            f"{name:<24} {rows[name]['tokens_per_second']:6.1f} tokens/s, "
            f"{rows[name]['over_vanilla']:.2f} x vanilla, tau {rows[name]['tau']:.2f}"
        )
    measured = speedup(generations[AUTO], reference, prefill=False)
    rows[AUTO] |= {
        "decoder": best.name,
        "forecast_tau": best.tau,
        "break_even_tau": best.step_cost,
        "measured_over_forecast": measured / best.speedup,
    }
    print(f"{AUTO} is a {best.name}; measured / forecast: {measured / best.speedup:.2f}")
    source = provenance(vars(arguments), {}, time.monotonic() - started)
    files = [file for folder in (VERIFIER, DRAFT) for file in folder.glob("*.safetensors")]
    weights = sum(file.stat().st_size for file in files) / 1e6
    memory = {"weights_mb": round(weights), "peak_memory_mb": round(peak)}
    write_json(RESULT, {"decoders": rows, **memory, "provenance": source})
    print(f"wrote {RESULT}")


def read_prompts(count: int) -> list[list[int]]:
    """Token ids of the first turns of the shipped questions."""
    tokenizer = load_tokenizer(VERIFIER)
    template = own_template(tokenizer)
    return [
        encode_prompt(tokenizer, template, [{"role": "user", "content": question["turns"][0]}])
        for question in select_questions("resources/bench/default.jsonl", count)
    ]


def generate(verifier: Verifier, prompt: list[int], tokens: int) -> Generation:
    """transformers' own greedy decoding, as a generation without a separate prefill."""
    device = verifier.head.device
    started = time.perf_counter()
    ids = torch.tensor([prompt], device=device)
    output = verifier.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
    )
    text = output[0, len(prompt) :].tolist()  # copying to the host waits for the device
    return Generation(text, 0.0, time.perf_counter() - started, len(text) - 1)


if __name__ == "__main__":
    main()
