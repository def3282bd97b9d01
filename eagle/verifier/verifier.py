"""The verifier: the large model whose features the draft learns, and which accepts its tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from eagle.errors import InputError, one_line
from eagle.tokens.tokenizer import stop_token_ids
from eagle.verifier.admission import admit
from eagle.verifier.arithmetic import KeyValueShape
from eagle.verifier.attention import (
    documents_bounds,
    implementation,
    switch_off_cudnn_attention,
)
from eagle.verifier.configuration import layers_of, windows_of

transformers_logging.disable_progress_bar()

# Lengths of the two texts on which packed documents are compared with documents alone.
COMPARED_LENGTHS = (11, 7)
# Largest difference of their features, as a share: rounding in 16 bits is a hundredth, and tokens
# that see another document's differ by far more.
LARGEST_SHARE = 0.1


class TokensRead(NamedTuple):
    """What the forward passes for features have read."""

    real: int
    padding: int

    def __str__(self) -> str:
        share = self.padding / max(1, sum(self))
        return f"{self.real:,} tokens and {self.padding:,} of padding ({share:.0%})"


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
        self.packs = False
        """Whether `side_by_side` reads documents packed into one sequence, without padding."""
        self.read = TokensRead(0, 0)
        """By `side_by_side`, so far."""
        # training, evaluation and decoding all pass here
        switch_off_cudnn_attention()
        torch.set_float32_matmul_precision("highest")  # no TF32: float32 is compared bit for bit

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
        if self.packs:  # the rows are documents too
            rows, length = token_ids.shape
            return self._packed(token_ids.flatten(), [length] * rows).unflatten(0, (rows, length))
        return self.decoder(input_ids=token_ids, use_cache=False).last_hidden_state

    def side_by_side(self, documents: Sequence[Tensor]) -> Tensor:
        """The features [T, H] of documents side by side, from one forward pass.

        They are packed into one sequence where `pack_documents` allowed it, else padded on the
        right to the longest.

        Args:
            documents: token ids of each, [L], on the CPU.
        """
        lengths = [len(document) for document in documents]
        if self.packs:
            features = self._packed(self._to_device(torch.cat(list(documents)).long()), lengths)
        else:
            rows = nn.utils.rnn.pad_sequence(list(documents), batch_first=True)  # [B, longest]
            padded = self.features(self._to_device(rows.long()))
            features = torch.cat([padded[row, :length] for row, length in enumerate(lengths)])
        tokens = sum(lengths)
        padding = 0 if self.packs else len(lengths) * max(lengths) - tokens
        self.read = TokensRead(self.read.real + tokens, self.read.padding + padding)
        return features

    def tokens_in_a_pass(self, lengths: Sequence[int]) -> int:
        """Tokens that `side_by_side` reads for documents of these lengths, padding included."""
        return sum(lengths) if self.packs else len(lengths) * max(lengths)

    def pack_documents(self, backend: str) -> str | None:
        """Let `side_by_side` pack documents, if two short texts then have the same features.

        A model's own code may do something else with a sequence of several documents, or attend
        in a way that the kernel does not know. Processes that shard it call this together.

        Args:
            backend: one of `eagle.verifier.attention.KERNELS`.

        Returns:
            Why they are padded after all; None where they are packed.
        """
        generator = torch.Generator().manual_seed(0)
        texts = [
            torch.randint(len(self.embedding), (length,), generator=generator)
            for length in COMPARED_LENGTHS
        ]
        alone = self.features(self._to_device(texts[-1][None]))[0]
        before = self.attn
        try:
            self.model.set_attn_implementation(implementation(backend))
            packed = self._packed(self._to_device(torch.cat(texts)), COMPARED_LENGTHS)
            packed = packed[-len(alone) :]  # the text that another one precedes
            share = ((packed - alone).norm() / alone.norm()).item()
            reason = f"a text's features differ by {share:.0%} behind another one"
            self.packs = share <= LARGEST_SHARE
        except Exception as error:  # a model's own code raises whatever it does
            reason = one_line(error)
        if self.packs:
            return None
        self.model.set_attn_implementation(before)
        return reason

    @torch.no_grad()
    def _packed(self, token_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Features [T, H] of documents that are one sequence [T], each with its own positions."""
        bounds = documents_bounds(lengths, self.head.device)
        positions = torch.cat([torch.arange(length) for length in lengths])
        output = self.decoder(
            input_ids=token_ids[None],
            position_ids=self._to_device(positions[None]),
            use_cache=False,
            cu_seq_lens_q=bounds,
            cu_seq_lens_k=bounds,
            max_length_q=max(lengths),
            max_length_k=max(lengths),
        )
        return output.last_hidden_state[0]

    def _to_device(self, indices: Tensor) -> Tensor:
        return indices.to(self.head.device, non_blocking=True)
