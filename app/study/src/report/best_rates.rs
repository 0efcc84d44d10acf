//! Which learning rate suits each way of finetuning: the one with the lowest held-out loss of the new data.
//!
//! Methods compared at one rate for all of them say little. The choice is to be made on seeds and rows that are not
//! reported.

use crate::experiment::{shortest, split_outside_quotes};
use crate::run::{ArmState, RunState};
use crate::stats::mean;

use super::arms::ArmSeeds;
use super::measures::Metric;
use super::numbers::nats;
use super::sheet::Sheet;

/// A way of finetuning with the rates that it was tried at.
struct Way {
    /// Name of its arms without the rate.
    name: String,
    /// Rate and new loss of each arm, by rate.
    tried: Vec<(f64, f64)>,
}

impl Way {
    /// The rate with the lowest loss, and whether it is the lowest or the highest that was tried.
    fn best(&self) -> Option<(f64, f64, bool)> {
        let at =
            (0..self.tried.len()).min_by(|&a, &b| self.tried[a].1.total_cmp(&self.tried[b].1))?;
        let (rate, loss) = self.tried[at];
        Some((rate, loss, at == 0 || at + 1 == self.tried.len()))
    }
}

/// The best rate of every way of finetuning that was tried at several, with the arms to be compared; `None` where
/// there is no such way.
pub fn best_rates(arms: &[ArmSeeds]) -> Option<Sheet> {
    let mut ways: Vec<Way> = Vec::new();
    for arm in arms {
        let counted = arm.counted();
        let losses: Option<Vec<f64>> = counted
            .iter()
            .map(|(run, own)| new_loss(run, own))
            .collect();
        let (Some(loss), Some((_, own))) = (losses.and_then(|all| mean(&all)), counted.first())
        else {
            continue;
        };
        // Arms of runs that differ have their run before their name: they began from other models.
        let run = arm.name.strip_suffix(&*own.info.name).unwrap_or_default();
        let name = run.to_owned() + &without_rate(&own.info.name);
        let rate = own.info.lr;
        match ways.iter_mut().find(|way| way.name == name) {
            Some(way) => way.tried.push((rate, loss)),
            None => ways.push(Way {
                name,
                tried: vec![(rate, loss)],
            }),
        }
    }
    if !ways.iter().any(|way| way.tried.len() > 1) {
        return None;
    }
    let mut sheet = Sheet::new(
        "best rates: lowest loss of the new data at the end of the phase",
        &["arm", "rates tried", "best", "new loss"],
    );
    let mut chosen = Vec::new();
    let mut ends = Vec::new();
    for way in &mut ways {
        way.tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some((rate, loss, at_end)) = way.best() else {
            continue;
        };
        let best = shortest(rate);
        let tried: Vec<String> = way.tried.iter().map(|(rate, _)| shortest(*rate)).collect();
        sheet.rows.push(vec![
            way.name.clone(),
            tried.join(" "),
            best.clone(),
            nats(loss),
        ]);
        if at_end {
            ends.push(way.name.as_str());
        }
        chosen.push(format!("{}+lr={best}", way.name));
    }
    if !ends.is_empty() {
        sheet.notes.push(format!(
            "The best is the lowest or the highest that was tried, so a better one may lie beyond: {}.",
            ends.join(", ")
        ));
    }
    sheet
        .messages
        .push(format!("--arms '{}'", chosen.join(",")));
    Some(sheet)
}

/// Loss of the new data of an arm at its last evaluation.
fn new_loss(run: &RunState, arm: &ArmState) -> Option<f64> {
    let new = &run.phases.last()?.dataset;
    Metric::Ntp.of(arm.evaluations.last()?.score(new)?)
}

/// The name of an arm without its learning rate.
fn without_rate(name: &str) -> String {
    let parts = split_outside_quotes(name, '+').into_iter();
    let kept: Vec<&str> = parts.filter(|part| !part.starts_with("lr=")).collect();
    kept.join("+")
}

#[cfg(test)]
mod tests {
    use super::super::arms::arms;
    use super::*;
    use crate::run::fixture;

    /// A rate that was chosen by the wrong loss would decide which method is called the best.
    #[test]
    fn the_rate_with_the_lowest_new_loss_is_chosen_and_an_end_is_told() {
        let mut state = fixture::state();
        let none = state.arms[0].clone();
        let replay = state.arms[1].clone();
        state.arms.clear();
        for (base, name, rate, loss) in [
            (&none, "none", 1e-2, 1.5),
            (&none, "none+lr=1e-3", 1e-3, 1.25),
            (&none, "none+lr=1e-4", 1e-4, 2.0),
            (
                &replay,
                "bos-prompted:kl:10+lr=1e-3+buffer_batches=4",
                1e-3,
                3.0,
            ),
            (&replay, "bos-prompted:kl:10+buffer_batches=4", 1e-2, 2.5),
        ] {
            let mut arm = base.clone();
            arm.info.name = name.into();
            arm.info.lr = rate;
            let last = arm.evaluations.last_mut().unwrap();
            let new = &state.phases.last().unwrap().dataset;
            last.scores
                .iter_mut()
                .find(|s| s.dataset == *new)
                .unwrap()
                .ntp = Some(loss);
            state.arms.push(arm);
        }
        let sheet = best_rates(&arms(&[("", &state)])).unwrap();
        let rows: Vec<String> = sheet.rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            rows,
            [
                "none|1e-4 1e-3 0.01|1e-3|1.250",
                "bos-prompted:kl:10+buffer_batches=4|1e-3 0.01|0.01|2.500"
            ]
        );
        assert!(
            sheet.notes[0].ends_with("beyond: bos-prompted:kl:10+buffer_batches=4."),
            "{:?}",
            sheet.notes
        );
        assert_eq!(
            sheet.messages,
            ["--arms 'none+lr=1e-3,bos-prompted:kl:10+buffer_batches=4+lr=0.01'"]
        );
        // The name of a point may look like a rate.
        let mut other = state.clone();
        other.experiment = "other".into();
        let points = [("lr=1e-3-0a", &state), ("lr=1e-4-0b", &other)];
        let sheet = best_rates(&arms(&points)).unwrap();
        assert_eq!(sheet.rows.len(), 4);
        assert_eq!(sheet.rows[0][0], "lr=1e-3-0a: none");
        state.arms.truncate(1);
        assert!(best_rates(&arms(&[("", &state)])).is_none());
    }
}
