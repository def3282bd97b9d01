"""The verifier: the large model whose features the draft learns, and which accepts its tokens."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from eagle.errors import InputError
from eagle.tokens.tokenizer import stop_token_ids
from eagle.verifier.admission import admit
from eagle.verifier.arithmetic import KeyValueShape
from eagle.verifier.configuration import layers_of, windows_of

transformers_logging.disable_progress_bar()


class Verifier(nn.Module):
    """A causal language model without gradients.

    H is its hidden size, V the size of its vocabulary. The features are the hidden states AFTER the
    final norm, the direct input of the head (EAGLE-1, section 3.1; `hidden_states[-1]` in the
    official code).
    """

    def __init__(
        self, model: nn.Module, stop_token_ids: list[int], key_value_shapes: list[KeyValueShape]
    ):
        """Wrap a model that was admitted (`eagle.verifier.admission`).

        Args:
            key_value_shapes: what each of its layers keeps of a token.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config = model.config.get_text_config(decoder=True)
        self.stop_token_ids = stop_token_ids
        self.key_value_shapes = key_value_shapes
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
            attn: transformers' name of the attention backend. A model without SDPA runs with eager
                in its place.
            sharded: split the weights of every layer over all processes (FSDP2). Embedding and head
                stay whole, because training uses them alone. All processes must run a sharded
                verifier together.

        Raises:
            InputError: the folder has no model that can be a verifier (`admission.admit` says
                why), or the attention backend is not installed.
        """
        admitted = admit(folder, attn)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=admitted.attn,
                # the fused products of experts have no float64, in which ties are judged
                experts_implementation="eager" if dtype == torch.float64 else None,
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{folder}: cannot be loaded as a model: {error}") from None
        stop = stop_token_ids(folder)
        # plain decoding: penalties and top-p of the model's own generation config are not used
        model.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=stop[0])
        if sharded:  # before the model moves, so that no device must hold all of it
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard  # takes half a second

            mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
            for layer in layers_of(model):
                # every layer is an FSDP root, and a root keeps its gathered weights by default
                fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        verifier = cls(model.to(device), stop, admitted.key_value_shapes)
        verifier.sharded = sharded
        return verifier

    @property
    def attn(self) -> str:
        """transformers' name of the attention backend that runs."""
        return self.model.config._attn_implementation

    @property
    def windows(self) -> dict[str, int | None]:
        """How far back each type of layer sees (`configuration.windows_of`)."""
        return windows_of(self.config)

    @property
    def decoder(self) -> nn.Module:
        """Everything but the head: token ids in, features out."""
        return self.model.get_decoder()

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        return layers_of(self.model)

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
        return self.decoder(input_ids=token_ids, use_cache=False).last_hidden_state
