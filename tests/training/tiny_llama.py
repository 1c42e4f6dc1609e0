"""A randomly initialised Llama of a few thousand weights, with a tokenizer of words, in a folder that transformers reads."""

from __future__ import annotations

from pathlib import Path

WORDS = ["the", "a", "cat", "dog", "bird", "runs", "sleeps", "sings", "and", "then", "in", "rain", "sun", "tree", "house", "far", "near"]  # fmt: skip


def write(folder: Path, seed: int = 0, width: int = 32) -> Path:
    """Write the model; its folder."""
    import tokenizers
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    vocabulary = {word: place for place, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2,  # small weights leave the logits no room to move
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
