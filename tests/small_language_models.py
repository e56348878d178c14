"""Small random language models with a tokenizer of whole words and bytes, made where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = (
    "The capital of France is Paris . The capital of Spain is Madrid . He said she sat , and that was all !"
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer(template: bool = True) -> Any:
    """Byte-level pairs, trained on a sentence or two."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 4, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    if template:
        fast.chat_template = TEMPLATE
    return fast


def causal(kind: str = "llama", seed: int = 0, window: int = 64) -> Any:
    """A random causal model in double precision, so that sums can be compared to many digits."""
    import transformers

    torch.manual_seed(seed)
    if kind == "gpt2":
        settings = transformers.GPT2Config(
            vocab_size=400, n_positions=window, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
        )
        model = transformers.GPT2LMHeadModel(settings)
    else:
        settings = transformers.LlamaConfig(
            vocab_size=400,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=window,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.3,
        )
        model = transformers.LlamaForCausalLM(settings)
    return model.double().eval()


def encoder_decoder(seed: int = 0) -> Any:
    """A random T5 in double precision."""
    import transformers

    torch.manual_seed(seed)
    settings = transformers.T5Config(
        vocab_size=400,
        d_model=16,
        d_ff=32,
        d_kv=8,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return transformers.T5ForConditionalGeneration(settings).double().eval()


def saved(model: Any, folder: Path, template: bool = True) -> Path:
    """A folder with the model and the tokenizer."""
    model.save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
