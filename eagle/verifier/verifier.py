"""The large model whose features the draft learns and whose tokens decide."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from eagle.errors import InputError
from eagle.tokens.tokenizer import stop_token_ids

transformers_logging.disable_progress_bar()


class Verifier(nn.Module):
    """A causal language model without gradients.

    H is its hidden size, V its vocabulary. The features are the hidden states AFTER the final
    norm, to which the head applies directly (EAGLE-1, section 3.1; official `hidden_states[-1]`).
    """

    def __init__(self, model: nn.Module, stop_token_ids: list[int]):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config = model.config
        self.stop_token_ids = stop_token_ids
        self.sharded = False

    @classmethod
    def load(
        cls,
        folder: Path,
        dtype: torch.dtype,
        device: torch.device,
        attn: str = "sdpa",
        sharded: bool = False,
    ) -> "Verifier":
        """Load from a folder in transformers layout.

        Args:
            sharded: split every layer's weights over all processes (FSDP2); embedding and head,
                which training uses by themselves, stay whole. Such a verifier runs only when all
                processes run it.

        Raises:
            InputError: no such model, or one whose logits are more than features times head.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation=attn, local_files_only=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{folder}: cannot be loaded as a model: {error}") from None
        except ImportError as error:
            raise InputError(f"attn = {attn}: not installed here: {error}") from None
        if getattr(model.get_output_embeddings(), "bias", None) is not None:
            raise InputError(f"{folder}: its head has a bias, which EAGLE-1 engines do not apply")
        for scaling in (
            "final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier",
        ):  # fmt: skip
            if getattr(model.config, scaling, None) not in (None, 1, 1.0):
                raise InputError(f"{folder}: uses {scaling}; the draft's logits would differ")
        stop = stop_token_ids(folder)
        # plain decoding: a penalty or top-p that the model ships is no part of its distribution
        model.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=stop[0])
        if sharded:  # before it moves: no device needs room for all of it
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard  # half a second to import

            mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
            for layer in model.base_model.layers:
                # each layer is a root of its own, which would keep its whole weights once gathered
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        verifier = cls(model.to(device), stop)
        verifier.sharded = sharded
        return verifier

    @property
    def embedding(self) -> Tensor:
        """Input embedding [V, H]."""
        return self.model.get_input_embeddings().weight

    @property
    def head(self) -> Tensor:
        """Output head [V, H]: logits = features @ head.T."""
        return self.model.get_output_embeddings().weight

    @torch.no_grad()
    def features(self, token_ids: Tensor) -> Tensor:
        """Features [B, T, H] of token ids [B, T]; the head is not run.

        Rows may be padded on the right: a causal model's earlier positions do not see the padding.
        """
        return self.model.base_model(input_ids=token_ids, use_cache=False).last_hidden_state


def context_of(folder: Path) -> int:
    """Longest sequence the verifier was made for, in tokens.

    Raises:
        InputError: its configuration cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its configuration cannot be loaded: {error}") from None
    return config.max_position_embeddings
