"""Training by judgeloop itself: a LoRA adapter by the TRL library, and drafts of the adapted model, in this process.

The libraries (extra ``[train]``) are loaded when a draft or a training is really made: a recorded run replays without them.
Drafts are made in batches whose members do not depend on what is recorded already, each with the random numbers of its own
seed, so that the same machine repeats them after an interruption.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ctypes
import functools
import hashlib
import importlib.util
import inspect
import io
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from judgeloop import checkpoints, seeds
from judgeloop.errors import ExperimentError, StorageFailed, TrainingFailed
from judgeloop.experiment.schema import DpoSignalSpec, KtoSignalSpec, LoraSignal, TrainedPolicySpec
from judgeloop.policies import DIVERGED
from judgeloop.records import Call, TrainedModel, Training, TrainingPair, Work, prompt_turns, served_name
from judgeloop.rundir import RunFolder
from judgeloop.training.command import weights_digest

T = TypeVar("T")
INSTALL = 'pip install torch -f https://download.pytorch.org/whl/cpu/torch/ && pip install "judgeloop[train]"'
"""Installs the CPU build of torch first: the plain one is several GB on Linux."""
_LIBRARIES = ("torch", "transformers", "peft", "trl")
_SEEDS = 2**31
_BASES = (
    "give a folder with config.json, a tokenizer and safetensors, a .gguf file, or the name of a causal language model"
)
_MORE_MEMORY = "; free some and run the same command again, or start anew with another --out and a smaller policy.batch, policy.context or signal.batch_size"
_BASE = "base.sha256"
"""The file beside an adapter that names the weights of the base it was trained on."""
_COMPARED = 16
"""Most texts on which a trained model is compared with its reference."""
_Encoded = list[list[int]]
_SCORED_TOGETHER = 8
"""Texts whose log-probabilities are computed together: a number of the whole vocabulary stands behind each token."""


def check() -> None:
    """Check that the libraries are installed, and load none. Raises ExperimentError."""
    for library in _LIBRARIES:
        if importlib.util.find_spec(library) is None:
            raise ExperimentError(f"policy.kind: trained needs {library}; run: {INSTALL}")


def check_base(name: str, place: Path) -> None:
    """Check what can be told of ``policy.base`` without the libraries. ``place``: where it is if it is a path. Raises
    ExperimentError."""
    if place.is_dir():
        fault = "" if (place / "config.json").is_file() else "holds no config.json"
    elif place.exists():
        fault = "" if name.endswith(".gguf") else "is a file, and none of those that are read"
    else:
        path = Path(name)
        is_path = name[0] in ".~" or name.endswith(".gguf") or path.is_absolute() or len(path.parts) > 2
        fault = "does not exist" if is_path else ""
    if fault:
        raise ExperimentError(f"policy.base: {name} {fault}; {_BASES}")


class LocalModel:
    """The base model in this process, which drafts with or without an adapter, and of which copies are trained. One thing at a
    time, in a thread of its own."""

    def __init__(self, spec: TrainedPolicySpec, base: Path | str, run: RunFolder) -> None:
        """``base``: a folder, a .gguf file, or a name that the library knows. Nothing is loaded yet."""
        self.spec, self.run, self._base = spec, run, base
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judgeloop-model")
        self.slots = asyncio.Semaphore(1)
        self._loaded: tuple[Any, Any] | None = None
        self._drafting: tuple[str, Any] = ("", None)
        """(digest of the adapter's weights, the model that drafts with it)."""
        self.trainings: dict[Hashable, dict[str, Any]] = {}
        """What was trained in this process → its result: arms that share a first step, as one judge under two strategies, train once."""

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of ``work``, in the model's thread. Raises TrainingFailed for what goes wrong in the libraries."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, _quiet, work, *arguments)
        try:
            return await running
        except (TrainingFailed, StorageFailed, ExperimentError):
            raise
        except Exception as error:
            why = checkpoints.reason(error)
            advice = _MORE_MEMORY if why == checkpoints.OUT_OF_MEMORY else ""
            raise TrainingFailed(f"policy: {self.spec.base}: {why}{advice}") from error

    def loaded(self) -> tuple[Any, Any]:
        """(tokenizer, base model), loaded once, in the model's thread."""
        if self._loaded is None:
            import datasets
            import torch
            import transformers

            datasets.disable_progress_bars()
            transformers.logging.set_verbosity_error()
            transformers.logging.disable_progress_bar()
            torch.set_num_threads(self.spec.threads or os.cpu_count() or 1)
            _keep_freed_memory()
            try:
                # A progress bar of the .gguf reader, which none of its settings hides.
                with contextlib.redirect_stderr(io.StringIO()), _read_once():
                    tokenizer, model = checkpoints.load("AutoModelForCausalLM", str(self._base), dtype=torch.float32)
            except checkpoints.UnusableCheckpoint as fault:
                raise TrainingFailed(f"policy.base: {self.spec.base} {fault}; {_BASES}") from None
            if str(self._base).endswith(".gguf"):
                _forget_quantisation(model)
            if model.device.type == "cpu":
                _multiply_few_rows_fast(model)
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._loaded = tokenizer, model.eval()
        return self._loaded

    @functools.cached_property
    def base_digest(self) -> str:
        """SHA-256 of the base model's weights with their names."""
        import torch

        digest = hashlib.sha256()
        for name, weights in self.loaded()[1].named_parameters():
            digest.update(f"{name} {tuple(weights.shape)}\n".encode())
            digest.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def answers(self, calls: Sequence[Call], model: TrainedModel | None) -> Work:
        """What answers these calls: batches in their order, of which each is made when its first answer is wanted."""
        places = {call.call_id: place for place, call in enumerate(calls)}
        batches: dict[int, asyncio.Task[list[dict[str, Any]]]] = {}

        async def answer(call: Call) -> dict[str, Any]:
            number, place = divmod(places[call.call_id], self.spec.batch)
            if number not in batches:
                part = calls[number * self.spec.batch : (number + 1) * self.spec.batch]
                batches[number] = asyncio.create_task(self.do(self._drafts, part, model))
            return (await asyncio.shield(batches[number]))[place]

        return answer

    def _drafts(self, calls: Sequence[Call], trained: TrainedModel | None) -> list[dict[str, Any]]:
        """The responses to drafting requests, in the form of chat completions. All bodies share their settings but the seed."""
        tokenizer, _ = self.loaded()
        prompts = [prompt_as_text(tokenizer, call.body["messages"]) for call in calls]
        longest = int(calls[0].body["max_tokens"])
        encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        fits = [number for number, ids in enumerate(encoded) if len(ids) + longest <= self.spec.context]
        responses: list[dict[str, Any]] = [_too_long(self.spec.context) for _ in calls]
        if not fits:
            return responses
        model = self._drafter(trained)
        ends = end_tokens(model, tokenizer)
        read = [encoded[n] for n in fits]
        drafts, log_shares = sampled(model, read, [calls[n].body for n in fits], tokenizer.pad_token_id, ends)
        of_base = log_shares
        if trained is not None:
            temperature = float(calls[0].body.get("temperature", 1.0))
            of_base = log_probabilities(self.loaded()[1], read, drafts, tokenizer.pad_token_id, temperature)
        for place, (n, tokens) in enumerate(zip(fits, drafts, strict=True)):
            ended = bool(tokens) and tokens[-1] in ends
            text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
            responses[n] = {
                "object": "chat.completion", "model": calls[n].body["model"],
                "choices": [{
                    "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop" if ended else "length",
                }],
                "usage": {"prompt_tokens": len(encoded[n]), "completion_tokens": len(tokens)},
                "log_ratio": round(log_shares[place] - of_base[place], 4),
            }  # fmt: skip
        return responses

    def _drafter(self, trained: TrainedModel | None) -> Any:
        """The model that drafts: the base, or a copy with an adapter, kept until another one is wanted."""
        _, base = self.loaded()
        if trained is None:
            return base
        if self._drafting[0] != trained.weights:
            self._drafting = ("", None)  # before the next copy is made
            self._drafting = (trained.weights, self.adapted(trained).merge_and_unload().eval())
        return self._drafting[1]

    def adapted(self, trained: TrainedModel, *, trainable: bool = False) -> Any:
        """A copy of the base with an adapter. Raises TrainingFailed where its files are gone, changed or of another base."""
        from peft import PeftModel

        _, base = self.loaded()
        place = self.run.path / trained.adapter
        if not place.is_dir() or weights_digest(place) != trained.weights:
            raise TrainingFailed(
                f"{place}: the adapter that a recorded training left is not here any more, and drafts are missing; restore it, or start anew with another --out"
            )
        trained_on = place / _BASE
        if trained_on.is_file() and trained_on.read_text(encoding="ascii") != self.base_digest:
            raise TrainingFailed(
                f"{place}: this adapter was trained on another model than policy.base {self.spec.base} now is; restore that model, or start anew with another --out"
            )
        return PeftModel.from_pretrained(copy.deepcopy(base), str(place), is_trainable=trainable)


def sampled(
    model: Any, prompts: Sequence[Sequence[int]], bodies: Sequence[Mapping[str, Any]], pad: int, ends: Sequence[int]
) -> tuple[list[list[int]], list[float]]:
    """The tokens of one text a prompt, the ending one with them, and their log-probability in nats, drawn together: each token by
    temperature with the next uniform number of its own text's stream (at temperature 0 it is certain). Texts that have ended leave the batch, which the library's ``generate`` keeps to the end of
    the longest."""
    import torch
    import transformers

    temperature, longest = float(bodies[0].get("temperature", 1.0)), int(bodies[0]["max_tokens"])
    uniforms = torch.from_numpy(np.array([seeds.rng(int(body["seed"]), "tokens").random(longest) for body in bodies]))
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    taken = inspect.signature(type(model).forward).parameters
    cache = transformers.DynamicCache(config=model.config)
    remembered = {"cache" if "cache" in taken else "past_key_values": cache, "use_cache": True}
    texts: list[list[int]] = [[] for _ in prompts]
    logs = torch.zeros(len(prompts), dtype=torch.float64)
    rows = torch.arange(len(prompts))
    ids, mask, rows, uniforms = (each.to(model.device) for each in (ids, mask, rows, uniforms))
    with torch.inference_mode():
        for step in range(longest):
            settings = {
                "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :],
                "logits_to_keep": 1,
            }
            known = {name: value for name, value in settings.items() if name in taken}
            scores = model(input_ids=ids, attention_mask=mask, **known, **remembered).logits[:, -1]
            if temperature <= 0:
                picked = scores.argmax(-1, keepdim=True)
            else:
                shares = torch.softmax(scores.float() / temperature, -1)
                cumulative = shares.cumsum(-1, dtype=torch.float64)
                picked = torch.searchsorted(cumulative, uniforms[rows, step, None] * cumulative[:, -1:], right=True)
                picked = picked.clamp(max=scores.shape[-1] - 1)
                drawn = shares.gather(-1, picked)[:, 0].double().log().cpu()
                for row, log in zip(rows.tolist(), drawn.tolist(), strict=True):
                    if not (texts[row] and texts[row][-1] in ends):
                        logs[row] += log
            going = []
            for place, (row, token) in enumerate(zip(rows.tolist(), picked[:, 0].tolist(), strict=True)):
                if not (texts[row] and texts[row][-1] in ends):
                    texts[row].append(token)
                    if token not in ends:
                        going.append(place)
            if not going:
                break
            if len(going) <= 7 * len(rows) // 8:  # dropping a row copies the cache: several at once
                kept = torch.tensor(going, device=model.device)
                rows, picked, mask = rows[kept], picked[kept], mask[kept]
                cache.batch_select_indices(kept)
            ids, mask = picked, torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return texts, logs.tolist()


def log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], pad: int, temperature: float
) -> list[float]:
    """The log-probability in nats of each text behind its prompt, drawn at the temperature; 0 at temperature 0."""
    import torch

    if temperature <= 0:
        return [0.0] * len(texts)
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), _SCORED_TOGETHER):
            part = slice(start, start + _SCORED_TOGETHER)
            rows = [[*prompt, *text] for prompt, text in zip(prompts[part], texts[part], strict=True)]
            width = max(map(len, rows))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
            scores = model(input_ids=ids, attention_mask=mask).logits
            for place, (prompt, text) in enumerate(zip(prompts[part], texts[part], strict=True)):
                behind = scores[place, len(prompt) - 1 : len(prompt) + len(text) - 1].float() / temperature
                picked = ids[place, len(prompt) : len(prompt) + len(text), None]
                found.append(float(torch.log_softmax(behind, -1).gather(-1, picked).double().sum()))
    return found


