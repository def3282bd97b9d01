"""Every parameter of the project: name, type, range and meaning, once.

params.yaml states the values, all of them, and is checked against `Params`, whose sections have no
defaults. The JSON schema in workflow/schemas is written from it (`python -m eagle.config`). The two
commands of the upstream tutorial take the same fields as flags in kebab case; their defaults stand
in `TrainConfig` and `PrepareShareGptConfig`, and docs/tutorial_defaults.md lists where they differ
from params.yaml.
"""

import argparse
import datetime
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from eagle.errors import InputError, shortened
from eagle.files import write_json
from eagle.yaml_file import read_yaml

SCHEMA = Path("workflow/schemas/params.schema.json")
Dtype = Literal["float32", "bfloat16", "float16"]

# Names of the speakers in ShareGPT's exports and in the messages form.
REJECT = "reject"
ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "tool": REJECT,
    "function": REJECT,
    "function_call": REJECT,
    "observation": REJECT,
}


# Bounds far above what is of use, so that a slip is refused before it hangs or fills the memory.
MOST_UPDATES = 10**9
LONGEST_CONTEXT = 2**24  # tokens; models of 10 million are published
LONGEST_REPLY = 2**17  # tokens
LARGEST_VOCABULARY = 10**7  # tokens
LARGEST_BATCH = 2**16  # conversations
MOST_PROCESSES = 1024
LONGEST_CHAIN = 64  # drafted tokens one after another
MOST_NODES = 1024  # of a tree of drafted tokens
LEAST_TEMPERATURE = 0.01  # above 0; with less, float32 overflows


# Names on the hub. No part of a file's path begins with a dot, so that it leads out of no folder.
HUB_NAME = r"hub:\w[\w.-]*/\w[\w.-]*"
HUB_FILE = HUB_NAME + r"(/[^./\\\x00-\x1f][^/\\\x00-\x1f]*)+"


def _names_a_file(source: str) -> str:
    if source.startswith("hub:") and not re.fullmatch(HUB_FILE, source, re.ASCII):
        raise ValueError("a hub data set is named hub:OWNER/NAME/FILE")
    return source


def _names_a_model(source: str) -> str:
    if source.startswith("hub:") and not re.fullmatch(HUB_NAME, source, re.ASCII):
        raise ValueError("a model on the hub is named hub:OWNER/NAME")
    return source


def _is_greedy_or_warm(temperature: float) -> float:
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(f"expected 0 (greedy), or at least {LEAST_TEMPERATURE}")
    return temperature


def _expected(what: str) -> WrapValidator:
    """One line that says what is allowed, in place of one for each member of a union."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"expected {what}") from None

    return WrapValidator(check)


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Temperature = Annotated[float, Field(ge=0, le=10), AfterValidator(_is_greedy_or_warm)]


# Fields that a section of params.yaml and a command have in common.
ConversationSource = Annotated[
    str,
    AfterValidator(_names_a_file),
    Field(
        description="Conversations in ShareGPT's or in the messages form: a JSON, JSON-lines or "
        "Parquet file (JSON also as .gz or .zst), a folder of them, or hub:OWNER/NAME/FILE."
    ),
]
MaximumModelLength = Annotated[
    int,
    Field(
        ge=2,
        le=LONGEST_CONTEXT,
        description="Longest document in tokens, if the verifier's context is not shorter; the "
        "rest of a conversation is cut off and counted.",
    ),
]


def _is_a_day(value: Any) -> str:
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):  # YAML reads a date without quotes as another type
        raise ValueError('expected a day such as "2024-07-26", in quotes') from None


TemplateDate = Annotated[
    str,
    BeforeValidator(_is_a_day),
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="The day that a chat template writes where it asks for today's (Llama 3.2's, "
        "SmolLM3's), as YYYY-MM-DD.",
    ),
]
VerifierSharding = Annotated[
    Literal["none", "fsdp2"],
    Field(
        description="fsdp2: the verifier's layers are split over the training processes, for a "
        "verifier that does not fit on one GPU."
    ),
]
PeakTflops = Annotated[
    float | None,
    Field(
        gt=0,
        le=10**6,
        description="Peak speed of one device in the compute precision, in TFLOP/s, for the FLOP "
        "utilization in the history; null: the history has none.",
    ),
]
SaveMinutes = Annotated[
    float,
    Field(
        ge=0,
        le=24 * 60,
        description="Least minutes between those states: the later of both bounds counts.",
    ),
]
ProgressSeconds = Annotated[
    float,
    Field(
        gt=0,
        le=24 * 3600,
        description="Seconds between progress lines when the output is not a terminal.",
    ),
]


class Section(BaseModel):
    """A section of params.yaml: every key is required, others are refused, and none changes
    later. A value is of its key's type: neither `true` nor a text is taken for a number."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )


