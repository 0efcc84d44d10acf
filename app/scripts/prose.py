"""Prose from the packages that fetch-text-data.sh fetches: documents, each a list of paragraphs.

Only Python's own library and `dpkg-deb` are used. The same packages give the same documents in the same order.
"""

import glob
import html.parser
import io
import re
import struct
import subprocess
import tarfile
import zlib

# A heading begins a new document where the present one has this many characters: manuals on a single page
# are cut into parts.
LEAST_PART = 2000

# Words that tell the two languages apart.
FUNCTION_WORDS = {
    "en": set(
        "the of and to in is that for it as with be on this are or by an you can if not from have will at which was "
        "their has its but your".split()
    ),
    "es": set(
        "de la que el en los del las por con una para se no un es al lo como más o su sus este esta si puede son ser "
        "ha muy sin sobre también le".split()
    ),
}


def is_prose(text):
    """Whether a paragraph is made of sentences, and no label, list of names, formula or address."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return (
        len(text.split()) >= 6
        and letters / len(text) > 0.82
        and re.search(r"[.!?:…][\"'”’»)]*$", text) is not None
        and not re.search(r"://|&\w+;|[<>{}|¶�]|\\\w|%\w|this License|Copyright", text)
    )


def is_in(language, text):
    """Whether a text has more of the language's function words than of the other's."""
    words = re.findall(r"[a-záéíóúñü]+", text.lower())
    counts = {name: sum(word in known for word in words) for name, known in FUNCTION_WORDS.items()}
    return all(counts[language] > count for name, count in counts.items() if name != language)


def deb_files(deb, pattern):
    """Names and contents of the files in a Debian package whose paths match, in order of their names."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
    files = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if member.isfile() and re.search(pattern, member.name):
                files[member.name] = archive.extractfile(member).read()
    return sorted(files.items())


# --- Manuals in HTML and Mallard


class Page(html.parser.HTMLParser):
    """The paragraphs of a page, as documents: without headings, listings, menus, and what is hidden.

    A paragraph that is mostly links, or that lacks a link's text, is left out.
    """

    HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "title"}
    BLOCKS = HEADINGS | set(
        "p div li dd dt td th section article tr table ul ol dl pre br item note blockquote caption figcaption screen "
        "steps list terms comment cite hr".split()
    )
    SKIPPED = HEADINGS | set(
        "script style head nav aside header footer button svg math pre screen code_block media info figure links "
        "comment".split()
    )
    SKIPPED_CLASSES = set(
        "navheader navfooter toc related sphinxsidebar nav_table nav menu contents settitle headerlink footnote "
        "copyright relatedtopics howtoget versionmodified".split()
    )
    VOID = set("br hr img meta input col area base wbr source include".split())

    def __init__(self, root):
        super().__init__(convert_charrefs=True)
        self.root = root  # id of the element that holds the text; None: the whole page
        self.open = []  # of each open element: its tag, whether it is skipped, whether it is the root, whether a link
        self.skipped = self.links = self.linked = 0
        self.inside = 0 if root else 1
        self.text, self.lacks = [], False
        self.documents = [[]]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in self.BLOCKS:
            self.end_paragraph()
        if tag in self.HEADINGS and sum(map(len, self.documents[-1])) >= LEAST_PART:
            self.documents.append([])
        if tag in self.VOID:
            return
        if tag in ("gui", "key") and self.open:
            self.join(tag)
        classes = set((attributes.get("class") or "").split())
        # LibreOffice's help has the text for every system, and shows the default one.
        hidden = "hidden" in attributes and not (attributes.get("id") or "").startswith("default")
        skipped = tag in self.SKIPPED or hidden or bool(classes & self.SKIPPED_CLASSES)
        root = self.root is not None and attributes.get("id") == self.root
        link = tag == "link" or (tag == "a" and "href" in attributes)
        self.open.append((tag, skipped, root, link))
        self.skipped += skipped
        self.inside += root
        self.links += link

    def handle_startendtag(self, tag, attributes):
        if tag in self.BLOCKS:
            self.end_paragraph()
        self.lacks = self.lacks or (tag == "link" and not self.skipped)

    def handle_endtag(self, tag):
        if tag in self.BLOCKS:
            self.end_paragraph()
        for at in reversed(range(len(self.open))):
            if self.open[at][0] == tag:
                for _, skipped, root, link in self.open[at:]:
                    self.skipped -= skipped
                    self.inside -= root
                    self.links -= link
                del self.open[at:]
                break

    def handle_data(self, data):
        if self.inside and not self.skipped:
            self.text.append(data)
            self.linked += len(data) if self.links else 0

    def join(self, tag):
        """Between the keys of Mallard's `keyseq`, and the parts of its `guiseq`, stands nothing."""
        sign = {"guiseq": " - ", "keyseq": "+"}.get(self.open[-1][0])
        if sign and self.text and self.text[-1].strip():
            self.text.append(sign)

    def end_paragraph(self):
        text = re.sub(r"\s+", " ", "".join(self.text)).strip()
        text = re.sub(r" ([,.;:])(?= |$)", r"\1", text.replace(" ▸ ", " - "))
        if text and not self.lacks and self.linked * 2 <= len(text):
            self.documents[-1].append(text)
        self.text, self.linked, self.lacks = [], 0, False


