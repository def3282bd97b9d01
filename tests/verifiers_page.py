"""benchmarks/results/verifiers.json, and docs/verifiers.md that is written from it."""

import json
from collections import Counter
from pathlib import Path

import transformers

from eagle.files import write_json, write_text
from tests.matrix import Outcome

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/verifiers.json"
PAGE = ROOT / "docs/verifiers.md"
TEXT = """\
# Verifiers

Which models can be a verifier. This page is written by `python -m tools.test_long families`, which
builds a tiny model with random weights of every family of causal language models that transformers
{version} lists, and takes it through the whole workflow. A family can have more rows: one for each
form that published models have and the family's default does not.

- **works**: template proof, tokens, training, all three exports, evaluation and regeneration. The
  head makes the model's logits of the features. Speculative and vanilla decoding write what
  transformers' `generate` writes, and so does regeneration. Every token of a tree has the features
  that it has in a text without a cache.
- **refused**: `download_model`, and every other stage that loads the verifier, ends with one line
  that names the reason. Nothing was computed.
- **not built**: transformers itself cannot make a small model of the family here.

{counts}

## What a verifier must be

`eagle/verifier/admission.py` decides this from `config.json` and the headers of the files, before a
weight is read. It follows what the model's code does; it has no list of families.

- A whole checkpoint in transformers layout: every tensor is there in the shape that the config
  states, and none is left over. No adapter lies beside it, and the weights are not quantised. Code
  in the checkpoint is not run.
- A decoder alone. Of a multimodal model, only the language model counts.
- A rotary embedding that `config.json` states (`rope_parameters`), because the draft takes its own
  from there. Where it is stated by the type of layer, the draft takes that of full attention.
- Every layer keeps keys and values of its own for every token, and all layers are
  `full_attention` or `sliding_attention`. Latent attention is one of these. Linear, recurrent and
  indexed attention are not, nor are convolutions and layers that share keys.
- A token depends on the tokens before it, and on no other token.
- The head reads the features themselves, without a bias, and the logits are features times head:
  not scaled, not capped. EAGLE-1 engines apply the head alone. Embedding and head have one shape.
- Attention runs with SDPA; a model without it runs with eager attention.

`train.initialization: auto` takes `last_layer` where the last layer computes as Llama's does, and
`least_squares` elsewhere. The table shows which one it took.

## Works

| family | attention | initialization |
|---|---|---|
{works}

## Refused

| family | reason |
|---|---|
{refused}

## Not built

| family | exception |
|---|---|
{unbuilt}
"""


def record(name: str, outcome: Outcome) -> None:
    """Write one row of the results, and the page anew. Another transformers begins new results.

    Raises:
        AssertionError: what worked before with this transformers no longer does.
    """
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if results.get("transformers") != transformers.__version__:
        results = {"transformers": transformers.__version__, "verifiers": {}}
    rows = results["verifiers"]
    before = rows.get(name, {}).get("outcome")
    assert before != "works" or outcome.outcome == "works", (
        f"{name} worked before: {outcome}; if that is meant, remove its row from {RESULTS}"
    )
    rows[name] = outcome._asdict()
    results["verifiers"] = dict(sorted(rows.items()))
    write_json(RESULTS, results)
    write_text(PAGE, page(results))


def page(results: dict) -> str:
    """docs/verifiers.md."""
    rows = results["verifiers"]
    counts = Counter(row["outcome"] for row in rows.values())

    def table(outcome: str, *columns: str) -> str:
        return "\n".join(
            f"| {name} | {' | '.join(row[column] for column in columns)} |"
            for name, row in rows.items()
            if row["outcome"] == outcome
        )

    return TEXT.format(
        version=results["transformers"],
        counts=f"{len(rows)} rows: {counts['works']} work, {counts['refused']} are refused, "
        f"{counts['not built']} could not be built.",
        works=table("works", "attn", "initialization"),
        refused=table("refused", "reason"),
        unbuilt=table("not built", "reason"),
    )