SectionT = TypeVar("SectionT", bound=Section)


def with_defaults(section: type[SectionT], **defaults: Any) -> type[SectionT]:
    """A section for a command: its types, bounds, help and checks, with these default values."""
    fields: dict[str, Any] = {}
    for name, value in defaults.items():
        field = section.model_fields[name]
        fields[name] = (Annotated[field.annotation, field], value)
    return create_model(section.__name__, __base__=section, **fields)


class Verifier(Section):
    source: Annotated[
        str,
        AfterValidator(_names_a_model),
        Field(pattern=r"^(package|path|hub):.+", examples=["hub:org/name"]),
    ]
    """Where the model comes from: package:NAME (installed, holding a GGUF file), path:FOLDER
    (transformers layout) or hub:OWNER/NAME."""
    revision: str | None
    """Hub: the 40-character commit; package: its version. Null for a local folder."""
    license: str | None
    """The model's licence as the hub names it (apache-2.0, llama2, …), for the drafts' model cards;
    null: what its own card or its file LICENSE says; where they say nothing, the cards state
    none."""

    @model_validator(mode="after")
    def _revision_is_that_of_the_source(self) -> Self:
        pinned = self.revision is not None and len(self.revision) == 40
        if self.source.startswith("hub:") and not pinned:
            raise ValueError("a hub verifier needs `revision`, the 40-character commit")
        if self.source.startswith("path:") and self.revision is not None:
            raise ValueError(
                f"a local folder has no revision, and reports would state {self.revision}; set "
                "`revision` to null"
            )
        return self


class ShareGptSelection(Section):
    """The rules by which the stage and the tutorial's command select conversations."""

    system_prompt: str
    """System turn put before conversations that have none: none, llama2 (the official recipe's
    safety prompt) or the path of a text file."""
    system_turns: Literal["keep", "drop"]
    """Keep or drop the system turns of the data; some templates (Gemma's, Mistral's) refuse them.
    `system_prompt` takes the place of a dropped one."""
    roles: dict[str, Literal["system", "user", "assistant", "reject"]]
    """Role of each speaker name in the data, in lower case. A turn of another name, or of one with
    the role reject, is unusable (see `unusable_turn`)."""
    drop_leading_reply: bool
    """Leave out an assistant turn before the first user turn; false: reject the conversation."""
    require_alternation: bool
    """Reject a conversation in which one role has two turns in a row; false: join such turns, with
    a blank line between them."""
    unusable_turn: Literal["reject", "cut"]
    """When a turn is empty, too long or undecodable, has an image, a call of a tool or a role that
    is rejected, or is not to be trained on: reject the conversation, or cut it before that
    exchange."""
    maximum_turn_characters: int | None = Field(ge=1, le=10**8)
    """Longest turn, in characters; null: any."""
    drop_duplicates: bool
    """Reject a conversation that repeats an earlier one exactly."""
    near_duplicate_similarity: float | None = Field(ge=0.1, le=1)
    """Reject a conversation that is at least this similar to an earlier one: Jaccard similarity of
    their sequences of five words, estimated by MinHash (0.8 is usual); null: no such check."""
    bench: str | None
    """Bench prompts that must not be trained on: a JSON-lines file in MT-bench's schema, a folder
    of such files, or a bench of the paper by its name; conversations that contain one are rejected.
    Null: no such check."""
    leak_words: int = Field(ge=3, le=1000)
    """Number of words in a row, shared with a bench prompt, that count as containing it; a shorter
    prompt must be a whole turn."""
    shuffle_seed: Seed
    """Seed of the shuffle, after which `n` or `frac` takes the first conversations."""
    n: int | None = Field(ge=1, le=10**9)
    """Number of conversations to take. Exactly one of `n` and `frac` is given."""
    frac: float | None = Field(gt=0, le=1)
    """Share of the conversations to take. Exactly one of `n` and `frac` is given."""

    @model_validator(mode="after")
    def _exactly_one_size(self) -> Self:
        if (self.n is None) == (self.frac is None):
            raise ValueError("give exactly one of `n` and `frac`")
        return self


