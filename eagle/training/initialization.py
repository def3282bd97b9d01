"""The first weights of a draft."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, attend_within_documents
from eagle.errors import InputError
from eagle.training.distributed import sum_over_ranks
from eagle.verifier.configuration import layers_of
from eagle.verifier.verifier import Verifier

# Ridge as a share of the mean diagonal of the normal equations: enough to solve them in float32.
RIDGE = 1e-4
# Tokens on which the verifier's last layer is compared with the draft's: fewer than any window.
COMPARED_TOKENS = 4
# Largest difference of the two, as a share of what the layer adds: float32 rounding is far below.
ROUNDING = 1e-3
INPUT_NORM = "input_layernorm.weight"
FITTED = ("least_squares", "last_layer")
"""The initializations that are computed from features, before the first update."""
SHAPE = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "rms_norm_eps", "rope_parameters",
)  # fmt: skip
"""Fields of a draft's config that must be the same for its weights to mean the same."""


class Pairs(NamedTuple):
    """Inputs and targets of the draft at M counted positions, each float32 [M, H]."""

    embeddings: Tensor
    """Of token t + 1."""
    features: Tensor
    """f_t, without noise."""
    targets: Tensor
    """f_{t+1}."""


def initialize_random(draft: Draft, seed: int) -> None:
    """Normal weights with standard deviation `initializer_range`, norms one, biases zero (official
    code)."""
    generator = torch.Generator().manual_seed(seed)
    for module in draft.modules():
        if isinstance(module, nn.Linear):
            initial = torch.randn(module.weight.shape, generator=generator)
            module.weight.data.copy_(initial * draft.config.initializer_range)
            if module.bias is not None:
                module.bias.data.zero_()


def initialize_from_draft(draft: Draft, folder: Path) -> None:
    """Take the weights of an existing draft.

    Raises:
        InputError: there is no draft, or it is of another shape.
    """
    given = load_draft(folder)
    for name in SHAPE:
        theirs, ours = (getattr(one.config, name, None) for one in (given, draft))
        if theirs != ours:
            raise InputError(
                f"--initialization = path:{folder} (train.initialization): {name} is {theirs} "
                f"there, the draft to train has {ours}; begin from a draft of the same verifier "
                "and shape, or choose auto"
            )
    draft.load_state_dict(given.state_dict())


def choose_initialization(asked: str, draft: Draft, verifier: Verifier) -> tuple[str, str]:
    """What `train.initialization` is for this draft and verifier. All ranks take part.

    Returns:
        The initialization, and why `auto` became it (empty where something else was asked for).

    Raises:
        InputError: `last_layer` is asked for, and the verifier's is not one of Llama's.
    """
    if asked not in ("auto", "last_layer"):
        return asked, ""
    difference = difference_from_last_layer(draft, verifier)
    if asked == "auto":
        if difference is None:
            return "last_layer", "the verifier's last layer is one of Llama's"
        return "least_squares", difference
    if difference is not None:
        raise InputError(
            f"--initialization = last_layer (train.initialization): {difference}; choose auto or "
            "least_squares"
        )
    return asked, ""


@torch.no_grad()
def difference_from_last_layer(draft: Draft, verifier: Verifier) -> str | None:
    """How the verifier's last layer and final norm differ from Llama's in the draft's shape.

    Names and shapes of the weights come first. The arithmetic is compared by numbers: the draft's
    layer with the verifier's weights against the verifier's own code, in float32 on a few tokens.

    Returns:
        One clause; None if `initialize_from_last_layer` can take the layer.
    """
    width = torch.Size([draft.config.hidden_size])
    expected = {name: tensor.shape for name, tensor in draft.layers[0].state_dict().items()}
    found = {name: tensor.shape for name, tensor in verifier.layers[-1].state_dict().items()}
    expected |= {INPUT_NORM: width, "final norm.weight": width}
    norm = getattr(verifier.decoder, "norm", nn.Identity())
    found |= {f"final norm.{name}": tensor.shape for name, tensor in norm.state_dict().items()}
    if differing := sorted(n for n in expected | found if expected.get(n) != found.get(n)):
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return (
            "the verifier's last layer does not have the weights of a Llama layer in the draft's "
            f"shape; these differ: {', '.join(differing[:3])}{more}"
        )
    weights = _last_layer(verifier)
    before, added, features = _as_the_verifier_computes(verifier, weights)
    ours = _as_the_draft_computes(draft, weights, before)
    after = (before + added)[0]
    ours_features = _norm(norm.weight.float(), draft.config.rms_norm_eps)(after)
    for what, own, theirs in (
        ("last layer", ours, added[0]),
        ("final norm", ours_features, features[0]),
    ):
        share = ((own - theirs).norm() / theirs.norm()).item()
        if not share <= ROUNDING:
            return (
                f"the verifier's {what} computes something else with its weights than Llama's does "
                f"(the outputs differ by {share:.0%}: its norm, rotary embedding, activation or a "
                "factor)"
            )
    return None


def _last_layer(verifier: Verifier) -> dict[str, Tensor]:
    """The weights of the verifier's last layer in float32, whole where they are sharded."""
    return {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).float()
        for name, weight in verifier.layers[-1].state_dict().items()
    }


