"""builtin_text.py PACKAGES: makes the built-in texts for small models, and trains their tokenizer.

PACKAGES is a folder with the Debian packages r-cran-janeaustenr (1.0.0-1 made the text that is there) and
sword-text-sparv (2.60-1), as `apt-get download` leaves them. Needs the package tokenizers (0.23.3), and `dpkg-deb`.
The same packages give the same bytes.
"""

import re
import struct
import sys
import zlib
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from problems import problems
from prose import austen, deb_files, package

HERE = Path(__file__).parent.parent / "engine/src/pretrained/builtin/text"
CHARACTERS = 200_000  # of English, and of Spanish
DOCUMENT = 900  # characters; a document ends with the paragraph with which it has them
PROBLEMS = 1000
VOCABULARY = 1024
SPECIAL = [f"<|data{i}|>" for i in range(4)] + ["<|endoftext|>"]
BOOKS = ["Gen", "Ruth", "1Sam", "Esth", "Jonah", "Luke", "Acts"]


def main(packages):
    texts = {
        "english.txt": documents(novels(*package(packages, "r-cran-janeaustenr_*.deb"))),
        "spanish.txt": documents(books(*package(packages, "sword-text-sparv_*.deb"))),
        "problems.txt": problems(PROBLEMS),
    }
    HERE.mkdir(exist_ok=True)
    for name, found in texts.items():
        (HERE / name).write_text("\n\n".join(found) + "\n", encoding="utf-8")
        print(f"{name}: {(HERE / name).stat().st_size} bytes, {len(found)} documents")
    train([document for found in texts.values() for document in found])


def documents(works):
    """The beginnings of the works, in equal parts, as documents of one line a paragraph."""
    found = []
    for paragraphs in works:
        document, taken = [], 0
        for paragraph in paragraphs:
            document.append(paragraph)
            taken += len(paragraph)
            if sum(map(len, document)) >= DOCUMENT:
                found.append("\n".join(document))
                document = []
                if taken >= CHARACTERS / len(works):
                    break
        found += ["\n".join(document)] if document else []
    return found


def novels(deb):
    """The paragraphs of each of Jane Austen's six novels, without titles."""
    found = []
    for chapter in austen(deb):
        if re.match("chapter ", chapter[0], re.I):
            # Underscores stand for italics.
            found[-1] += [re.sub(r"_([^_]+)_", r"\1", paragraph) for paragraph in chapter[1:]]
        else:
            found.append([])
    return found


def books(deb):
    """The verses of those of the Bible's books that are named above, of a SWORD module of compressed books."""
    files = {Path(name).name: content for name, content in deb_files(deb, r"/[on]t\.bz[svz]$")}
    found = {}
    for part in ("ot", "nt"):
        blocks, verses, data = (files[f"{part}.bz{kind}"] for kind in "svz")
        blocks = [data[at:at + size] for at, size, _ in struct.iter_unpack("<III", blocks)]
        texts = [zlib.decompress(block) if block else b"" for block in blocks]
        for book, at, size in struct.iter_unpack("<IIH", verses):
            name = re.search(rb'osisID="(\w+)"[^>]*type="book"', texts[book])
            text = re.sub(r"<(title|note)\b[^>]*>.*?</\1>", "", texts[book][at:at + size].decode(), flags=re.S)
            text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text)).strip()
            if name and text:
                found.setdefault(name.group(1).decode(), []).append(text)
    return [found[book] for book in BOOKS]


def train(texts):
    """Byte-level BPE; the first ids are the markers of datasets and the end of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))
    tokenizer.save(str(HERE / "tokenizer.json"))


if __name__ == "__main__":
    main(*sys.argv[1:])
