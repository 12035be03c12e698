"""What training takes of a device's memory, told from a model's config alone.

The model is built of tensors without data (`FakeTensorMode`: shapes and types on the meta device), so that no weight is
read and a model of any size can be counted anywhere. What autograd would keep is counted in a forward pass of such
tensors, the rest follows from formulae; each says below what it stands for and where it is from.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructrec.launch import Launch

MiB = 2**20

SCORES = "SEQ_CLS"
"""The task of a reward model's adapter, by PEFT's name: PEFT then trains and saves the output layer with it."""

VOCABULARY_CHUNK, TOKEN_CHUNK = 32768, 4096
"""The tiles in which TRL 1.16 computes logits: `_CHUNKED_LOGPROB_CHUNK_SIZE` and `TOKEN_CHUNK_SIZE` there."""

FORWARD_TILE, BACKWARD_TILE = 13, 29
"""Bytes per logit at most that TRL's loss holds beside the logit itself where there is no Triton kernel (a CPU).

Counted in `trl/kernels/chunked_logprob.py`: forward, fp32 logits, their difference from the maximum, its exponential
and a mask of one byte; backward, five fp32 copies (logits twice, log-probabilities, probabilities, gradient), a mask,
and two more while the gradient is added up.
"""

PROCESS = 420 * MiB
"""What a process on a CPU takes after its imports beside tensors: tokenizer, Arrow tables and the checks of a set,
modules that torch and the trainer import late, buffers of oneDNN, and holes of the heap that glibc cannot give back.

