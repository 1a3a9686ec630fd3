"""The model that is trained: a base read from its GGUF, a LoRA on its linear layers, and the loss of a row."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import TrainingError
from ltm_edge.schemas.curriculum import LoraShape
from ltm_edge.training.packing import Row

if TYPE_CHECKING:
    import torch

__all__ = ["LINEAR_LAYERS", "Net", "choose_device", "choose_precision", "need_packages"]

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of attention and feed-forward, as transformers names them in Llama-like models."""

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors")


def need_packages() -> None:
    """Raise TrainingError with the remedy where a package of the extra `train` is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            "install the extra: pip install 'ltm-edge[train]' (or `make train-env` in a source tree)"
        )


def choose_device(wanted: str = "auto") -> str:
    """Name of the device to train on: ``cuda``, ``mps`` or ``cpu``.

    Raises:
        TrainingError: the wanted one isn't there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, found in there.items() if found)
    if not there.get(wanted, False):
        raise TrainingError(f"torch {torch.__version__} has no device {wanted!r} here; it has {_names(there)}")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """``bfloat16`` where the device multiplies it natively, else ``float32``."""
    import torch

    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and fast() else "float32"


def _names(there: Mapping[str, bool]) -> str:
    return ", ".join(name for name, found in there.items() if found)


class Net:
    """A causal language model of transformers, with what training needs of it.

    Args:
        model: the model, its head gates and LoRA included.
        device: name of the device that it stands on.
        precision: ``float32``, or ``bfloat16`` for mixed precision; weights stay float32.
    """

    def __init__(self, model: Any, device: str = "cpu", precision: str = "float32") -> None:
        self.model = model.to(device)
        self.device = device
        self.precision = precision

    @classmethod
    def load(cls, gguf: Path, device: str = "cpu", precision: str = "float32") -> Net:
        """The model in a GGUF, dequantised to float32 and frozen.

        Raises:
            TrainingError: transformers can't read it, or it isn't of a kind with the known linear layers.
        """
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        attention = "eager" if device == "cpu" else "sdpa"  # on CPUs the fused kernels are the slower ones here
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar
                warnings.simplefilter("ignore")
                model = AutoModelForCausalLM.from_pretrained(
                    str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, attn_implementation=attention
                )
        except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError) as error:
            lines = str(error).strip().splitlines()
            raise TrainingError(
                f"{gguf}: transformers can't read this model: {lines[0] if lines else type(error).__name__}; "
                "train on a GGUF of an architecture and a type that it knows"
            ) from error
        model.requires_grad_(False)
        model.eval()
        names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        if not {"q_proj", "o_proj"} <= names:
            raise TrainingError(
                f"{gguf}: a {model.config.model_type} model, whose attention has no q_proj and o_proj; "
                "its LoRA has to be trained elsewhere"
            )
        return cls(model, device, precision)

    def add_lora(self, shape: LoraShape, seed: int) -> None:
        """A new LoRA on every linear layer; the same seed gives the same one."""
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        there = {name.rsplit(".", 1)[-1] for name, _ in self.model.named_modules()}
        config = LoraConfig(
            r=shape.rank,
            lora_alpha=shape.alpha,
            lora_dropout=shape.dropout,
            target_modules=[name for name in LINEAR_LAYERS if name in there],
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what peft asks it
            self.model = get_peft_model(self.model, config)
        self.model.eval()

    def merge_lora(self) -> None:
        """Put the LoRA into the weights, and freeze all."""
        self.model = self.model.merge_and_unload()
        self.model.requires_grad_(False)

    def lora(self) -> dict[str, torch.Tensor]:
        """The LoRA's tensors by PEFT's names, float32 on the CPU."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self.model)
        return {name: value.detach().to("cpu").clone() for name, value in found.items()}

    def set_lora(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put tensors as :meth:`lora` gives them into the LoRA.

        Raises:
            TrainingError: they are of another shape or have other names.
        """
        from peft import set_peft_model_state_dict

        own = self.lora()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise TrainingError(
                "the LoRA is of another shape than the one in training; use the curriculum it began with"
            )
        set_peft_model_state_dict(self.model, dict(tensors))

    @contextlib.contextmanager
    def without_lora(self) -> Iterator[None]:
        """The base as it is, while this is entered."""
        with self.model.disable_adapter():
            yield

    @contextlib.contextmanager
    def learning(self, seed: int) -> Iterator[None]:
        """The LoRA's dropout is on, while this is entered; the same seed leaves out the same."""
        import torch

        torch.manual_seed(seed)
        own = [module for name, module in self.model.named_modules() if "lora_dropout" in name]
        for module in own:  # not the whole model: architectures do other things too while they train
            module.train()
        try:
            yield
        finally:
            for module in own:
                module.eval()

    @property
    def trainable(self) -> list[torch.nn.Parameter]:
        """Parameters that are trained."""
        return [value for value in self.model.parameters() if value.requires_grad]

    def losses(self, row: Row) -> torch.Tensor:
        """Negative log-probability of each of the row's m targets, float32 [m]."""
        import torch

        logits = self.logits(row)
        targets = torch.from_numpy(row.targets).to(self.device)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def logits(self, row: Row) -> torch.Tensor:
        """What the model expects where the row has something to predict, float32 [m, vocabulary].

        Only there: of a small model a third of the work is in the vocabulary.
        """
        import torch

        with self._mixed():
            sees = torch.from_numpy(row.sees)[None, None].to(self.device)
            mask = torch.zeros(sees.shape, dtype=torch.float32, device=self.device)
            mask = mask.masked_fill(~sees, torch.finfo(torch.bfloat16).min)
            if self.precision == "bfloat16":
                mask = mask.to(torch.bfloat16)
            states = self._body(
                input_ids=torch.from_numpy(row.tokens)[None].to(self.device),
                position_ids=torch.from_numpy(row.positions)[None].to(self.device),
                attention_mask=mask,
                use_cache=False,
            ).last_hidden_state[0]
            wanted = states[torch.from_numpy(row.at).to(self.device)]
            logits: torch.Tensor = self._head(wanted).float()
            return logits

    @contextlib.contextmanager
    def _mixed(self) -> Iterator[None]:
        import torch

        on = self.precision == "bfloat16"
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=on):
            yield

    @property
    def _causal(self) -> Any:
        """The causal model inside PEFT's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def _body(self) -> Any:
        return self._causal.base_model

    @property
    def _head(self) -> Any:
        return self._causal.get_output_embeddings()
