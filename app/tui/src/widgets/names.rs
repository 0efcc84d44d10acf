//! Names of arms in little room, cut so that no two look alike.

use std::collections::BTreeSet;

use unicode_width::UnicodeWidthStr;

use super::text::clip;

/// The names in at most `width` columns each. All that are too long are cut alike: in the middle, where that leaves
/// every difference in sight, else down to the parts in which they differ, else numbered.
pub fn distinct(names: &[&str], width: usize) -> Vec<String> {
    let long: BTreeSet<&str> = names
        .iter()
        .copied()
        .filter(|n| n.width() > width)
        .collect();
    let long: Vec<&str> = long.into_iter().collect();
    let cut = in_the_middle(&long, width)
        .or_else(|| what_differs(&long, names, width))
        .unwrap_or_else(|| numbered(&long, width));
    let short = |name: &&str| match long.iter().position(|known| known == name) {
        Some(at) => cut[at].clone(),
        None => (*name).to_owned(),
    };
    names.iter().map(short).collect()
}

/// The end of a run's name, by which runs of one experiment are told apart.
pub fn end_of(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}

/// A run's name without the time that it begins with.
pub fn without_time(name: &str) -> &str {
    let (time, rest) = name.split_once('-').unwrap_or(("", name));
    let is_time = time.len() == 16 && time.ends_with('Z');
    if is_time { rest } else { name }
}

/// The beginning and the end of every name, with `…` between; the cut is as near to the middle as it can be while
/// every two names differ before or after it.
fn in_the_middle(names: &[&str], width: usize) -> Option<Vec<String>> {
    let room = width.checked_sub(1)?;
    let chars: Vec<Vec<char>> = names.iter().map(|name| name.chars().collect()).collect();
    // Characters of two columns would not fit.
    if names
        .iter()
        .zip(&chars)
        .any(|(name, chars)| name.width() != chars.len())
    {
        return None;
    }
    let mut heads: Vec<usize> = (0..=room).collect();
    heads.sort_by_key(|head| (2 * head).abs_diff(room + room % 2));
    let apart = |a: &[char], b: &[char], head: usize| {
        let alike = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let ending = a
            .iter()
            .rev()
            .zip(b.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        head > alike || room - head > ending
    };
    let head = heads.into_iter().find(|&head| {
        let pairs = chars.iter().enumerate();
        pairs
            .into_iter()
            .all(|(at, a)| chars[..at].iter().all(|b| apart(a, b, head)))
    })?;
    let cut = |name: &Vec<char>| {
        let end = name.len() - (room - head);
        let (head, tail) = (name[..head].iter(), name[end..].iter());
        head.chain(['…'].iter()).chain(tail).collect()
    };
    Some(chars.iter().map(cut).collect())
}

/// Every name without the parts that all long ones share.
fn what_differs(long: &[&str], all: &[&str], width: usize) -> Option<Vec<String>> {
    let parts = |name: &str| -> Vec<String> {
        let pieces = forgetlab_study::experiment::split_outside_quotes(name, '+');
        pieces.into_iter().map(str::to_owned).collect()
    };
    let shared = |part: &String| long.iter().all(|name| parts(name).contains(part));
    let cut = |name: &&str| {
        let own: Vec<String> = parts(name)
            .into_iter()
            .filter(|part| !shared(part))
            .collect();
        format!("…{}", own.join("+"))
    };
    let cut: Vec<String> = long.iter().map(cut).collect();
    let fits = cut.iter().all(|name| name.width() <= width);
    let mut seen: BTreeSet<&str> = all.iter().copied().collect();
    (fits && cut.iter().all(|name| seen.insert(name))).then_some(cut)
}

fn numbered(names: &[&str], width: usize) -> Vec<String> {
    let number = |(at, name): (usize, &&str)| {
        let mark = format!("~{}", at + 1);
        match width.checked_sub(mark.len()) {
            Some(room) => format!("{}{mark}", clip(name, room)),
            None => clip(&mark, width),
        }
    };
    names.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two arms that look alike on screen would be taken for one another.
    #[test]
    fn what_sets_arms_apart_stays_in_sight() {
        let head = "self-generated:kl:10";
        let names = [
            "none".to_owned(),
            head.to_owned(),
            format!("{head}+lr=1e-3+buffer_batches=4"),
            format!("{head}+lr=1e-3+buffer_batches=8"),
        ];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cut = distinct(&names, 24);
        assert_eq!(cut[..2], ["none", "self-generated:kl:10"]);
        assert_eq!(
            cut[2..],
            ["self-generat…r_batches=4", "self-generat…r_batches=8"]
        );
        assert_eq!(distinct(&names, 46), names, "what fits is whole");

        let middle = [
            format!("{head}+lr=1e-3+temperature=0.7"),
            format!("{head}+lr=1e-4+temperature=0.7"),
        ];
        let middle: Vec<&str> = middle.iter().map(String::as_str).collect();
        let cut = distinct(&middle, 24);
        assert_eq!(
            cut,
            ["self-g…3+temperature=0.7", "self-g…4+temperature=0.7"]
        );

        let deep = [
            format!("{head}+lr=1e-3+temperature=0.7+buffer_batches=4"),
            format!("{head}+lr=1e-4+temperature=0.7+buffer_batches=4"),
            format!("{head}+lr=1e-4+temperature=0.7+buffer_batches=8"),
        ];
        let deep: Vec<&str> = deep.iter().map(String::as_str).collect();
        let cut = distinct(&deep, 27);
        let differ = ["…lr=1e-3+buffer_batches=4", "…lr=1e-4+buffer_batches=4"];
        assert_eq!(cut[..2], differ);
        for width in 0..60 {
            let cut = distinct(&deep, width);
            let seen: BTreeSet<&String> = cut.iter().collect();
            assert!(width < 3 || seen.len() == 3, "{width}: {cut:?}");
            assert!(
                cut.iter().all(|name| name.width() <= width),
                "{width}: {cut:?}"
            );
        }
    }
}
