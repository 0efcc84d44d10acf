//! The command line of the lab: names of actions with their arguments, and their completions.

use super::super::keymap::{Action, KEYMAP, Place};
use super::super::screens::watch::Column;
use super::super::track::Axis;
use super::super::view::Pane;

/// What a line says: an action, and what is behind its name.
pub fn parse(line: &str) -> Result<(Action, Option<String>), String> {
    let line = line.trim();
    let (name, rest) = match line.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (line, ""),
    };
    let argument = (!rest.is_empty()).then(|| rest.to_owned());
    // A screen's own short word for what everybody types.
    let name = match name {
        "q" => "quit",
        "x" => "x-axis",
        "y" => "log-scale",
        "h" => "help",
        other => other,
    };
    match (Action::named(name), Action::like(name)) {
        (Some(action), _) => Ok((action, argument)),
        (None, Some(like)) => Err(format!("there is no command `{name}`; `{like}`?")),
        (None, None) => Err(format!("there is no command `{name}`; Tab lists them")),
    }
}

/// The actions that can be named at a place, each with what it does.
fn actions(place: Place) -> impl Iterator<Item = (Action, &'static str)> {
    let here = move |at: Place| at == place || (at == Place::Everywhere && place.open());
    let bindings = KEYMAP.iter().filter(move |b| here(b.place));
    bindings.map(|binding| (binding.action, binding.long))
}

/// What a line does, in words.
pub fn about(place: Place, line: &str) -> &'static str {
    let name = line.split_whitespace().next().unwrap_or_default();
    let action = Action::named(name);
    let mut all = actions(place);
    all.find(|(known, _)| Some(*known) == action)
        .map_or("", |(_, long)| long)
}

/// Whether an action means something at a place.
pub fn is_known(place: Place, action: Action) -> bool {
    actions(place).any(|(known, _)| known == action)
}

/// What may stand in place of what is typed: names of commands, then of what they take. `names` are those of the metrics,
/// of the runs and of the strategies.
pub fn complete(place: Place, before: &str, metrics: &[String], runs: &[String]) -> Vec<String> {
    let Some((name, argument)) = before.split_once(' ') else {
        let mut names: Vec<&str> = actions(place).map(|(action, _)| action.name()).collect();
        names.sort_unstable();
        names.dedup();
        let begins = names.iter().filter(|name| name.starts_with(before));
        return begins.map(|name| (*name).to_owned()).collect();
    };
    let values: Vec<String> = match Action::named(name) {
        Some(Action::Metric) => metrics.to_vec(),
        Some(Action::Axis) => Axis::ALL.map(|axis| axis.name().to_lowercase()).into(),
        Some(Action::Sort) => Column::ALL.map(|column| column.name().to_owned()).into(),
        Some(Action::Arrange) => Pane::ALL.map(|pane| pane.name().to_owned()).into(),
        Some(Action::Export | Action::Yank) => {
            ["markdown", "latex", "csv"].map(str::to_owned).into()
        }
        Some(Action::GoWatch) => runs.to_vec(),
        _ => Vec::new(),
    };
    let fits = values.iter().filter(|value| value.starts_with(argument));
    fits.map(|value| format!("{name} {value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_an_action_and_what_it_takes() {
        assert_eq!(
            parse("metric kl of es"),
            Ok((Action::Metric, Some("kl of es".into())))
        );
        assert_eq!(parse(" q "), Ok((Action::Quit, None)));
        assert_eq!(
            parse("metirc"),
            Err("there is no command `metirc`; `metric`?".into())
        );
        assert!(parse("").is_err());
    }

    /// What has a key is a command, too, and Tab finds it.
    #[test]
    fn every_action_of_a_screen_is_completed() {
        for place in Place::ALL.into_iter().filter(|place| place.open()) {
            let all = complete(place, "", &[], &[]);
            for binding in KEYMAP.iter().filter(|b| b.place == place) {
                assert!(all.iter().any(|name| name == binding.action.name()));
                assert!(is_known(place, binding.action));
            }
        }
        let metrics = ["kl of es".to_owned(), "ntp of es".to_owned()];
        assert_eq!(
            complete(Place::Watch, "metric k", &metrics, &[]),
            ["metric kl of es"]
        );
        assert_eq!(
            complete(Place::Watch, "x-axis f", &[], &[]),
            ["x-axis flops"]
        );
        assert_eq!(complete(Place::Watch, "sort ke", &[], &[]), ["sort kept"]);
    }
}