def _check_pinned(source: str, revision: str | None) -> None:
    if source.startswith("hub:") and revision is None:
        raise ValueError("a hub data set needs `revision`, the 40-character commit")


class WeightedSource(Section):
    """One of several sources of conversations."""

    source: ConversationSource
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    """As `sharegpt.revision`."""
    weight: float = Field(gt=0, le=1)
    """Share of its usable conversations that is taken, chosen by `sharegpt.shuffle_seed`. No weight
    is above 1: a conversation that is trained on twice in a pass is also validated with."""

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> Self:
        _check_pinned(self.source, self.revision)
        return self


class ShareGpt(ShareGptSelection):
    source: Annotated[
        Annotated[ConversationSource, Tag("<one>")]
        | Annotated[list[WeightedSource], Field(min_length=1), Tag("<several>")],
        Discriminator(lambda value: "<several>" if isinstance(value, list) else "<one>"),
    ]
    """One source, or a list of several, each with source, revision and weight."""
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    """Hub: the 40-character commit of the data set. Null for a local file and for a list."""
    validation_fraction: float = Field(gt=0, lt=1)
    """Share of the conversations held out of training."""

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> Self:
        if isinstance(self.source, str):
            _check_pinned(self.source, self.revision)
        return self

    @model_validator(mode="after")
    def _sources_are_different(self) -> Self:
        if isinstance(self.source, list):
            names = [one.source for one in self.source]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"source {twice[0]} stands twice in the list")
            if self.revision is not None:
                raise ValueError("with a list of sources, `revision` stands beside each of them")
        return self


class Regenerate(Section):
    enabled: bool
    """Replace every assistant turn by the verifier's own reply (paper, Table 6)."""
    backend: Literal["transformers", "openai"]
    """transformers: the stage runs the verifier. openai: a server with OpenAI's API (vLLM, SGLang)
    runs it, at `machine.completion_server`."""
    temperature: Temperature
    """Sampling temperature; 0 is greedy."""
    maximum_new_tokens: int = Field(ge=1, le=LONGEST_REPLY)
    """Longest reply, in tokens."""
    batch_size: int = Field(ge=1, le=LARGEST_BATCH)
    """Conversations that the transformers backend answers at the same time."""
    dtype: Dtype
    """Precision of the verifier in the transformers backend."""
    seed: Seed
    """Seed of the sampling; each reply has its own generator, seeded with this, the conversation's
    id and the turn's number."""


class Template(Section):
    file: str | None
    """Jinja chat template with {% generation %} markers. Null: the verifier's own template if it
    has them, else the one in resources/chat_templates with the same rendering, else the verifier's
    own with markers inserted."""
    date: TemplateDate | None
    """The day that a template writes where it asks for today's, as YYYY-MM-DD; it becomes part of
    the template. Null: such a template is refused."""
    sample: int = Field(ge=1, le=10**6)
    """Number of conversations on which mask and rendering are checked."""


class Tokens(Section):
    maximum_model_length: MaximumModelLength


