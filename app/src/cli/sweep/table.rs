//! How the points of a sweep stand.

use forgetlab_study::report::Sheet;
use forgetlab_study::run::{PointSpec, PointStatus, RunDir, RunState, SweepDir};
use serde_json::{Value, json};

/// A table of the points of a sweep: status, and the share of all steps that is done.
pub fn table(sweep: &SweepDir, statuses: &[(PointSpec, PointStatus)]) -> Sheet {
    let mut sheet = Sheet::new(String::new(), &["point", "status", "done"]);
    for (point, status) in statuses {
        let state = sweep.run(&point.name).map(|run| brief(&run, status));
        let done = state.map_or(0, |state| percent(&state));
        let word = status.word().to_owned();
        sheet
            .rows
            .push(vec![point.name.clone(), word, format!("{done}%")]);
        if let PointStatus::Refused(reason) = status {
            sheet.messages.push(format!("{}: {reason}", point.name));
        }
    }
    sheet
}

/// The same for scripts: an object a point.
pub fn json(sweep: &SweepDir, statuses: &[(PointSpec, PointStatus)]) -> Vec<Value> {
    let point = |(point, status): &(PointSpec, PointStatus)| {
        let run = sweep.run(&point.name);
        let mut json = json!({
            "point": point.name,
            "status": status.word(),
            "percent": run.map_or(0, |run| percent(&brief(&run, status))),
        });
        if let PointStatus::Refused(reason) = status {
            json["why"] = json!(reason);
        }
        json
    };
    statuses.iter().map(point).collect()
}

fn brief(run: &RunDir, status: &PointStatus) -> RunState {
    run.brief_state(*status == PointStatus::Live)
        .unwrap_or_default()
}

/// Share of all arms' steps that need no more work, in percent.
pub fn percent(state: &RunState) -> u64 {
    let (done, total) = state.steps_done();
    (done * 100).checked_div(total).unwrap_or(0)
}

/// The same of all points of a sweep: those that are over count whole, others by their steps.
pub fn percent_done(sweep: &SweepDir, statuses: &[(PointSpec, PointStatus)]) -> u64 {
    let done = statuses.iter().map(|(point, status)| match status {
        PointStatus::Finished | PointStatus::Failed => 100,
        PointStatus::Waiting | PointStatus::Refused(_) => 0,
        _ => sweep
            .run(&point.name)
            .map_or(0, |run| percent(&brief(&run, status))),
    });
    done.sum::<u64>()
        .checked_div(statuses.len() as u64)
        .unwrap_or(0)
}
