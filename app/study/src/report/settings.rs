//! Which settings differ between runs that are put side by side.

use crate::experiment::differences;
use crate::run::RunState;

use super::sheet::Sheet;

/// Keys of the settings that decide numbers and that two runs give different values; `None` where one kept no settings.
/// Seeds and arms are not among them: they are what is compared.
pub(super) fn differing(a: &RunState, b: &RunState) -> Option<Vec<String>> {
    let all = differences(a.config.as_ref()?, b.config.as_ref()?);
    let compared = |key: &str| {
        let first = key.split('.').next();
        matches!(first, Some("arms" | "seeds" | "preset"))
    };
    let deciding = all.into_iter().filter(|d| d.decides_numbers);
    Some(
        deciding
            .map(|d| d.key)
            .filter(|key| !compared(key))
            .collect(),
    )
}

/// The settings in which runs differ, a row a run; `None` where they differ in none, or there is one run.
pub fn settings_sheet(runs: &[(&str, &RunState)]) -> Option<Sheet> {
    let (_, first) = runs.first()?;
    let mut keys: Vec<String> = Vec::new();
    for (_, state) in &runs[1..] {
        for key in differing(first, state).unwrap_or_default() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    let mut sheet = Sheet::new("the runs differ in", &["run"]);
    let unknown: Vec<&str> = runs
        .iter()
        .filter(|(_, state)| state.config.is_none())
        .map(|(name, _)| *name)
        .collect();
    if runs.len() > 1 && !unknown.is_empty() {
        sheet
            .notes
            .push(format!("Settings were not kept of {}.", unknown.join(", ")));
    }
    if keys.is_empty() && sheet.notes.is_empty() {
        return None;
    }
    for (name, state) in runs {
        let mut row = vec![(*name).to_owned()];
        let own = state.config.as_ref();
        row.extend(keys.iter().map(|key| {
            let all = differences(
                &serde_json::Value::Null,
                own.unwrap_or(&serde_json::Value::Null),
            );
            all.into_iter()
                .find(|d| d.key == *key)
                .map_or_else(String::new, |d| d.second)
        }));
        sheet.rows.push(row);
    }
    sheet.head.extend(keys);
    Some(sheet)
}