def manual(deb, pattern, root=None):
    """The pages of a manual."""
    for _, content in deb_files(deb, pattern):
        page = Page(root)
        page.feed(content.decode("utf-8", "replace"))
        page.close()
        page.end_paragraph()
        yield from page.documents


def descriptions(file):
    """The long descriptions of an index of package descriptions, without lists, commands and repetitions.

    Many differ in a name alone: of those that begin and end with the same words the first is taken.
    """
    seen = set()
    with open(file, encoding="utf-8") as lines:
        for entry in lines.read().split("\n\n"):
            # The first line is a summary.
            found = re.search(r"^Description-[a-z]{2}: .*\n((?: .*\n?)+)", entry, re.M)
            if not found:
                continue
            document = []
            for paragraph in re.split(r"^ \.\n", found.group(1), flags=re.M):
                lines_of_it = paragraph.strip("\n").split("\n")
                # Lists and what is to be shown as it is begin with more than one space, or a sign.
                if any(re.match(r" (?:\s|[-*+o•]\s|\d+[.)])", line) for line in lines_of_it):
                    continue
                words = " ".join(line.strip() for line in lines_of_it).split()
                ends = (*words[:4], *words[-4:])
                if ends not in seen:
                    seen.add(ends)
                    document.append(" ".join(words))
            yield document


# --- Literature


def brown(archive):
    """Every sample of the Brown corpus, without its tags."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if re.fullmatch(r"package/c[a-r]\d\d", m.name)]
        for member in sorted(members, key=lambda m: m.name):
            paragraphs = []
            for paragraph in tar.extractfile(member).read().decode("utf-8").split("\n\n\n"):
                text = " ".join(word.rsplit("/", 1)[0] for word in paragraph.split())
                text = re.sub(r"`` ?| ?''", '"', text)
                text = re.sub(r" ([,.;:?!)])", r"\1", text)
                text = re.sub(r"([.?!;])(?: ?\1)+", r"\1", text).replace("( ", "(")
                paragraphs += [text] if text else []
            yield paragraphs


def austen(deb):
    """Every chapter of Jane Austen's novels in R's janeaustenr."""
    ((_, data),) = deb_files(deb, r"/janeaustenr/data/Rdata\.rdb$")
    at = 0
    # A lazy-load data base: zlib streams, each behind its length, of XDR character vectors.
    while at < len(data):
        stream = zlib.decompressobj()
        block = stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)
        i = block.index(b"UTF-8") + 5
        kind, count = struct.unpack(">iI", block[i:i + 8])
        if kind & 255 != 16:
            continue
        lines, i = [], i + 8
        for _ in range(count):
            _, length = struct.unpack(">ii", block[i:i + 8])
            lines.append(block[i + 8:i + 8 + max(length, 0)].decode("utf-8"))
            i += 8 + max(length, 0)
        for chapter in re.split(r"\n(?=CHAPTER |Chapter \w+\n)", "\n".join(lines)):
            paragraphs = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", chapter)]
            yield [p for p in paragraphs if p]


def package(folder, pattern):
    """The files of the folder that match, in order of their names."""
    return sorted(glob.glob(f"{folder}/{pattern}"))
