//! Which of a run's arms a name stands for.

use super::{ArmInfo, ArmSpec};

/// Indices of the arms that a name stands for: their name, with every seed, their slug, or `#SEED NAME`; also a name
/// spelt otherwise, with the coefficient that is the default, or without the settings where that is clear.
pub fn arms_named(arms: &[&ArmInfo], name: &str, coeff: f64) -> Vec<usize> {
    let spelt = ArmSpec::parse(name, coeff);
    let spelt = spelt.map_or_else(|_| name.to_owned(), |spec| spec.name());
    let is_named = |arm: &&ArmInfo| {
        let ArmInfo {
            name: own,
            slug,
            seed,
            ..
        } = *arm;
        own == name || slug == name || *own == spelt || format!("#{seed} {own}") == name
    };
    let all = arms.iter().enumerate();
    let named: Vec<usize> = all
        .filter(|(_, arm)| is_named(arm))
        .map(|(at, _)| at)
        .collect();
    match named.is_empty() {
        true => without_settings(arms, &spelt),
        false => named,
    }
}

/// The arm, with every seed, whose name goes on with settings after this; none where several do.
fn without_settings(arms: &[&ArmInfo], head: &str) -> Vec<usize> {
    let rest = |arm: &ArmInfo| arm.name.strip_prefix(head).map(str::to_owned);
    let goes_on = |at: &usize| rest(arms[*at]).is_some_and(|rest| rest.starts_with('+'));
    let all: Vec<usize> = (0..arms.len()).filter(goes_on).collect();
    match all.iter().all(|&at| arms[at].name == arms[all[0]].name) {
        true => all,
        false => Vec::new(),
    }
}
