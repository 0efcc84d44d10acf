"""Trains the tokenizer of `builtin:tiny-llama` on the built-in texts, and writes it beside them.

Needs the package tokenizers (0.23.3 made the one that is there). Training is deterministic.
"""
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

here = Path(__file__).parent.parent / "engine/src/pretrained/builtin"
records = [json.loads(line) for line in (here / "verilog.jsonl").open()]
texts = [message["content"] for record in records for message in record["messages"]]
texts += (here / "english.txt").read_text().split("\n\n")
# What the chat template and multiple-choice questions write around them.
texts += ["user\n", "assistant\n", "ANSWER: A", "ANSWER: B", "ANSWER: C", "ANSWER: D"] * 20

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=512,
    # The ids that SmolLM2 has for them.
    special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
))
tokenizer.save(str(here / "tiny-llama/tokenizer.json"))
