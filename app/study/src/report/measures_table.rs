//! Tables of the other measures of continual learning, and of what became of questions.

use crate::run::{ArmState, Role, RunState};
use crate::stats::{Flips, mean};

use super::arms::ArmSeeds;
use super::measures::{Answers, Metric, Transfer, answers, kept, transfer};
use super::numbers::spread;
use super::sheet::Sheet;
use super::verdict::old_datasets;

/// One of the accuracies over tasks.
type Part = fn(&Transfer) -> Option<f64>;

/// Accuracies over the tasks, retention, and KL on old and new data; `None` where no arm has any of them.
pub fn measures_sheet(arms: &[ArmSeeds]) -> Option<Sheet> {
    let transfers: [(&str, Part); 5] = [
        ("ACC", |t| t.average_accuracy),
        ("BWT", |t| t.backward),
        ("FWT", |t| t.forward),
        ("min-ACC", |t| t.min_accuracy),
        ("WC-ACC", |t| t.worst_case_accuracy),
    ];
    let mut head = vec!["arm"];
    head.extend(transfers.iter().map(|(name, _)| *name));
    head.extend([
        "forgot (mean)",
        "forgot (best)",
        "retention",
        "KL old",
        "KL new",
    ]);
    let mut sheet = Sheet::new("over the tasks, %; KL in nats a token", &head);
    for arm in arms {
        let over = |value: &dyn Fn(&RunState, &ArmState) -> Option<f64>| -> Vec<f64> {
            arm.counted()
                .into_iter()
                .filter_map(|(state, own)| value(state, own))
                .collect()
        };
        let mut row = vec![arm.name.clone()];
        for (_, of) in transfers {
            row.push(spread(
                Metric::Accuracy,
                &over(&|state, own| of(&transfer(state, own))),
            ));
        }
        let old = old_datasets(arm);
        let mean_old = |of: &dyn Fn(&RunState, &ArmState, &str) -> Option<f64>| {
            over(&|state, own| {
                mean(
                    &old.iter()
                        .filter_map(|dataset| of(state, own, dataset))
                        .collect::<Vec<_>>(),
                )
            })
        };
        let accuracy = |state: &RunState, own: &ArmState, dataset: &str| {
            kept(state, own, dataset, Metric::Accuracy)
        };
        row.push(spread(
            Metric::Accuracy,
            &over(&|state, own| {
                own.mean_forgetting(&state.phases, own.evaluations.last()?)
                    .accuracy
            }),
        ));
        row.push(spread(
            Metric::Accuracy,
            &mean_old(&|state, own, dataset| accuracy(state, own, dataset).forgetting_from_best),
        ));
        row.push(spread(
            Metric::Accuracy,
            &mean_old(&|state, own, dataset| accuracy(state, own, dataset).retention),
        ));
        for role in [Role::Old, Role::New] {
            row.push(spread(Metric::Ntp, &over(&|_, own| kl(own, role))));
        }
        sheet.rows.push(row);
    }
    sheet.notes.push(
        "ACC, BWT, FWT: average accuracy, backward and forward transfer; min-ACC, WC-ACC: worst case. Means over \
         the old datasets: forgot (mean) since the end of their phases, forgot (best) against the best end of a \
         phase, retention as a mean over steps (of datasets that were known)."
            .to_owned(),
    );
    let empty = sheet
        .rows
        .iter()
        .all(|row| row[1..].iter().all(String::is_empty));
    (!empty).then_some(sheet)
}

/// Mean KL at the last evaluation, of datasets in a role.
fn kl(arm: &ArmState, role: Role) -> Option<f64> {
    let scores = arm
        .evaluations
        .last()?
        .scores
        .iter()
        .filter(|score| score.role == role);
    mean(&scores.filter_map(|score| score.kl).collect::<Vec<_>>())
}

/// Questions that went from right to wrong and back, as counted and corrected for guessing; `None` without any.
pub fn questions_sheet(arms: &[ArmSeeds]) -> Option<Sheet> {
    let head = [
        "arm",
        "questions",
        "lost",
        "won",
        "lost (corrected)",
        "won (corrected)",
    ];
    let mut sheet = Sheet::new("questions since the start, % of all", &head);
    for arm in arms {
        for dataset in old_datasets(arm) {
            let all: Vec<Answers> = arm
                .counted()
                .into_iter()
                .map(|(state, own)| answers(state, own, dataset))
                .collect();
            let over = |of: fn(&Answers) -> Option<Flips>, share: fn(Flips) -> f64| {
                spread(
                    Metric::Accuracy,
                    &all.iter().filter_map(of).map(share).collect::<Vec<_>>(),
                )
            };
            if all.iter().all(|answers| answers.flips.is_none()) {
                continue;
            }
            sheet.rows.push(vec![
                arm.name.clone(),
                dataset.to_owned(),
                over(|a| a.flips, |flips| flips.right_to_wrong),
                over(|a| a.flips, |flips| flips.wrong_to_right),
                over(|a| a.corrected, |flips| flips.right_to_wrong),
                over(|a| a.corrected, |flips| flips.wrong_to_right),
            ]);
        }
    }
    sheet
        .notes
        .push("lost: right before, wrong now; won: the reverse. Corrected: were guesses drawn anew each time; below 0 \
             where the same wrong answers come again."
                .into());
    (!sheet.rows.is_empty()).then_some(sheet)
}
