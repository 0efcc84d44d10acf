//! Paths in Rust source: `use` trees, inline paths and doc links, of shipped code alone.

/// Source without tests, comments and what stands in strings; of doc comments the links stay, if they are wanted.
pub fn shipped(source: &str, with_links: bool) -> String {
    without_tests(&without_comments(source, with_links))
}

fn without_comments(source: &str, with_links: bool) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let (text, len) = if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            let links = if with_links {
                links(&rest[..len])
            } else {
                String::new()
            };
            (links, len)
        } else if rest.starts_with("/*") {
            (
                String::new(),
                rest.find("*/").map_or(rest.len(), |end| end + 2),
            )
        } else if let Some(len) = raw_string(rest).or_else(|| string(rest)) {
            ("\"\"".to_owned(), len)
        } else if let Some(len) = character(rest) {
            ("' '".to_owned(), len)
        } else {
            (c.to_string(), c.len_utf8())
        };
        out.push_str(&text);
        rest = &rest[len..];
    }
    out
}

/// The paths that a doc comment links to, as statements.
fn links(comment: &str) -> String {
    if !comment.starts_with("///") && !comment.starts_with("//!") {
        return String::new();
    }
    let starts = ["[`crate::", "[`super::", "](crate::", "](super::"];
    let mut found = String::new();
    for start in starts {
        for (at, _) in comment.match_indices(start) {
            let path = &comment[at + 2..];
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            found.push_str(&path[..end.unwrap_or(path.len())]);
            found.push_str("; ");
        }
    }
    found
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let n = hashes.len() - hashes.trim_start_matches('#').len();
    let body = hashes[n..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(n));
    Some(text.len() - body.len() + body.find(&end)? + end.len())
}

fn string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            '"' if !escaped => return Some(at + 2),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

/// A character, as opposed to a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escaped) = body.strip_prefix('\\') {
        let end = escaped.char_indices().skip(1).find(|(_, c)| *c == '\'')?.0;
        return Some(2 + end + 1);
    }
    let c = body.chars().next()?;
    body[c.len_utf8()..]
        .starts_with('\'')
        .then(|| c.len_utf8() + 2)
}

/// Leaves out what is compiled for tests alone.
fn without_tests(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item.find(['{', ';']).expect("an item follows an attribute");
        let len = if item[end..].starts_with('{') {
            end + block(&item[end..])
        } else {
            end + 1
        };
        rest = &item[len..];
    }
    out + rest
}

/// Length of a block in braces.
fn block(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Modules that a file declares for tests alone.
pub fn test_modules(source: &str) -> Vec<String> {
    let source = without_comments(source, false);
    let mut modules = Vec::new();
    for (at, attribute) in source.match_indices("#[cfg(test)]") {
        let item = source[at + attribute.len()..].trim_start();
        let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
        let item = item.strip_prefix("pub(super) ").unwrap_or(item);
        let declared = item.strip_prefix("mod ").and_then(|m| m.split_once(';'));
        if let Some((name, _)) = declared.filter(|(name, _)| !name.contains('{')) {
            modules.push(name.to_owned());
        }
    }
    modules
}

/// Every path in the source that begins with `crate`, `super` or `self`, trees spelt out; and whether it is
/// given on by `pub use`.
pub fn paths(source: &str) -> Vec<(String, bool)> {
    let mut paths = Vec::new();
    let mut rest = source;
    while let Some(at) = next_path(rest) {
        let before = rest[..at]
            .rsplit([';', '{', '}'])
            .next()
            .unwrap_or_default();
        let is_use = before.trim_end().ends_with("use");
        let is_public = is_use && before.contains("pub");
        let path = &rest[at..];
        let len = if is_use {
            path.find(';').unwrap_or(path.len())
        } else {
            let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            end.unwrap_or(path.len())
        };
        for path in leaves(&path[..len]) {
            paths.push((path, is_public));
        }
        rest = &rest[at + len..];
    }
    paths
}

/// Where the next path begins.
fn next_path(text: &str) -> Option<usize> {
    let starts = ["crate::", "super::", "self::"];
    let found = starts.iter().flat_map(|start| {
        text.match_indices(start).map(|(at, _)| at).find(|&at| {
            let before = text[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
        })
    });
    found.min()
}

/// The leaves of a `use` tree.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        let path = path.trim().trim_end_matches("::self");
        return vec![path.trim_end_matches(':').to_owned()];
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in inside.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let parts = parts
        .iter()
        .map(|part| part.trim())
        .filter(|p| !p.is_empty());
    let whole = parts.map(|part| format!("{before}{part}"));
    whole.flat_map(|path| leaves(&path)).collect()
}

#[test]
fn paths_are_those_of_shipped_code() {
    let source = r##"
        //! See [`crate::docs::Link`], not crate::prose.
        use crate::{a::{self, B as C}, d::E};
        pub use super::f::G;
        // use crate::comment::No;
        const S: &str = "crate::string::No"; const R: &str = r#"crate::raw::No"#;
        fn x<'a>(c: char) -> crate::inline::Path { let q = '"'; super::h::call(q, '\'') }
        #[cfg(test)]
        mod tests { use crate::tests::No; fn f() { crate::tests::No } }
        fn y() { crate::after::Tests }
        #[cfg(test)]
        mod only_tests;
    "##;
    let found = paths(&shipped(source, true));
    let found: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "crate::docs::Link",
        "crate::a",
        "crate::a::B",
        "crate::d::E",
        "super::f::G",
        "crate::inline::Path",
        "super::h::call",
        "crate::after::Tests",
    ];
    assert_eq!(found, expected);
    assert_eq!(paths(&shipped(source, false)).len(), expected.len() - 1);
    assert_eq!(test_modules(source), ["only_tests"]);
}
