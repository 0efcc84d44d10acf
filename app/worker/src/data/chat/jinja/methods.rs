//! Methods of Python's texts, lists and dicts.

use minijinja::value::{Kwargs, StringInput, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::python::{is_space, type_name};
use super::{limits, wrong};

/// Arguments by position or name, as Python binds them: one a name; too many or unknown ones are an error.
pub(super) fn bind<const N: usize>(
    of: &str,
    positional: &[Value],
    named: &Kwargs,
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    if positional.len() > N {
        let given = positional.len();
        return Err(wrong(format!(
            "{of} takes at most {N} arguments, {given} are given"
        )));
    }
    let mut bound = [const { None }; N];
    for (i, name) in names.iter().enumerate() {
        bound[i] = match positional.get(i) {
            Some(value) => Some(value.clone()),
            None if named.has(name) => Some(named.get(name)?),
            None => None,
        };
    }
    named.assert_all_used()?;
    Ok(bound)
}

/// The arguments of a method.
fn arguments<const N: usize>(
    of: &str,
    args: &[Value],
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
    bind(of, positional, &named, names)
}

/// Calls a method that minijinja does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            of_text(state, value, text, method, args)
        }
        ValueKind::Map => of_dict(value, method, args),
        ValueKind::Seq | ValueKind::Iterable => of_list(value, method, args),
        ValueKind::Number if method == "is_integer" => {
            let number = f64::try_from(value.clone())?;
            Ok(Value::from(number.fract() == 0.0))
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// Methods that would change what the template was given, which transformers' sandbox refuses.
const CHANGES: [&str; 13] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
    "discard",
];

fn unknown(value: &Value, method: &str) -> Error {
    let kind = type_name(value);
    match CHANGES.contains(&method) {
        true => wrong(format!(
            "access to attribute '{method}' of '{kind}' object is unsafe"
        )),
        false => ErrorKind::UnknownMethod.into(),
    }
}

pub(crate) fn of_dict(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let keys = || -> Result<Vec<Value>, Error> { Ok(value.try_iter()?.collect()) };
    match method {
        "get" => {
            let [key, default] = arguments("get", args, ["key", "default"])?;
            let key = key.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let found = value.get_item(&key).unwrap_or_default();
            let missing = found.is_undefined();
            Ok(if missing {
                default.unwrap_or(Value::from(()))
            } else {
                found
            })
        }
        "keys" => no_arguments(args).and_then(|()| Ok(Value::from(keys()?))),
        "values" => {
            no_arguments(args)?;
            let values: Result<Vec<Value>, Error> =
                keys()?.iter().map(|key| value.get_item(key)).collect();
            Ok(Value::from(values?))
        }
        "items" => {
            no_arguments(args)?;
            let pairs = keys()?.into_iter().map(|key| {
                let item = value.get_item(&key)?;
                Ok(Value::from(Tuple::from([key, item])))
            });
            Ok(Value::from(pairs.collect::<Result<Vec<_>, Error>>()?))
        }
        "copy" => no_arguments(args).map(|()| value.clone()),
        _ => Err(unknown(value, method)),
    }
}

fn of_list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "count" => {
            let (what,): (&Value,) = from_args(args)?;
            Ok(Value::from(
                value.try_iter()?.filter(|item| item == what).count(),
            ))
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let found = value.try_iter()?.position(|item| item == *what);
            found
                .map(Value::from)
                .ok_or_else(|| wrong(format!("{what} is not in list")))
        }
        "copy" => no_arguments(args).map(|()| value.clone()),
        _ => Err(unknown(value, method)),
    }
}

fn no_arguments(args: &[Value]) -> Result<(), Error> {
    from_args::<()>(args)
}