class Recipe(Section):
    """What decides the trained weights, for the stage and for the tutorial's command."""

    epochs: int = Field(ge=1, le=1000)
    """Passes over the training conversations."""
    learning_rate: float = Field(gt=0, le=1)
    """Peak of the linear schedule."""
    b1: float = Field(ge=0, lt=1)
    """AdamW's first beta."""
    b2: float = Field(ge=0, lt=1)
    """AdamW's second beta."""
    weight_decay: float = Field(ge=0, le=10)
    """AdamW's decoupled weight decay."""
    grad_clip: float = Field(gt=0, le=10**9)
    """Bound of the whole gradient of an update."""
    grad_clip_form: Literal["value", "norm"]
    """value: the bound applies to each element's absolute value (official code). norm: it applies
    to the gradient's norm; a bound far below the usual norm gives every update the same length, so
    that no unusual conversation outweighs others."""
    v_w: float = Field(ge=0, le=1000)
    """Weight of the regression loss: SmoothL1 between predicted and true features."""
    p_w: float = Field(ge=0, le=1000)
    """Weight of the classification loss: soft cross-entropy against the verifier."""
    noise_low: float = Field(ge=-10, le=10)
    """Lower bound of the uniform noise added to the input features."""
    noise_high: float = Field(ge=-10, le=10)
    """Upper bound of the uniform noise added to the input features."""
    noise_form: Literal["fixed", "length_scaled"]
    """fixed: the bounds as they stand (paper). length_scaled: times 512 / document length
    (official code)."""
    mask_alignment: Literal["official", "decoding"]
    """Positions t that count. official: token t is the assistant's. decoding: token t+1 is the
    assistant's and not the reply's stop token, as for a draft in serving."""
    eagle_config_path: Path | None = Field(strict=False)
    """Llama config of the draft layer; null: one layer of the verifier's own shape."""
    verifier_model_dtype: Dtype
    """Precision in which the verifier computes features."""
    verifier_model_lm_head_dtype: Dtype
    """Precision of the two products with the verifier's head; softmax and sums are float32."""
    eagle_dtype: Dtype
    """Compute precision of the draft when `mixed_precision` is none; its weights and optimizer
    state are always float32."""
    mixed_precision: Literal["none", "bf16"]
    """bf16: the draft computes in bfloat16 over its float32 weights."""
    attn: Literal["auto", "eager", "sdpa", "varlen", "flash_attention_2"]
    """How documents side by side attend within themselves, in the verifier and the draft. varlen:
    torch's FlashAttention, one kernel for all documents; 16-bit products on a GPU that has it.
    flash_attention_2: the flash-attn package, or varlen where it is not installed. sdpa: torch's
    fused kernels, a document at a time. eager: for reference. auto: varlen where it can be, sdpa
    elsewhere. Training says what it took."""
    deterministic: bool
    """On a GPU: take only algorithms that give the same numbers each time, so that a run that was
    killed and started again ends in bit-identical weights. They are slower, attention's backward
    pass above all. On a CPU it changes nothing: numbers are always the same there."""
    initialization: Annotated[
        Literal["random", "least_squares", "last_layer", "auto"]
        | Annotated[str, Field(pattern="^path:.+")],
        _expected("random, least_squares, last_layer, auto, or path:FOLDER of a draft"),
    ]
    """random: normal weights (official code). least_squares: `fc` is fitted to the features in
    closed form, and the output projections of attention and MLP are zero. last_layer: as
    least_squares, and the other weights of attention and MLP come from the verifier's last layer,
    which must be one of Llama's. auto: last_layer where that layer has the weights and the
    arithmetic of Llama's, least_squares elsewhere. path:FOLDER: the weights of an existing draft of
    the same verifier and shape, of models/draft or in the official layout."""
    rollout_steps: int = Field(ge=0, le=LONGEST_CHAIN)
    """Further steps in which the draft reads its own predictions, as in decoding; all steps weigh
    the same."""
    softmax_vocabulary: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=2, le=LARGEST_VOCABULARY)] | None,
        _expected(f"auto, null, or a number from 2 to {LARGEST_VOCABULARY}"),
    ]
    """Number of tokens, the most frequent in the training data, over which the classification loss
    computes its softmaxes; null: the full vocabulary; auto: the full one on a GPU, 8,192 on a CPU,
    where the product with the head takes most of the time. Validation always uses the full one."""
    features: Literal["cache", "replay"]
    """cache: the verifier's features are computed once and kept in $EAGLE_CACHE (default
    .cache/eagle). replay: the verifier runs again for each buffer of `replay_documents`."""
    replay_passes: int = Field(ge=1, le=1000)
    """With features: replay, the passes over a buffer, each with new order and noise, before the
    verifier runs for the next buffer; 1 is plain recomputation in every epoch."""
    replay_documents: int = Field(ge=1, le=10**6)
    """Conversations in a replay buffer. On every device it takes tokens x hidden x 2 bytes for the
    features, and the same for the teacher of the positions that count."""
    validation_updates: int | None = Field(ge=1, le=MOST_UPDATES)
    """Updates between validations; null: once an epoch. The last update is always validated."""
    seed: Seed
    """Seed of the initial weights, the order of documents and the noise."""

    @model_validator(mode="after")
    def _noise_is_a_range(self) -> Self:
        if self.noise_low > self.noise_high:
            raise ValueError(f"noise_low {self.noise_low} is above noise_high {self.noise_high}")
        return self

    @model_validator(mode="after")
    def _flash_attention_is_of_half_precision(self) -> Self:
        drafts_in = "bfloat16" if self.mixed_precision == "bf16" else self.eagle_dtype
        flash = self.attn in ("varlen", "flash_attention_2")
        if flash and "float32" in (self.verifier_model_dtype, drafts_in):
            raise ValueError(
                f"attn {self.attn} computes in bfloat16 or float16, and verifier_model_dtype "
                "or eagle_dtype (with mixed_precision none) is float32; choose attn auto or sdpa"
            )
        return self


