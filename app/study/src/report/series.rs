//! Arms that differ in one number alone: a finetuning rate, or the coefficient of a way of replay.

use crate::experiment::{ArmInfo, shortest, split_outside_quotes};

/// Where an arm stands among those that differ from it in one number.
pub(super) struct Place {
    /// What they have in common.
    pub series: String,
    /// Its own number, as it is said.
    pub label: String,
    /// Whether they replay nothing, and differ in their rates.
    pub is_plain: bool,
}

/// The place of an arm.
pub(super) fn place(info: &ArmInfo) -> Place {
    let settings = split_outside_quotes(&info.name, '+').into_iter().skip(1);
    let others = settings.filter(|setting| !setting.starts_with("lr="));
    let others: String = others.map(|setting| format!("+{setting}")).collect();
    let rate = shortest(info.lr);
    match (info.objective.as_str(), info.coeff) {
        ("", _) => Place {
            series: format!("{}{others}", info.strategy),
            label: format!("lr {rate}"),
            is_plain: true,
        },
        (objective, coeff) => Place {
            series: format!("{}:{objective}{others}, lr {rate}", info.strategy),
            label: coeff.map_or_else(String::new, |coeff| number(objective, coeff)),
            is_plain: false,
        },
    }
}

/// What arms that differ in their finetuning rate alone have in common: the name without the rate.
pub(super) fn without_rate(info: &ArmInfo) -> String {
    let parts = split_outside_quotes(&info.name, '+').into_iter();
    let others: Vec<&str> = parts.filter(|part| !part.starts_with("lr=")).collect();
    others.join("+")
}

/// A coefficient as it is said: of `replace` a share, as a fraction where it is one.
fn number(objective: &str, coeff: f64) -> String {
    let parts = 1.0 / coeff;
    match objective {
        "replace" if coeff > 0.0 && parts.fract() == 0.0 && parts > 1.0 => format!("1/{parts}"),
        "replace" => format!("{} %", shortest(100.0 * coeff)),
        _ => shortest(coeff),
    }
}