def divergence(model: Any, reference: Any, texts: Sequence[tuple[Sequence[int], int]]) -> float:
    """KL divergence of the model's next token from the reference's, in nats: the mean over the tokens of up to 16 of the texts,
    evenly spaced. ``texts``: (tokens of a prompt with its text, how many of them are the prompt's), without those that end in the prompt."""
    import torch

    texts = [(ids, start) for ids, start in texts if len(ids) > start]
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for ids, start in texts[:: -(-len(texts) // _COMPARED)]:
            scores = (each(input_ids=torch.tensor([ids], device=each.device)).logits for each in (model, reference))
            # One of them may be on another device, where the trainer has put it.
            own, other = (torch.log_softmax(each[0, start - 1 : -1].float(), -1).cpu() for each in scores)
            total += float((own.exp() * (own - other)).sum())
            tokens += len(ids) - start
    return total / tokens


@dataclass
class LoraTrainer:
    """Trains an arm's adapter by TRL, as its signal says."""

    model: LocalModel
    signal: LoraSignal

    @property
    def configuration(self) -> Mapping[str, Any]:
        spec = self.model.spec
        return {"base": spec.base, "context": spec.context, "signal": self.signal.model_dump(mode="json")}

    @property
    def slots(self) -> asyncio.Semaphore:
        """One training at a time."""
        return self.model.slots

    def worst_cost(self, training: Training) -> float:  # noqa: ARG002 - a trainer's own
        """Nothing that an endpoint is paid for."""
        return 0.0

    async def train(self, training: Training) -> Mapping[str, Any]:
        """See policies.Trainer. The adapter is the whole change from the base model, whatever training starts from."""
        return await self.model.do(self._train, training)

    def _train(self, training: Training) -> dict[str, Any]:
        import torch
        from safetensors import SafetensorError

        began = time.monotonic()
        place = f"weights/s{training.replicate}/g{training.generation}/{training.arm}"
        folder = self.model.run.path / place
        previous = training.model if training.reference == "previous" else None
        key = (training.pairs, training.seed, previous.weights if previous else "", self.signal.model_dump_json())
        same = self.model.trainings.get(key)
        if same is not None and _copied(self.model.run.path / same["adapter"], folder, same["weights"]):
            return {**same, "adapter": place, "metrics": {**same["metrics"], "seconds": 0.0}}
        tokenizer, base = self.model.loaded()
        torch.manual_seed(training.seed % _SEEDS)
        start = self.model.adapted(previous, trainable=True) if previous else copy.deepcopy(base)
        scratch = folder.with_name(f".{folder.name}.part")
        encoded = [_encoded(tokenizer, pair) for pair in training.pairs]
        trainer, cut = self._trainer(start, tokenizer, training, encoded, scratch, fresh=previous is None)
        trainer.train()
        shutil.rmtree(scratch, ignore_errors=True)
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        metrics = {
            **_metrics(history),
            "pairs": len(training.pairs),
            "cut": cut,
            "seconds": round(time.monotonic() - began, 1),
        }
        if not history or not all(math.isfinite(entry["loss"]) for entry in history):
            return {"stopped": DIVERGED, "metrics": metrics}
        reference = self.model.adapted(previous).eval() if previous else base
        texts = [(ids[: self.model.spec.context], len(prompt)) for prompt, *whole in encoded for ids in whole]
        kl = divergence(trainer.model.eval(), reference, texts)
        metrics |= {"kl": round(kl, 6)} if math.isfinite(kl) else {}
        shutil.rmtree(folder, ignore_errors=True)
        try:
            trainer.model.save_pretrained(folder, selected_adapters=["default"])
            (folder / _BASE).write_text(self.model.base_digest, encoding="ascii")
        except (OSError, SafetensorError) as error:
            raise _no_room(folder, error) from None
        digest = weights_digest(folder)
        result = {
            "model": served_name(digest) if self.model.spec.endpoint else self.model.spec.base,
            "adapter": place,
            "weights": digest,
            "metrics": metrics,
        }
        self.model.trainings[key] = result
        return result

    def _trainer(
        self, model: Any, tokenizer: Any, training: Training, encoded: Sequence[_Encoded], scratch: Path, *, fresh: bool
    ) -> tuple[Any, int]:
        """(TRL's trainer, how many texts are longer with their prompt than the context and are cut or, where not even the prompt
        leaves room for a text, left out)."""
        import datasets
        import peft
        import torch
        import transformers
        import trl

        signal, context = self.signal, self.model.spec.context
        lengths = [[len(ids) for ids in of_pair] for of_pair in encoded]
        pairs = [pair for pair, (prompt, *_) in zip(training.pairs, lengths, strict=True) if prompt < context]
        if not pairs:
            raise TrainingFailed(
                f"policy.context: no prompt of this training leaves room for a text in {context} tokens (the shortest has {min(prompt for prompt, *_ in lengths)}); give a larger context"
            )
        settings: dict[str, Any] = {
            "output_dir": str(scratch), "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 1,
            "logging_nan_inf_filter": False, "use_cpu": not torch.cuda.is_available(), "bf16": _has_bfloat16(),
            "seed": training.seed % _SEEDS, "data_seed": training.seed % _SEEDS, "learning_rate": signal.learning_rate,
            "num_train_epochs": signal.epochs, "per_device_train_batch_size": signal.batch_size,
            "gradient_checkpointing": False, "max_length": context, "dataloader_pin_memory": False,
        }  # fmt: skip
        lora = peft.LoraConfig(
            r=signal.rank, lora_alpha=2 * signal.rank, lora_dropout=0.0, task_type="CAUSAL_LM",
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        )  # fmt: skip
        chats = tokenizer.chat_template is not None
        if isinstance(signal, DpoSignalSpec):
            losses: dict[str, Any] = {"loss_type": ["sigmoid_norm" if signal.length_normalised else "sigmoid"]}
            if signal.label_smoothing:
                # TRL's sigmoid, L(m) of a pair's margin m, takes no smoothing s; its robust at 1/4 is 1.5·L(m) - 0.5·L(-m). The sum
                # is (1 - s)·L(m) + s·L(-m).
                weights = [1 + 2 * signal.label_smoothing, -2 * signal.label_smoothing]
                losses = {"loss_type": ["sigmoid", "robust"], "loss_weights": weights, "label_smoothing": 0.25}
            kind, rows = trl.DPOTrainer, [_preference(pair, chats) for pair in pairs]
            if settings["use_cpu"]:  # pair by pair: the same gradient, with less padding and memory
                settings.update(per_device_train_batch_size=1, gradient_accumulation_steps=signal.batch_size)
            config = trl.DPOConfig(**settings, **losses, beta=signal.beta)
        elif isinstance(signal, KtoSignalSpec):
            rows = [_completion(pair, chats, good) for pair in pairs for good in (True, False)]
            kind, config = trl.KTOTrainer, trl.KTOConfig(**settings, beta=signal.beta)
        else:
            chosen = {(str(pair.prompt), pair.chosen): pair for pair in pairs}
            rows = [_completion(pair, chats, True) for pair in chosen.values()]
            rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
            kind, config = trl.SFTTrainer, trl.SFTConfig(**settings)
        trainer = kind(
            model=model, args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer,
            peft_config=lora if fresh else None, callbacks=[_stop_where_not_finite(transformers)],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer, sum(length > context for _, *whole in lengths for length in whole)


def _copied(source: Path, target: Path, digest: str) -> bool:
    """Whether the adapter in ``source`` is that of the digest still; ``target`` is then its copy."""
    try:
        if weights_digest(source) != digest:
            return False
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    except TrainingFailed:  # it is gone: it may be deleted at any time
        return False
    except OSError as error:
        raise _no_room(target, error) from None
    return True


def _no_room(folder: Path, error: Exception) -> StorageFailed:
    reason = getattr(error, "strerror", None) or error
    return StorageFailed(f"{folder}: cannot be written ({reason}); make room and run the same command again")


def _quiet(work: Callable[..., T], *arguments: Any) -> T:
    """The result of ``work`` without the libraries' warnings, which speak to their own users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work(*arguments)


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step of a training, whose large arrays it would fetch from the system,
    page by page, and give back every time: a large part of a training's time on a processor."""
    libraries = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libraries, "mallopt"):
        for parameter, value in ((-3, 2**31 - 1), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libraries.mallopt(parameter, value)


def _has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16, which is then several times faster."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.cuda.is_available() or (supported is not None and bool(supported()))


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """A .gguf file is read once for its configuration, tokenizer and weights: each reading takes as long as the weights."""
    if importlib.util.find_spec("gguf") is None:
        yield
        return
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


_FEW_ROWS = 48


def _multiply_few_rows_fast(model: Any) -> None:
    """Have a model on a processor multiply a few rows, as drafting does a token at a time, by weights × rows: faster there
    than the library's rows × weights."""
    import torch

    class Linear(torch.nn.Linear):  # type: ignore[misc]
        def forward(self, rows: Any) -> Any:
            flat = rows.reshape(-1, self.in_features)
            if len(flat) > _FEW_ROWS:
                return super().forward(rows)
            return (self.weight @ flat.t()).t().contiguous().view(*rows.shape[:-1], self.out_features)

    for module in model.modules():
        if type(module) is torch.nn.Linear and module.bias is None:
            module.__class__ = Linear


def _forget_quantisation(model: Any) -> None:
    """Take the marks of quantisation off a model that was read from .gguf weights: they are de-quantised, and trainers refuse
    a model that has the marks."""
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _stop_where_not_finite(transformers: Any) -> Any:
    """A callback that ends a training whose loss is not finite."""

    class StopWhereNotFinite(transformers.TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if logs and "loss" in logs and not math.isfinite(logs["loss"]):
                control.should_training_stop = True

    return StopWhereNotFinite()


def _metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss, margin and accuracy at the first and last step that were logged; what is not finite is left out."""
    if not history:
        return {}
    names = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy", "num_tokens": "tokens"}
    metrics: dict[str, Any] = {"steps": len(history)}
    for prefix, entry in (("first_", history[0]), ("", history[-1])):
        for key, name in names.items():
            if key in entry and math.isfinite(entry[key]):
                metrics[prefix + name] = round(float(entry[key]), 6)
    return metrics


def prompt_as_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt as the model reads it: by its chat template, or the turns' texts where it has none."""
    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in messages) + "\n\n"
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def _encoded(tokenizer: Any, pair: TrainingPair) -> _Encoded:
    """The tokens of the prompt alone, of prompt and chosen text, and of prompt and rejected text, as the trainer reads them."""
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt_turns(pair.prompt)]
    prompt = prompt_as_text(tokenizer, turns)
    if tokenizer.chat_template is None:
        whole = [prompt + text + (tokenizer.eos_token or "") for text in (pair.chosen, pair.rejected)]
    else:
        answers = [[*turns, {"role": "assistant", "content": text}] for text in (pair.chosen, pair.rejected)]
        whole = [str(tokenizer.apply_chat_template(answer, tokenize=False)) for answer in answers]
    encoded: _Encoded = tokenizer([prompt, *whole], add_special_tokens=False)["input_ids"]
    return encoded


def _preference(pair: TrainingPair, chats: bool) -> dict[str, Any]:
    return {
        "prompt": _prompt(pair, chats),
        "chosen": _text(pair.chosen, chats),
        "rejected": _text(pair.rejected, chats),
    }


def _completion(pair: TrainingPair, chats: bool, good: bool) -> dict[str, Any]:
    text = pair.chosen if good else pair.rejected
    return {"prompt": _prompt(pair, chats), "completion": _text(text, chats), "label": good}


def _prompt(pair: TrainingPair, chats: bool) -> Any:
    messages = [{"role": turn.role, "content": turn.content} for turn in prompt_turns(pair.prompt)]
    return messages if chats else "\n\n".join(turn["content"] for turn in messages) + "\n\n"


def _text(text: str, chats: bool) -> Any:
    return [{"role": "assistant", "content": text}] if chats else text


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = tokenizer.eos_token_id if ends is None else ends
    return [int(end) for end in (ends if isinstance(ends, list) else [ends])]


def _too_long(context: int) -> dict[str, Any]:
    """The response to a prompt that leaves no room for a text."""
    message = f"the prompt and the longest draft take more than policy.context, {context} tokens"
    return {"error": {"code": "context_length_exceeded", "message": message}}