class Train(Recipe):
    global_batch_size: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=LARGEST_BATCH)],
        _expected(f"auto, or a number from 1 to {LARGEST_BATCH}"),
    ]
    """Conversations in an update; auto: the largest of 1, 2, 4, 8 and 16 that leaves 500 updates in
    a pass over the training conversations. It may become 1, so with several processes or
    accumulation steps state a number."""
    warmup_updates: int = Field(ge=0, le=MOST_UPDATES)
    """Updates in which the learning rate rises from zero."""
    max_updates: int | None = Field(ge=1, le=MOST_UPDATES)
    """Length of the schedule in updates, at which training ends; null: from `epochs`."""


class Export(Section):
    checkpoint: Literal["best", "last"]
    """Which trained draft to export: the one of least validation loss, or the last one."""


class Evaluate(Section):
    bench: str
    """A bench of the paper, fetched from the hub (mt_bench, humaneval, gsm8k, alpaca), or a file in
    MT-bench's schema: JSON lines with question_id, category and turns."""
    system_prompt: str
    """System turn before every question, as in serving; values as of `sharegpt.system_prompt`."""
    questions: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=10**6)],
        _expected("auto, or a number from 1 to 1000000"),
    ]
    """Questions taken from the bench, spread evenly over it, each with all its turns; auto: 80 on a
    GPU, and on a CPU as many as have 20 turns."""
    maximum_new_tokens: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=2, le=LONGEST_REPLY)],
        _expected(f"auto, or a number from 2 to {LONGEST_REPLY}"),
    ]
    """Longest generation for speed and acceptance length, in tokens; auto: 256 on a GPU, 64 on a
    CPU."""
    decoder: Literal["chain", "static_tree", "dynamic_tree"]
    """What a step drafts: a chain of `draft_length` tokens, the tree `static_tree`, or a tree that
    is built anew in each step (EAGLE-2). The acceptance rates alpha_n are always those of a
    chain."""
    draft_length: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=LONGEST_CHAIN)],
        _expected(f"auto, or a number from 1 to {LONGEST_CHAIN}"),
    ]
    """Tokens of the chain (k); auto: the length with the fastest greedy decoding, forecast from
    measured acceptance and step times."""
    static_tree: Annotated[
        Literal["auto", "mc_sim_7b_63"]
        | Annotated[
            list[
                Annotated[
                    list[Annotated[int, Field(ge=0, lt=MOST_NODES)]],
                    Field(max_length=LONGEST_CHAIN),
                ]
            ],
            Field(max_length=MOST_NODES),
        ],
        _expected(
            f"auto, mc_sim_7b_63, or at most {MOST_NODES} nodes, each a list of ranks from 0 to "
            f"{MOST_NODES - 1}, such as [[0], [1], [0, 0]]"
        ),
    ]
    """The static tree: mc_sim_7b_63 (the paper's, 25 nodes), a list of its nodes as lists of ranks,
    such as [[0], [1], [0, 0]], or auto: the fastest one by the same forecast."""
    tree_tokens: int = Field(ge=2, le=MOST_NODES)
    """Tokens that the dynamic tree verifies at once, its root included."""
    tree_depth: int = Field(ge=1, le=LONGEST_CHAIN)
    """Levels of the dynamic tree, each a draft forward."""
    tree_top_k: int = Field(ge=1, le=128)
    """Nodes of the dynamic tree that are extended in each level, and candidates of each."""
    temperature: Temperature
    """Sampling temperature of verifier and draft for speed, acceptance length and acceptance rates;
    0 is greedy. Losslessness is always checked at 0."""
    top_p: float = Field(gt=0, le=1)
    """Tokens are drawn from the likeliest ones that together have this probability."""
    top_k: int | None = Field(ge=1, le=LARGEST_VOCABULARY)
    """Tokens are drawn from this many likeliest ones; null: from all."""
    draft_vocabulary: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=LARGEST_VOCABULARY)] | None,
        _expected(f"auto, null, or a number from 1 to {LARGEST_VOCABULARY}"),
    ]
    """Number of tokens, the most frequent in the training data, that the draft may propose; null:
    all, as engines do; auto: all on a GPU, 8,192 on a CPU. Fewer make a draft step cheaper and
    lower the acceptance."""
    cuda_graphs: Literal["auto", "off", False]
    """auto: on a GPU each kind of decoding step is captured as a CUDA graph before the clock
    starts, where the verifier's code allows it; off (which YAML reads as false): its kernels are
    launched one by one, which is slower and gives the same texts."""
    compile: Literal["auto", "off", False]
    """auto: on a GPU the verifier's layers are compiled for each kind of decoding step before the
    clock starts, some seconds for each: what stands between their products is fewer kernels then,
    with the same rounding. It needs triton and a C compiler. Where it cannot be done, one line says
    why, and the layers run as they are; off (false): they run as they are."""
    dtype: Dtype
    """Precision for speed, acceptance length and agreement; acceptance rates and losslessness:
    float32."""
    lossless_prompts: int = Field(ge=1, le=10**6)
    """Prompts on which greedy text of a chain of five is compared with transformers' own, in
    float32."""
    lossless_tokens: int = Field(ge=2, le=LONGEST_REPLY)
    """Tokens of each prompt in that comparison."""
    seed: Seed
    """Seed of the bootstrap intervals and, at a temperature above 0, of the drawn tokens."""


