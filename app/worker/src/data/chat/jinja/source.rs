//! The text of a template, made ready for minijinja.

use super::{GENERATION, STORED};

/// A template with line ends as Jinja2 reads them, its `{% generation %}` tags, which are transformers' own, as a
/// filter of what they enclose, and another filter on what it binds to a name. Says whether it has such tags.
pub(crate) fn prepared(source: &str) -> (String, bool) {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let (mut out, mut tagged) = (String::with_capacity(source.len()), false);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let len = match from.as_bytes().get(1) {
            Some(b'#') => from.find("#}").map_or(from.len(), |n| n + 2),
            Some(b'{') => end_of_code(from, "}}"),
            Some(b'%') => end_of_code(from, "%}"),
            _ => 1,
        };
        let (mut part, mut after) = from.split_at(len);
        match tag_name(part) {
            Some("raw") => {
                let end = end_of_raw(after);
                (part, after) = from.split_at(len + end);
                out.push_str(part);
            }
            Some(name @ ("generation" | "endgeneration")) => {
                tagged = true;
                out.push_str(&generation(part, name));
            }
            _ => match stored_at(part) {
                Some((target, value, end)) => {
                    let whole = !target.contains('.');
                    out.push_str(&format!("{target}({value})|{STORED}({whole}) {end}"));
                }
                None => out.push_str(bound(part).as_deref().unwrap_or(part)),
            },
        }
        rest = after;
    }
    (out + rest, tagged)
}

/// Bytes of the longest tag or expression of a template, texts in it left out.
pub(crate) fn longest_code(source: &str) -> usize {
    let (mut longest, mut rest) = (0, source);
    while let Some(at) = rest.find('{') {
        let from = &rest[at..];
        let len = match from.as_bytes().get(1) {
            Some(b'{') => end_of_code(from, "}}"),
            Some(b'%') => end_of_code(from, "%}"),
            _ => 1,
        };
        longest = longest.max(without_texts(&from[..len]));
        rest = &from[len..];
    }
    longest
}

fn without_texts(code: &str) -> usize {
    let (mut count, mut quote, mut escaped) = (0, None, false);
    for c in code.bytes() {
        match quote {
            None if c == b'\'' || c == b'"' => quote = Some(c),
            None => count += 1,
            Some(_) if escaped => escaped = false,
            Some(_) if c == b'\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
        }
    }
    count
}

/// Length of a tag or expression that `text` begins with, its end included; texts in it may hold anything.
fn end_of_code(text: &str, end: &str) -> usize {
    let (bytes, mut i, mut depth) = (text.as_bytes(), 2, 0_usize);
    while i < bytes.len() {
        match bytes[i] {
            quote @ (b'\'' | b'"') => {
                i += 1;
                while i < bytes.len() && bytes[i] != quote {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            _ if depth == 0 && bytes[i..].starts_with(end.as_bytes()) => return i + end.len(),
            _ => {}
        }
        i += 1;
    }
    text.len()
}

/// Name of the tag that stands alone in `{% … %}`.
fn tag_name(part: &str) -> Option<&str> {
    let inner = part.strip_prefix("{%")?.strip_suffix("%}")?;
    Some(inner.trim_matches(['-', '+']).trim())
}

/// A tag that sets a variable: up to its `=`, what is stored, and the end of the tag.
fn stored_at(part: &str) -> Option<(&str, &str, &str)> {
    let name = tag_name(part)?;
    let target = name.strip_prefix("set")?.split_once('=')?.0;
    let names = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.,()".contains(c);
    if !target.starts_with(char::is_whitespace) || !target.chars().all(names) {
        return None;
    }
    let (before, from) = part.split_at(part.find('=')? + 1);
    let (value, end) = from.split_at(end_of_tag(from));
    Some((before, value, end))
}

/// Where the end of a tag begins: `%}` with what may stand before it.
fn end_of_tag(tag: &str) -> usize {
    let inner = tag.strip_suffix("%}").unwrap_or(tag);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    inner.trim_end().len()
}

/// A tag that binds names to what may be a sum, with what it binds as [`STORED`]: the arguments of a macro and of its
/// caller, which others call; what `with` sets; and the names of a loop that goes over sums, or calls itself.
fn bound(part: &str) -> Option<String> {
    let tag = tag_name(part)?;
    let word = tag.split(|c: char| !c.is_alphanumeric()).next()?;
    let (tag, end) = part.split_at(end_of_tag(part));
    let (head, rest) = tag.split_at(tag.find(word)? + word.len());
    match word {
        "with" => Some(format!("{head} {}{end}", with_stored_values(rest))),
        "macro" | "call" => {
            let (name, list) = rest.split_once('(')?;
            if word == "call" && !name.trim().is_empty() {
                return None;
            }
            let close = outer(list).find(|&(_, c)| c == b')')?.0;
            let names = pieces(&list[..close]).filter_map(|piece| piece.split('=').next());
            Some(format!("{tag}{}{end}", sets(names)))
        }
        "for" if rest.contains('+') || rest.contains("recursive") => {
            let (names, _) = rest.split_once(" in ")?;
            Some(format!("{tag}{}{end}", sets(names.split([',', '(', ')']))))
        }
        _ => None,
    }
}

/// The end of a tag, and tags that bind names to what they are bound to, as [`STORED`], the last without its end.
fn sets<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| format!(" %}}{{% set {name} = {name}|{STORED}(true) "))
        .collect()
}

/// Bindings `name = value, …` whose values are [`STORED`].
fn with_stored_values(list: &str) -> String {
    let bindings = pieces(list).map(|piece| match piece.split_once('=') {
        Some((name, value)) => format!("{name}=({value})|{STORED}(true)"),
        None => piece.to_owned(),
    });
    bindings.collect::<Vec<_>>().join(",")
}

/// A list, cut at its commas.
fn pieces(list: &str) -> impl Iterator<Item = &str> {
    let commas = outer(list).filter(|&(_, c)| c == b',').map(|(at, _)| at);
    let mut from = 0;
    commas.chain([list.len()]).map(move |at| {
        let piece = &list[from..at];
        from = at + 1;
        piece
    })
}

/// The bytes of code that stand outside texts and brackets, and where; a bracket that closes none is one of them.
fn outer(code: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut quote, mut escaped, mut depth) = (None, false, 0_usize);
    code.bytes().enumerate().filter(move |&(_, c)| {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(c),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') if depth > 0 => depth -= 1,
            (None, _) => return depth == 0,
        }
        false
    })
}

/// Where `{% endraw %}` begins.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%").map(|at| from + at) {
        let inner = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if inner.starts_with("endraw") {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// A `{% generation %}` tag or its end as the filter's: white space goes where it went, and what is set inside
/// stays inside.
fn generation(tag: &str, name: &str) -> String {
    let (left, right) = tag.split_once(name).unwrap_or((tag, ""));
    match name {
        "generation" => format!("{left}with %}}{{% filter {GENERATION}{right}"),
        _ => format!("{left}endfilter %}}{{% endwith{right}"),
    }
}
