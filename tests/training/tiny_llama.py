"""A randomly initialised Llama of a few thousand weights, with a tokenizer of words, in a folder that transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def write_gguf(path: Path, kind: str = "F16", *, blocks: int = 1) -> Any:
    """Write a Llama of one layer as llama.cpp does, with a tokenizer of letters; the model whose weights they are. ``kind`` of
    quantisation; ``blocks``: how many layers the file says it has."""
    import gguf
    import torch
    import transformers

    tokens = ["<pad>", "<s>", "</s>", "<unk>", "Ġ", "Ċ", *sorted(set("".join(WORDS))), "th", "the"]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(blocks)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 4 + [1] * (len(tokens) - 4))
    writer.add_token_merges(["t h", "th e"])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, weights in model.state_dict().items():
        array = weights.numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp pairs the dimensions that rotate together otherwise
            array = array.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        of = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else kind]
        writer.add_tensor(names.get_name(name, (".weight",)), gguf.quants.quantize(array, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