class Machine(Section):
    """How this machine does the work. It cannot change a result, so no stage depends on it."""

    processes: int = Field(ge=1, le=MOST_PROCESSES)
    """Training processes (one for each GPU)."""
    verifier_sharding: VerifierSharding
    peak_tflops: PeakTflops
    gradient_accumulation_steps: int = Field(ge=1, le=LARGEST_BATCH)
    """Parts into which each process splits its share of an update: more parts need less memory."""
    data_processes: int = Field(ge=1, le=MOST_PROCESSES)
    """Processes that prepare conversations, and threads that tokenize them."""
    save_updates: int = Field(ge=1, le=MOST_UPDATES)
    """Updates between the states in runs/ from which an interrupted training goes on."""
    save_minutes: SaveMinutes
    progress_seconds: ProgressSeconds
    completion_server: str = Field(pattern=r"^https?://\S+$")
    """Address of the OpenAI-compatible server for `regenerate.backend: openai`; its key comes from
    OPENAI_API_KEY."""
    completion_requests: int = Field(ge=1, le=4096)
    """Requests that wait for that server at the same time."""
    completion_seconds: float = Field(gt=0, le=24 * 3600)
    """Longest wait for one answer of that server, in seconds."""


class Params(Section):
    """The whole of params.yaml."""

    verifier: Verifier
    sharegpt: ShareGpt
    regenerate: Regenerate
    template: Template
    tokens: Tokens
    train: Train
    export: Export
    evaluate: Evaluate
    machine: Machine

    @model_validator(mode="after")
    def _batch_can_be_divided(self) -> Self:
        batch, processes = self.train.global_batch_size, self.machine.processes
        steps = self.machine.gradient_accumulation_steps
        if batch == "auto":
            if processes * steps > 1:
                raise ValueError(
                    f"train.global_batch_size = auto may become 1, which {processes} processes x "
                    f"{steps} accumulation steps cannot divide; state a number, 16 is usual"
                )
        elif batch % (processes * steps):
            raise ValueError(
                f"train.global_batch_size = {batch} cannot be divided among {processes} processes "
                f"x {steps} accumulation steps; raise train.global_batch_size to a multiple of "
                "them, or change machine.*"
            )
        return self