fn of_text(
    state: &mut State,
    value: &Value,
    s: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let plain = |f: fn(&str) -> String| no_arguments(args).map(|()| Value::from(f(s)));
    match method {
        "upper" => plain(str::to_uppercase),
        "lower" => plain(str::to_lowercase),
        "casefold" => plain(|s| s.to_lowercase().replace('ß', "ss")),
        "title" => plain(title),
        "swapcase" => plain(swapcase),
        "capitalize" => {
            no_arguments(args)?;
            Ok(minijinja::filters::capitalize(StringInput::new(
                state, value,
            )?))
        }
        "strip" | "lstrip" | "rstrip" => strip(s, method, args),
        "split" | "rsplit" => split(s, method == "rsplit", args),
        "splitlines" => split_lines(s, args),
        "partition" | "rpartition" => partition(s, method == "rpartition", args),
        "replace" => replace(state, s, args),
        "find" | "rfind" | "index" | "rindex" | "count" => find(s, method, args),
        "startswith" | "endswith" => affixed(s, method == "startswith", args),
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let without = match method {
                "removeprefix" => s.strip_prefix(part),
                _ => s.strip_suffix(part),
            };
            Ok(Value::from(without.unwrap_or(s)))
        }
        "join" => join(state, s, args),
        "center" | "ljust" | "rjust" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            padded(s, method, width, fill.unwrap_or(" ")).map(Value::from)
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
            let digits = padded(digits, "rjust", width - sign.len() as i64, "0")?;
            Ok(Value::from(format!("{sign}{digits}")))
        }
        "format" => format(state, value, s, args),
        _ if method.starts_with("is") => {
            no_arguments(args)?;
            let holds = is(s, method).ok_or_else(|| Error::from(ErrorKind::UnknownMethod))?;
            Ok(Value::from(holds))
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// Words begin after anything that is no letter: `They'Re`.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut in_word = false;
    for c in s.chars() {
        match in_word {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn swapcase(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c.is_uppercase() {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
    }
    out
}

fn strip(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    let cut = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    Ok(Value::from(match method {
        "strip" => s.trim_matches(cut),
        "lstrip" => s.trim_start_matches(cut),
        _ => s.trim_end_matches(cut),
    }))
}

fn split(s: &str, from_end: bool, args: &[Value]) -> Result<Value, Error> {
    let [separator, most] = arguments("split", args, ["sep", "maxsplit"])?;
    let most = most.map_or(Ok(-1), i64::try_from)?;
    let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let separator = separator.filter(|v| !v.is_none());
    let mut found: Vec<&str> = match &separator {
        None => return Ok(words(s, parts, from_end)),
        Some(separator) => match (separator.as_str(), from_end) {
            (None, _) => return Err(wrong(format!("split: {separator} is no text"))),
            (Some(""), _) => return Err(wrong("split: empty separator")),
            (Some(separator), false) => s.splitn(parts, separator).collect(),
            (Some(separator), true) => s.rsplitn(parts, separator).collect(),
        },
    };
    if from_end {
        found.reverse();
    }
    Ok(Value::from_iter(found))
}

/// The words between white space; the last of so many parts is all that is left, with the space at its far end.
fn words(s: &str, parts: usize, from_end: bool) -> Value {
    let (mut found, mut rest) = (Vec::new(), s);
    loop {
        rest = match from_end {
            true => rest.trim_end_matches(is_space),
            false => rest.trim_start_matches(is_space),
        };
        if rest.is_empty() {
            break;
        }
        let end = if from_end {
            rest.rfind(is_space)
        } else {
            rest.find(is_space)
        };
        let Some(at) = end.filter(|_| found.len() + 1 < parts) else {
            found.push(rest);
            break;
        };
        let after = at + rest[at..].chars().next().map_or(1, char::len_utf8);
        let (word, left) = match from_end {
            true => (&rest[after..], &rest[..at]),
            false => (&rest[..at], &rest[after..]),
        };
        found.push(word);
        rest = left;
    }
    if from_end {
        found.reverse();
    }
    Value::from_iter(found)
}

fn split_lines(s: &str, args: &[Value]) -> Result<Value, Error> {
    let [keep] = arguments("splitlines", args, ["keepends"])?;
    let keep = keep.is_some_and(|keep| keep.is_true());
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let (mut lines, mut rest) = (Vec::new(), s);
    while let Some(at) = rest.find(ends) {
        let mut end = rest[at..].chars().next().map_or(1, char::len_utf8);
        if rest[at..].starts_with("\r\n") {
            end = 2;
        }
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Ok(Value::from_iter(lines))
}

fn partition(s: &str, from_end: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        return Err(wrong("partition: empty separator"));
    }
    let found = match from_end {
        true => s.rsplit_once(separator),
        false => s.split_once(separator),
    };
    let parts = match (found, from_end) {
        (Some((before, after)), _) => [before, separator, after],
        (None, true) => ["", "", s],
        (None, false) => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn replace(state: &State, s: &str, args: &[Value]) -> Result<Value, Error> {
    let [old, new, count] = arguments("replace", args, ["old", "new", "count"])?;
    let text = |value: Option<Value>| match value {
        Some(value) if value.as_str().is_some() => Ok(value),
        _ => Err(wrong("replace: needs two texts")),
    };
    let (old, new) = (text(old)?, text(new)?);
    let (old, new) = (
        old.as_str().unwrap_or_default(),
        new.as_str().unwrap_or_default(),
    );
    let count = usize::try_from(count.map_or(Ok(-1), i64::try_from)?).unwrap_or(usize::MAX);
    let matches = s.matches(old).count().min(count);
    // What is made is paid for before it is made.
    state.consume_fuel((matches.saturating_mul(new.len()) / 64) as u64)?;
    Ok(Value::from(s.replacen(old, new, count)))
}

/// `s[start:end]` in characters, and how many characters stand before it.
fn window(s: &str, start: Option<i64>, end: Option<i64>) -> Option<(&str, usize)> {
    let len = s.chars().count() as i64;
    let at = |index: i64| {
        if index < 0 {
            (index + len).max(0)
        } else {
            index
        }
    };
    let (start, end) = (at(start.unwrap_or(0)), at(end.unwrap_or(len)).min(len));
    if start > len || start > end {
        return None;
    }
    let byte = |n: i64| s.char_indices().nth(n as usize).map_or(s.len(), |(i, _)| i);
    Some((&s[byte(start)..byte(end)], start as usize))
}

fn find(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let window = window(s, start, end);
    if method == "count" {
        return Ok(Value::from(
            window.map_or(0, |(part, _)| part.matches(what).count()),
        ));
    }
    let found = window.and_then(|(part, before)| {
        let at = if method.starts_with('r') {
            part.rfind(what)
        } else {
            part.find(what)
        };
        at.map(|at| before + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if method.ends_with("index") => Err(wrong("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn affixed(s: &str, at_start: bool, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let parts: Vec<Value> = match what.is_tuple() {
        true => what.try_iter()?.collect(),
        false => vec![what.clone()],
    };
    let part = window(s, start, end).map(|(part, _)| part);
    let mut holds = false;
    for affix in parts {
        let affix = affix.as_str().ok_or_else(|| {
            wrong(format!(
                "startswith takes a str or a tuple of str, not {}",
                type_name(what)
            ))
        })?;
        let fits = |part: &str| {
            if at_start {
                part.starts_with(affix)
            } else {
                part.ends_with(affix)
            }
        };
        holds |= part.is_some_and(fits);
    }
    Ok(Value::from(holds))
}

fn join(state: &State, s: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (&Value,) = from_args(args)?;
    let mut out = String::new();
    for (i, item) in values.try_iter()?.enumerate() {
        let text = item.as_str().ok_or_else(|| {
            let kind = type_name(&item);
            wrong(format!(
                "sequence item {i}: expected str instance, {kind} found"
            ))
        })?;
        state.consume_fuel(((s.len() + text.len()) / 64) as u64)?;
        if i > 0 {
            out.push_str(s);
        }
        out.push_str(text);
    }
    Ok(Value::from(out))
}

/// `s` with enough of one character beside it to be as wide; Python puts the odd one of `center` at the left of a
/// text of odd width.
pub(super) fn padded(s: &str, method: &str, width: i64, fill: &str) -> Result<String, Error> {
    let len = s.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    if width > limits::WIDTH.max(len) {
        let most = limits::WIDTH;
        return Err(wrong(format!(
            "{method}: a width of {width}; at most {most} is read"
        )));
    }
    if fill.chars().count() != 1 {
        return Err(wrong(format!(
            "{method}: the fill character must be exactly one"
        )));
    }
    let space = width.saturating_sub(len);
    let left = match method {
        "ljust" => 0,
        "rjust" => space,
        _ => space / 2 + (space & width & 1),
    };
    Ok(format!(
        "{}{s}{}",
        fill.repeat(left),
        fill.repeat(space - left)
    ))
}

/// `str.format`, whose widths are checked, since minijinja takes any.
fn format(state: &mut State, value: &Value, s: &str, args: &[Value]) -> Result<Value, Error> {
    let mut digits = 0;
    for c in s.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 4 {
            return Err(wrong("format: a width of more than four digits"));
        }
    }
    let nested = s
        .replace("{{", "")
        .split('{')
        .skip(1)
        .any(|part| !part.contains('}'));
    if nested {
        return Err(wrong("format: a width that is an argument is not read"));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, "format", args)
}

/// Python's questions to a text.
fn is(s: &str, method: &str) -> Option<bool> {
    let all = |f: fn(char) -> bool| !s.is_empty() && s.chars().all(f);
    let cased =
        |is: fn(char) -> bool, not: fn(char) -> bool| s.chars().any(is) && !s.chars().any(not);
    Some(match method {
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isdecimal" | "isdigit" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isascii" => s.is_ascii(),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "istitle" => s.chars().any(char::is_alphabetic) && title(s) == s,
        "isprintable" => !s
            .chars()
            .any(|c| c.is_control() || (is_space(c) && c != ' ')),
        "isidentifier" => {
            all(|c| c.is_alphanumeric() || c == '_') && !s.starts_with(char::is_numeric)
        }
        _ => return None,
    })
}
