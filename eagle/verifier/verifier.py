"""The verifier: the large model whose features the draft learns, and which accepts its tokens."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from eagle.errors import InputError
from eagle.tokens.tokenizer import stop_token_ids

transformers_logging.disable_progress_bar()


class Verifier(nn.Module):
    """A causal language model without gradients.

    H is its hidden size, V the size of its vocabulary. The features are the hidden states AFTER the
    final norm, the direct input of the head (EAGLE-1, section 3.1; `hidden_states[-1]` in the
    official code).
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
        """Load a verifier from a folder in transformers layout.

        Args:
            attn: transformers' name of the attention backend.
            sharded: split the weights of every layer over all processes (FSDP2). Embedding and head
                stay whole, because training uses them alone. All processes must run a sharded
                verifier together.

        Raises:
            InputError: the folder has no model that can be loaded, the attention backend is not
                installed, or the logits are not simply features times head.
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
        # plain decoding: penalties and top-p of the model's own generation config are not used
        model.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=stop[0])
        if sharded:  # before the model moves, so that no device must hold all of it
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard  # takes half a second

            mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
            for layer in model.base_model.layers:
                # every layer is an FSDP root, and a root keeps its gathered weights by default
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        verifier = cls(model.to(device), stop)
        verifier.sharded = sharded
        return verifier

    @property
    def embedding(self) -> Tensor:
        """The input embedding [V, H]."""
        return self.model.get_input_embeddings().weight

    @property
    def head(self) -> Tensor:
        """The output head [V, H]: logits = features @ head.T."""
        return self.model.get_output_embeddings().weight

    @torch.no_grad()
    def features(self, token_ids: Tensor) -> Tensor:
        """Compute the features [B, T, H] of token ids [B, T], without the head.

        Rows may be padded on the right: in a causal model, padding does not change earlier
        positions.
        """
        return self.model.base_model(input_ids=token_ids, use_cache=False).last_hidden_state


def context_of(folder: Path) -> int:
    """The longest sequence that the verifier supports, in tokens.

    Raises:
        InputError: the configuration in `folder` cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its configuration cannot be loaded: {error}") from None
    return config.max_position_embeddings