class _Command(BaseSettings):
    """Flags only: an environment variable named like a field must not change a run."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="forbid",
        strict=False,  # every flag comes as a text
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, **_sources):
        return (init_settings,)


_TutorialRecipe = with_defaults(
    Recipe,
    epochs=4, learning_rate=2e-4, b1=0.9, b2=0.95, weight_decay=0.01,
    grad_clip=0.5, grad_clip_form="value", v_w=1.0, p_w=0.1,
    noise_low=-0.1, noise_high=0.1, noise_form="fixed", mask_alignment="official",
    eagle_config_path=None, verifier_model_dtype="bfloat16",
    verifier_model_lm_head_dtype="bfloat16", eagle_dtype="bfloat16", mixed_precision="bf16",
    attn="auto", deterministic=False, initialization="random", rollout_steps=0,
    softmax_vocabulary=None, features="replay", replay_passes=1, replay_documents=256,
    validation_updates=None, seed=0,
)  # fmt: skip


class TrainConfig(_TutorialRecipe, _Command):
    """Train an EAGLE-1 draft for a verifier. Start it with torchrun."""

    verifier_model_path: Path
    """Folder of the verifier in transformers layout."""
    dataset_path: Path
    """JSON lines of conversations, or the folder that the stage tokenize_dataset wrote."""
    cpdir: Path
    """Folder for resumable checkpoints and finished drafts, each run in its own folder; several
    machines must share it."""
    micro_batch_size: int = Field(8, ge=1, le=LARGEST_BATCH)
    """Conversations of one process in one forward pass."""
    gradient_accumulation_steps: int = Field(2, ge=1, le=LARGEST_BATCH)
    """Forward passes in an update."""
    num_warmup_steps: int = Field(0, ge=0, le=MOST_UPDATES * MOST_PROCESSES)
    """Scheduler ticks (updates x processes) in which the learning rate rises from zero."""
    num_training_steps: int | None = Field(None, ge=1, le=MOST_UPDATES * MOST_PROCESSES)
    """Scheduler ticks (updates x processes) of the whole schedule, at which training ends; unset:
    from the epochs."""
    maximum_model_length: MaximumModelLength = 2048
    template_date: TemplateDate = "2024-07-26"  # the one that Llama 3.2's template has by itself
    verifier_sharding: VerifierSharding = "none"
    peak_tflops: PeakTflops = None
    invocation: str | None = None
    """Written to the file `invocation` in the run's folder, so that who started it finds it."""
    save: int = Field(4096, ge=1, le=MOST_UPDATES)
    """Updates between the states from which an interrupted training goes on."""
    save_minutes: SaveMinutes = 0.0
    clearml_project: str = "eagle"
    """ClearML project, when ClearML is configured by its environment variables."""
    clearml_task: str = "train"
    """ClearML task name."""
    progress_seconds: ProgressSeconds = 10.0


_TutorialSelection = with_defaults(
    ShareGptSelection,
    system_prompt="llama2", system_turns="keep", roles=ROLES, drop_leading_reply=True,
    require_alternation=True, unusable_turn="reject", maximum_turn_characters=None,
    drop_duplicates=True, near_duplicate_similarity=None, bench=None, leak_words=8,
    shuffle_seed=0, n=None, frac=None,
)  # fmt: skip


