"""A soft prompt on a live Hugging Face model: for ``generate`` with all its options, and for ``Trainer``.

    prompted = PromptedModel(backbone.hf_model, prompt_PH)
    prompted.generate(**tokenizer(texts, return_tensors="pt", padding=True), num_beams=4, max_new_tokens=8)

    with attached(model, prompt_PH):                    # any code that calls the model itself
        model.generate(**inputs, num_beams=4, max_new_tokens=8)

    Trainer(model=PromptedModel(model, prompt_PH, tuned=True), ...).train()

The prompt stands in front of the (encoder's) input embeddings and touches the text: padding of an encoder's input is
moved to its right, and a decoder-only model gets explicit positions, so left and right padding give the same answers.

Letters: B rows, P prompt tokens, T input tokens (padding included), H width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.library.record import check_prompt

_IGNORED = -100  # the label that Hugging Face losses leave out


class PromptedModel(nn.Module):
    """A frozen Hugging Face model with a soft prompt in front of its inputs.

    Its state dict holds the prompt alone, so a ``Trainer`` checkpoint is as small as the prompt and can be resumed.

    Args:
        model: any encoder-decoder or decoder-only ``PreTrainedModel``. Its parameters are frozen.
        prompt_PH: float [P, H]; copied.
        tuned: whether the prompt is a trainable parameter.

    Raises:
        IncompatibleBackboneError: another width.
        DataError, NonFiniteError: not a prompt.
    """

    def __init__(self, model: Any, prompt_PH: Tensor, *, tuned: bool = False) -> None:
        super().__init__()
        check_prompt(prompt_PH, "the prompt")
        width = int(model.get_input_embeddings().weight.shape[1])
        if prompt_PH.shape[1] != width:
            raise IncompatibleBackboneError(
                f"the prompt has width {prompt_PH.shape[1]}; the model has width {width}. Prompts do not move between "
                "backbones: load the prompt's own or retrain."
            )
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        device = model.get_input_embeddings().weight.device
        self.prompt_PH = nn.Parameter(prompt_PH.detach().to(device, torch.float32, copy=True), requires_grad=tuned)
        self.model = model
        self.config = model.config

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = self.model.get_input_embeddings().weight.device
        return found

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        """The model's own forward pass with the prompt in front of ``input_ids`` [B, T].

        Args:
            input_ids: int64 [B, T].
            attention_mask: int [B, T], 1 where a token is real; all where None.
            labels: int64, [B, D] for encoder-decoders, [B, T] for decoder-only models, -100 where not scored.
            options: passed on.

        Returns:
            the model's output; a decoder-only model's logits are those of the T text positions.
        """
        inputs = self._inputs(input_ids, attention_mask)
        if self.config.is_encoder_decoder:
            return self.model(**inputs, labels=labels, **options)
        length = self.prompt_PH.shape[0]
        if labels is not None:
            labels = torch.cat([labels.new_full((labels.shape[0], length), _IGNORED), labels], 1)
        output = self.model(**inputs, labels=labels, **options)
        output.logits = output.logits[:, length:]
        return output

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """Hugging Face's ``generate`` with all its options (beams, sampling, constraints), the prompt in front
        of ``input_ids`` [B, T].

        Decoder-only answers begin with the given ``input_ids``, as without a prompt. Length limits: use
        ``max_new_tokens``. Functions that see the ids so far (constraints, processors) see the new ones alone there.
        """
        if "max_length" in options:
            raise UsageError("max_length would count the soft prompt too; give max_new_tokens.")
        inputs = self._inputs(input_ids, attention_mask)
        inputs.pop("position_ids", None)  # generate derives them from the mask
        start = getattr(self.config, "decoder_start_token_id", None)
        if self.config.is_encoder_decoder and start is not None:
            options.setdefault("decoder_start_token_id", start)  # some models have it in their config alone
        output = self.model.generate(**inputs, **options)
        if self.config.is_encoder_decoder:
            return output
        new = output if isinstance(output, Tensor) else output.sequences
        whole = torch.cat([input_ids.repeat_interleave(new.shape[0] // input_ids.shape[0], 0), new], 1)
        if isinstance(output, Tensor):
            return whole
        output.sequences = whole
        return output

    def _inputs(self, input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(torch.int64)
        if self.config.is_encoder_decoder:  # relative positions: padding must not stand between prompt and text
            order_BT = mask_BT.argsort(dim=1, descending=True, stable=True)
            input_ids, mask_BT = input_ids.gather(1, order_BT), mask_BT.gather(1, order_BT)
        embedded_BTH = self.model.get_input_embeddings()(input_ids)
        rows, length = input_ids.shape[0], self.prompt_PH.shape[0]
        prompt_BPH = self.prompt_PH.to(embedded_BTH.dtype)[None].expand(rows, -1, -1)
        mask_BL = torch.cat([mask_BT.new_ones(rows, length), mask_BT], 1)
        inputs = {"inputs_embeds": torch.cat([prompt_BPH, embedded_BTH], 1), "attention_mask": mask_BL}
        if not self.config.is_encoder_decoder:
            inputs["position_ids"] = (mask_BL.cumsum(1) - 1).clamp(min=0)
        return inputs

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The prompt alone, under ``prompt_PH``."""
        whole: dict[str, Tensor] = super().state_dict(*args, **options)
        prefix = str(options.get("prefix", ""))
        for key in list(whole):
            if key.startswith(f"{prefix}model."):
                del whole[key]
        return whole

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes what `state_dict` gives; the model is left as it is."""
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = [key for key in result.missing_keys if not key.startswith("model.")]
        if strict and (missing or result.unexpected_keys):
            raise UsageError(
                f"a prompt's state needs 'prompt_PH' alone; found {', '.join(sorted(state_dict)) or 'nothing'}."
            )
        return type(result)(missing, result.unexpected_keys)


@contextmanager
def attached(model: Any, prompt_PH: Tensor) -> Iterator[Any]:
    """Within the block, the model's own ``forward`` and ``generate`` put the prompt in front of ``input_ids``.

    For code that calls the model itself, such as pipelines. Calls without ``input_ids`` pass unchanged.

    Args:
        model: a live Hugging Face model; afterwards it is as before.
        prompt_PH: float [P, H].

    Raises:
        IncompatibleBackboneError: another width.
        UsageError: a prompt is attached already.
    """
    if "generate" in vars(model) or "forward" in vars(model):
        raise UsageError("the model has a prompt attached, or its methods replaced; leave that block first.")
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    prompted = PromptedModel(model, prompt_PH)
    for parameter, requires_grad in zip(model.parameters(), frozen, strict=True):
        parameter.requires_grad_(requires_grad)
    inside = False

    def through(own: Any, ours: Any) -> Any:
        @functools.wraps(own)  # transformers reads the signature
        def call(*args: Any, **options: Any) -> Any:
            nonlocal inside
            ids = options.get("input_ids", args[0] if args and isinstance(args[0], Tensor) else options.get("inputs"))
            if inside or ids is None:
                return own(*args, **options)
            if len(args) > 1:
                raise UsageError("with a prompt attached, name every argument after the input ids.")
            rest = {key: value for key, value in options.items() if key not in ("input_ids", "inputs")}
            inside = True
            try:
                return ours(ids, **rest)
            finally:
                inside = False

        return call

    model.forward, model.generate = (
        through(model.forward, prompted.forward),
        through(model.generate, prompted.generate),
    )
    try:
        yield model
    finally:
        del model.forward, model.generate