def _as_the_verifier_computes(
    verifier: Verifier, weights: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream [1, T, H] before the last layer, what the layer adds, and the features.

    A second model without weights is made for it: the verifier's own may be sharded, and of half
    precision. Its other layers pass on what they get.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(verifier.model.config), dtype=torch.float32, attn_implementation="eager"
        ).eval()
    decoder, layers = model.get_decoder(), layers_of(model)
    for layer in layers[:-1]:
        layer.forward = lambda hidden_states, *_args, **_kwargs: hidden_states
    layers[-1].load_state_dict(weights, assign=True)
    decoder.norm = copy.deepcopy(verifier.decoder.norm).float()
    for name, module in verifier.decoder.named_children():
        if next(module.parameters(), None) is None:  # the rotary embedding, which has buffers
            setattr(decoder, name, module)
    seen = []
    hook = layers[-1].register_forward_hook(
        lambda _layer, inputs, output: seen.extend((inputs[0], output))
    )
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(1, COMPARED_TOKENS, verifier.config.hidden_size, generator=generator)
    stream = stream.to(verifier.head.device)
    features = decoder(inputs_embeds=stream, use_cache=False).last_hidden_state
    hook.remove()
    before, after = seen
    return before, after - before, features


def _as_the_draft_computes(draft: Draft, weights: dict[str, Tensor], before: Tensor) -> Tensor:
    """What the draft's layer with these weights adds [T, H] to `before` [1, T, H], with the norm
    that it leaves out itself."""
    with torch.device("meta"):
        layer = Draft(draft.config).layers[0]
    own = {name: weight for name, weight in weights.items() if name != INPUT_NORM}
    layer.load_state_dict(own, assign=True)
    count = before.shape[1]
    rotary = draft.rotary(before, torch.arange(count, device=before.device)[None])
    normalized = _norm(weights[INPUT_NORM], draft.config.rms_norm_eps)(before)
    attend = attend_within_documents([count], "eager")
    attended = attend(*layer.self_attn.project(normalized, rotary))
    return (layer.finish(before, attended) - before)[0]


def _norm(weight: Tensor, eps: float) -> LlamaRMSNorm:
    with torch.device("meta"):
        norm = LlamaRMSNorm(len(weight), eps)
    norm.load_state_dict({"weight": weight}, assign=True)
    return norm


def initialize_from_last_layer(draft: Draft, verifier: Verifier) -> None:
    """Take queries, keys, values and the MLP's inner weights from the verifier's last layer.

    That layer reads x / rms(x) * w_in, where x is the residual stream and w_in the weight of its
    norm. The features are x / rms(x) * w_out, with the weight of the final norm. For the same x
    they differ by the factor w_in / w_out, which is multiplied into the weights of queries, keys
    and values and into the norm before the MLP. Unchanged weights would read features as if they
    were the layer's normalized input.

    The layer must be one of Llama's (`difference_from_last_layer`).
    """
    ours, theirs = draft.layers[0], _last_layer(verifier)
    final = verifier.decoder.norm.weight.float()
    # a direction whose final norm weight is almost zero does not appear in the features
    visible = final.abs() > 1e-3 * final.abs().mean()
    before_attention, before_mlp = (
        torch.where(visible, theirs[f"{norm}.weight"] / final, 0)
        for norm in ("input_layernorm", "post_attention_layernorm")
    )
    for name in ("q_proj", "k_proj", "v_proj"):
        projection = getattr(ours.self_attn, name)
        projection.weight.data.copy_(theirs[f"self_attn.{name}.weight"] * before_attention)
        if projection.bias is not None:
            projection.bias.data.copy_(theirs[f"self_attn.{name}.bias"])
    ours.post_attention_layernorm.weight.data.copy_(before_mlp)
    for name in ("gate_proj", "up_proj"):
        getattr(ours.mlp, name).weight.data.copy_(theirs[f"mlp.{name}.weight"])


def initialize_least_squares(draft: Draft, pairs: Iterable[Pairs]) -> None:
    """Start from the best linear prediction of f_{t+1} from the embedding of token t + 1 and f_t.

    `fc` is the closed-form solution of ridge regression, and the outputs of attention and MLP are
    zero, so that training starts from this prediction and adds to it. Embeddings are small beside
    features (17 times smaller in SmolLM2-135M): from random weights, gradients take long to use
    them, and the normal equations use them at once.

    Args:
        draft: with random weights; queries, keys, values and the MLP's inner weights stay.
        pairs: this process's share; the solution is that for the pairs of all processes.
    """
    layer = draft.layers[0]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.data.zero_()
    width = draft.fc.in_features
    gram = torch.zeros(width, width, device=draft.fc.weight.device)
    cross = torch.zeros(width, draft.fc.out_features, device=draft.fc.weight.device)
    for part in pairs:
        inputs = torch.cat([part.embeddings, part.features], dim=-1)  # [M, 2H]
        gram += inputs.T @ inputs
        cross += inputs.T @ part.targets
    sum_over_ranks(gram)
    sum_over_ranks(cross)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    draft.fc.weight.data.copy_(torch.linalg.solve(gram, cross).T)
