"""``judgeloop.training_log``: what a model drafts for fixed items while a trainer of somebody else trains it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from judgeloop import seeds
from judgeloop.errors import InvalidInput
from judgeloop.experiment.inputs import load_items
from judgeloop.records import Item, prompt_text, prompt_turns
from judgeloop.training.lora import end_tokens, prompt_as_text, sampled

if TYPE_CHECKING:
    import transformers

_BATCH = 32


def training_log(
    items: str | Path,
    out: str | Path,
    *,
    every: int,
    texts: int = 4,
    temperature: float = 1.0,
    max_tokens: int = 256,
    arm: str = "texts",
    control: bool = False,
    replicate: int = 0,
    seed: int = 0,
) -> transformers.TrainerCallback:
    """A callback for a trainer of transformers or TRL, which appends the model's texts for every item to the file ``out``.

    ``items``: an items file (docs/contract.md, "Items"). ``texts`` are drafted an item before the first step, after each ``every``
    steps and at the end, with random numbers of their own (``seed``, ``replicate``), the same in every arm: the training's are left
    alone. A row holds ``item_id, prompt, category, language, step, text, arm, control, replicate``; ``judgeloop.analyze(out)`` reads
    them, several arms and replicates in one file too (``control``: the arm that others are compared with, as one trained on a coin's
    picks). A training that goes on from a checkpoint appends the steps that the file lacks. The first process of several drafts and writes; it must hold the
    whole model.

    Raises InvalidInput for items that cannot be read, settings out of their range and an ``out`` that is a folder, and where ``out`` has
    texts of this arm and replicate though the training starts.
    """
    for name, number in (("every", every), ("texts", texts), ("max_tokens", max_tokens)):
        if not isinstance(number, Integral) or number < 1:
            raise InvalidInput(f"{name}: must be a whole number, 1 or more, not {number!r}")
    if not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise InvalidInput(f"temperature: must be a number, 0 or more, not {temperature!r}")
    path = Path(out)
    if path.is_dir():
        raise InvalidInput(f"{path}: this is a folder; give the file to which the texts are appended as out")
    asked = load_items(Path(items))
    import transformers

    labels = {"arm": arm, "control": control, "replicate": replicate}

    class TrainingLog(transformers.TrainerCallback):  # type: ignore[misc]
        """Texts of the model at step 0, each ``every`` steps, and at the end."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002
            if not state.is_world_process_zero:
                return
            self._written = _steps_written(path, labels)
            if not state.global_step:
                if self._written:
                    raise InvalidInput(
                        f"{path}: has texts of arm {arm!r}, replicate {replicate}, already; give another out, arm or replicate"
                    )
                self._write(0, **objects)

        def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:  # noqa: ARG002
            ends = state.global_step >= state.max_steps > 0
            due = state.global_step % every == 0 or ends
            if state.is_world_process_zero and due and state.global_step not in self._written:
                self._write(state.global_step, **objects)

        def _write(self, step: int, *, model: Any, processing_class: Any, **_: Any) -> None:
            tokenizer = getattr(processing_class, "tokenizer", processing_class)
            whole = getattr(model, "module", model)
            if hasattr(whole, "get_base_model"):  # an adapter's layers are in it
                whole = whole.get_base_model()
            ends = end_tokens(whole, tokenizer)
            pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            drafts = [(item, number) for item in asked for number in range(texts)]

            def drafted(part: Sequence[tuple[Item, int]]) -> list[dict[str, Any]]:
                bodies = [
                    {"seed": seeds.integer(seed, "training_log", replicate, step, item.item_id, number),
                     "temperature": temperature, "max_tokens": max_tokens}
                    for item, number in part
                ]  # fmt: skip
                chats = [
                    [{"role": turn.role, "content": turn.content} for turn in prompt_turns(item.prompt)]
                    for item, _ in part
                ]
                shown = [prompt_as_text(tokenizer, chat) for chat in chats]
                prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in shown]
                tokens, _ = sampled(whole, prompts, bodies, pad, ends)
                return [
                    {"item_id": item.item_id, "prompt": prompt_text(item.prompt), "category": item.category,
                     "language": item.language, "text": tokenizer.decode(each, skip_special_tokens=True)}
                    for (item, _), each in zip(part, tokens, strict=True)
                ]  # fmt: skip

            trained = whole.training
            whole.eval()
            try:
                rows = [
                    row for start in range(0, len(drafts), _BATCH) for row in drafted(drafts[start : start + _BATCH])
                ]
            finally:
                whole.train(trained)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({**row, "step": step, **labels}, ensure_ascii=False) + "\n" for row in rows)

    return cast("transformers.TrainerCallback", TrainingLog())


def _steps_written(path: Path, labels: dict[str, Any]) -> set[int]:
    """The steps of this arm and replicate of which the file has texts. Raises InvalidInput where its last line is cut off or another is no
    text of a log."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return set()
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise InvalidInput(f"{path}: its last line is cut off; take out the rows of its last step")
    steps = set()
    for number, line in enumerate(text.split("\n"), start=1):  # a text may hold other line ends
        try:
            row = json.loads(line or "null")
            if row and (row["arm"], row["replicate"]) == (labels["arm"], labels["replicate"]):
                steps.add(row["step"])
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(
                f"{path}:{number}: this line is no text that training_log wrote; give another out"
            ) from None
    return steps