Measured, not derived: what was left of 306 to 512 MiB in the first three runs of benchmarks/plan.py (SmolLM2-135M, a
set of 4,583 rows). A set of some hundred rows needs about 75 MiB less.
"""


@dataclass(frozen=True)
class Batch:
    """The largest batch of one process: `rows` × `length` tokens with padding, `supervised` of which have a loss."""

    rows: int
    length: int
    supervised: int
    packed: bool

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True)
class Counted:
    """A model in numbers. Bytes are those of one whole copy.

    Attributes:
        total, trainable: parameters, tied ones once, the adapter's among them.
        weights, adapter: bytes of the base and of what PEFT adds.
        gradients: bytes of one gradient of all trainable parameters.
        states: values that the optimizer keeps of each; see `optimizer_bytes`.
        activations: bytes that autograd keeps from forward to backward.
        layers, hidden, vocabulary: of the decoder.
        compute: bytes of a value in the decoder.
        checkpoint: bytes of the weights' files.
        trains_head: whether the output layer has a gradient.
    """

    total: int
    trainable: int
    weights: int
    adapter: int
    gradients: int
    activations: int
    layers: int
    hidden: int
    vocabulary: int
    compute: int
    checkpoint: int
    trains_head: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one device: by part while it trains, and the most of each phase."""

    parts: dict[str, int]
    phases: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def quantized_bytes(values: int, bits: int, nested: bool) -> int:
    """Bytes of a linear layer's weight in bitsandbytes.

    4 bits: half a byte per value and an fp32 maximum per block of 64 (Dettmers et al., 2023,
    https://arxiv.org/abs/2305.14314); nested, the maxima have 8 bits and an fp32 scale per 256 of them. 8 bits: a byte
    per value (the scales per row are negligible).
    """
    if bits == 8:
        return values
    blocks = -(-values // 64)
    return values // 2 + (blocks + 4 * -(-blocks // 256) if nested else 4 * blocks)


def optimizer_bytes(name: str, gradients: int, trainable: int) -> int:
    """Bytes of an optimizer's state.

    Adam keeps two averages per trainable parameter in the parameter's type: 8 bytes in fp32 (Kingma and Ba, 2015,
    https://arxiv.org/abs/1412.6980), 4 in bf16; its 8-bit kind two bytes (Dettmers et al., 2022,
    https://arxiv.org/abs/2110.02861); Lion and SGD with momentum one average; Adafactor next to nothing. An optimizer
    not known here is taken for Adam.

    Args:
        name: `optim` of the trainer.
        gradients: bytes of the trainable parameters.
        trainable: how many they are.
    """
    if "8bit" in name:
        return trainable if "lion" in name else 2 * trainable
    if name in ("sgd", "adafactor") or name.startswith("galore_adafactor"):
        return 0
    return gradients if "lion" in name else 2 * gradients


def loss_bytes(batch: Batch, model: Counted, device: str, backward: bool) -> int:
    """Bytes that the loss takes beside what the decoder keeps.

    TRL never holds tokens × vocabulary logits: it computes them in tiles of 4,096 tokens by 32,768 words, and again in
    the backward pass. A tile is in the decoder's type. A Triton kernel turns it into its gradient in place and scores
    supervised tokens only; on a CPU every position is scored and the fp32 copies of `FORWARD_TILE` and `BACKWARD_TILE`
    come on top. The gradient of the hidden states is in fp32, and so is that of the output layer if it is trained.
    """
    tokens = batch.tokens if device == "cpu" else batch.supervised
    logits = min(tokens, TOKEN_CHUNK) * min(model.vocabulary, VOCABULARY_CHUNK)
    copies = (BACKWARD_TILE if backward else FORWARD_TILE) if device == "cpu" else 0
    gradient = 4 * tokens * model.hidden if backward else 0
    if backward and model.trains_head:
        gradient += 4 * model.vocabulary * model.hidden
    return logits * (model.compute + copies) + gradient


def estimate(
    model: Counted,
    launch: Launch,
    batch: Batch,
    evaluated: Batch | None,
    accumulation: int,
    optimizer: str,
    reference: bool = False,
) -> Memory:
    """The memory of one device.

    Phases:
        loading: the checkpoint's pages, mapped by safetensors, beside the weights made from them (on a GPU they pass
            one by one).
        training: weights, adapter, optimizer, and whichever is more: all gradients at the end of the backward pass, or
            activations and loss at its beginning, with the gradients of the steps accumulated before.
        evaluation: the loss of the largest evaluation batch. On a CPU what training kept is still resident then: its
            tensors were freed, but lie in the heap, which glibc hardly gives back, while the tiles of the loss are
            mapped anew (seen with `mallinfo2`).

    Args:
        batch, evaluated: the largest of training and of evaluation; null where none is asked for.
        accumulation: `gradient_accumulation_steps`.
        optimizer: `optim`.
        reference: whether a frozen copy of the adapter is kept, which DPO compares with. Its forward pass keeps no
            activations, and takes less for its loss than the backward pass does.
    """

    def share(part: str, size: int) -> int:
        return -(-size // launch.processes) if part in launch.shards else size

    weights, adapter = share("weights", model.weights), share("weights", model.adapter)
    if "weights" in launch.shards:  # the layer that computes and the one fetched meanwhile are whole
        weights += 2 * model.weights // model.layers
    gradients = share("gradients", model.gradients)
    if launch.strategy == "ddp":  # its buckets, from which gradients are averaged, are copies
        gradients *= 2
    parts = {
        "weights": weights,
        "adapter": adapter,
        "reference": adapter if reference else 0,
        "gradients": gradients,
        "optimizer": share("optimizer", optimizer_bytes(optimizer, model.gradients, model.trainable)),
        "activations": model.activations,
        "logits": loss_bytes(batch, model, launch.device, backward=True),
        "process": PROCESS if launch.device == "cpu" else 0,
    }
    resident = parts["weights"] + parts["adapter"] + parts["reference"] + parts["process"]
    kept = gradients if accumulation > 1 or launch.strategy == "ddp" else 0
    phases = {
        "loading": resident + (model.checkpoint if launch.device == "cpu" else 0),
        "training": resident + parts["optimizer"] + max(gradients, kept + parts["activations"] + parts["logits"]),
    }
    if evaluated is not None:
        loss = loss_bytes(evaluated, model, launch.device, backward=False)
        heap = parts["activations"] if launch.device == "cpu" else 0
        phases["evaluation"] = resident + parts["optimizer"] + heap + loss
    return Memory(parts, phases)


def count(folder: Path, model: Any, args: Any, batch: Batch, bf16: bool, peft_config: Any) -> Counted:
    """Build the model of a recipe without weights and count it; see `Counted`.

    Args:
        folder: of the base model; its config is read, and the size of its weights' files.
        model: TRL's `ModelConfig`. If its task is `SCORES`, the model has one output in place of a vocabulary.
        args: of a trainer of TRL.
        batch: what `activations` are counted for.
        bf16: whether autocast is on.
        peft_config: of the adapter; null where all weights are trained.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    scores = model.lora_task_type == SCORES
    config = AutoConfig.from_pretrained(str(folder), **({"num_labels": 1} if scores else {}))
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    dtype = config.dtype if model.dtype in (None, "auto") else getattr(torch, model.dtype)
    text = config.get_text_config()
    with torch.device("meta"):
        base = kind.from_config(config, dtype=dtype or torch.float32, attn_implementation=model.attn_implementation)
    head = base.score.weight if scores else base.get_output_embeddings().weight
    weights = checkpoint = sum(p.numel() * p.element_size() for p in base.parameters())
    if quantized := model.load_in_4bit or model.load_in_8bit:
        for module in base.modules():
            if isinstance(module, torch.nn.Linear) and module.weight is not head:
                values = module.weight.numel()
                weights -= values * module.weight.element_size()
                weights += quantized_bytes(values, 4 if model.load_in_4bit else 8, model.use_bnb_nested_quant)
    adapted = base if peft_config is None else _with_adapter(base, peft_config, quantized)
    adapted.train()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    with FakeTensorMode():
        _to_fake(adapted)
        kept = _kept_for_backward(base, batch, bf16)
        if args.activation_checkpointing:
            # Each layer keeps its input alone, and one layer at a time computes what it had kept otherwise (Chen et
            # al., 2016, https://arxiv.org/abs/1604.06174).
            if peft_config is not None:
                adapted.enable_input_require_grads()
            adapted.gradient_checkpointing_enable(args.activation_checkpointing_kwargs)
            kept = _kept_for_backward(base, batch, bf16) + kept // text.num_hidden_layers
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Counted(
        total=sum(p.numel() for p in adapted.parameters()),
        trainable=sum(p.numel() for p in trained),
        weights=weights,
        adapter=gradients if peft_config is not None else 0,
        gradients=gradients,
        activations=kept,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=len(head),
        compute=2 if bf16 else head.element_size(),
        checkpoint=files or checkpoint,
        trains_head=scores or head.requires_grad,
    )


def _with_adapter(base: Any, peft_config: Any, quantized: bool) -> Any:
    """What TRL's trainers make of the base: the adapter in fp32, on a quantized base in bf16."""
    import torch
    from peft import get_peft_model

    adapted = get_peft_model(base, peft_config, low_cpu_mem_usage=True)
    for name, parameter in adapted.named_parameters():
        if quantized and parameter.requires_grad and "lora_magnitude_vector" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    return adapted


def _to_fake(model: Any) -> None:
    """Move a model from the meta device to a CPU without data, so that operators take the ways they take there."""
    import torch

    moved: dict[Any, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor not in moved:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, torch.nn.Parameter):
                        fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    moved[tensor] = fake
                tensors[name] = tensor if tensor is None else moved[tensor]


def _kept_for_backward(model: Any, batch: Batch, bf16: bool) -> int:
    """Bytes of the tensors that the decoder's forward pass leaves to its backward pass, each once, weights left out.

    Counted, not computed: what a layer keeps depends on its architecture, on what is trained and on types. For a layer
    of Llama with hidden size h, MLP size f, a heads of size d, and b bytes per value it comes to, per token
    (Korthikanti et al., 2022, https://arxiv.org/abs/2205.05198, section 4.1, without dropout and with the attention
    matrix left to SDPA's kernel, which keeps queries, keys, values, output and one fp32 number per head and token; keys
    and values are repeated for every query head where there is a mask):

        norms           2 × 4h          their fp32 input
        attention       4 × b·a·d + 4a  with a mask
        MLP             3 × b·f         gate, its activation, up
        LoRA            the input of every adapted layer in the adapter's type, where that is not the base's a copy for
                        each (3h for q, k, v; a·d for o; 2h for gate and up; f for down), and its r inner values
        no LoRA         the inputs of q, k, v, of o, of gate and up, of down and of the norms' scales, in b bytes

    and in every layer with a mask the mask itself, tokens² × b bytes: SDPA makes a number of each of its bits.
    """
    import torch

    given = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in given:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros((1, batch.tokens) if batch.packed else (batch.rows, batch.length), dtype=torch.long)
    inputs = {"position_ids": ids} if batch.packed else {"attention_mask": torch.ones_like(ids)}
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        output = model.base_model(input_ids=ids, use_cache=False, **inputs)
    size = sum(storage.nbytes() for storage in kept.values())
    del output
    return size