class PrepareShareGptConfig(_TutorialSelection, _Command):
    """Turn ShareGPT conversations into JSON lines of messages."""

    output: Path
    """JSON-lines file to write."""
    source: ConversationSource = (
        "hub:Aeala/ShareGPT_Vicuna_unfiltered/ShareGPT_V4.3_unfiltered_cleaned_split.json"
    )
    revision: str = "8b0048ad6ae8c22f46a78c15559dec98feef5539"
    """Hub revision of the data set; the default is the commit of the default source."""
    processes: int = Field(2, ge=1, le=MOST_PROCESSES)
    """Processes that share the work; the result does not depend on their number."""
    progress_seconds: ProgressSeconds = 10.0


CommandT = TypeVar("CommandT", bound=_Command)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: not YAML, a key twice, a missing or unknown key, a wrong type or out of range.
            One line names all missing keys; every other problem has a line with key, value, what is
            allowed and the nearest known key.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file; run from the project's root")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections such as `train:`, found {_shown(content)}")
    return params_of(content, str(path))


def params_of(content: dict, where: str) -> Params:
    """The parameters in the content of a params.yaml.

    Args:
        where: begins each line of an error's message.

    Raises:
        InputError: as `load_params`.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        add = (
            "params.yaml states every value and the code fills in none: add these lines, with the "
            "values of the params.yaml that this version ships (CHANGELOG.md says what changed)"
        )
        raise InputError(_explain(error, where, add, known=_keys_of(Params))) from None


def parse_command(command: type[CommandT], arguments: list[str], program: str) -> CommandT:
    """Parse the flags of one of the tutorial's commands.

    Raises:
        InputError: a value is missing, of the wrong type or out of range.
    """
    # pydantic-settings spells a one-letter field -n; the tutorial spells it --n
    arguments = [re.sub(r"^--(\w)(?==|$)", r"-\1", argument) for argument in arguments]
    command.model_config["cli_prog_name"] = program
    try:
        return CliApp.run(command, cli_args=arguments)
    except ValidationError as error:
        flags = [_flag(name) for name in command.model_fields]
        raise InputError(_explain(error, program, "give it", known=flags, spell=_flag)) from None


def flags_of(command: BaseModel) -> list[str]:
    """The command line that parses back into `command`; null values are left out."""
    flags = []
    for name, value in command.model_dump(mode="json", exclude_none=True).items():
        flags.append(f"{_flag(name)}={value}")  # a separate -5e-05 would look like a flag
    return flags


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys_of(field.annotation, prefix + name + ".")
    return keys


def _explain(error: ValidationError, where: str, add: str, known: list[str], spell=str) -> str:
    """One line for all missing keys, with `add` as the advice, and one for each other problem."""
    missing, lines = [], []
    for problem in error.errors(include_url=False):
        parts = [str(part) for part in problem["loc"]]
        named = [part for part in parts if not part.startswith("<")]  # not of a Tag
        key = spell(".".join(named)) if named else ""
        found = f" = {_shown(problem['input'])}"
        message = problem["msg"].removeprefix("Value error, ") + _spelling(problem)
        if problem["type"] == "missing":
            missing.append(key)
        elif problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            lines.append(f"{where}: {key}{found}: unknown key; the nearest known key is {near[0]}")
        elif isinstance(problem["input"], dict):  # a section's own check, or a command's
            lines.append(": ".join(part for part in (where, key, message) if part))
        else:
            lines.append(f"{where}: {key}{found}: {message}")
    if missing:
        lines.insert(0, f"{where}: missing: {', '.join(missing)}; {add}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    try:
        return shortened(repr(value))
    except ValueError:  # Python's own limit on the digits of an integer
        return "a number of thousands of digits"


def _spelling(problem: ErrorDetails) -> str:
    """How YAML is to be written where it read another type than was meant."""
    kind, value = problem["type"], problem["input"]
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "; YAML reads this as text: write a number without quotes, with a dot: 1.0e-4"
    if kind == "string_type" and isinstance(value, int | float | datetime.date):
        return "; put it in quotes"
    return ""


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, as Snakemake and editors read it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | Params.model_json_schema()


if __name__ == "__main__":
    argparse.ArgumentParser(description=f"Write {SCHEMA} from this module.").parse_args()
    write_json(SCHEMA, schema())
    print(f"wrote {SCHEMA}")
