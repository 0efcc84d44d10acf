//! One made-up run, from its `metrics.csv` to verdicts, differences and tables, against numpy, scipy and statsmodels
//! (`tests/fixtures/report/make.py`).

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::run::read_csvs;

/// The run, and what is expected of it.
fn example() -> (RunState, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/report");
    let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
    let state = read_csvs(&folder).unwrap().state;
    (state, serde_json::from_str(&expected).unwrap())
}

/// Compares every field that is expected with one of a table's row, numbers up to rounding.
#[track_caller]
fn agree(expected: &Value, field: impl Fn(&str) -> String) {
    for (name, expected) in expected.as_object().unwrap() {
        let found = field(name);
        match expected.as_f64() {
            Some(number) => {
                let found: f64 = found.parse().unwrap();
                let error = (found - number).abs();
                assert!(
                    error <= 1e-9 * number.abs().max(1e-3),
                    "{name}: {found}, not {number}"
                );
            }
            None => assert_eq!(Some(found.as_str()), expected.as_str(), "{name}"),
        }
    }
}

/// Compares the rows of a CSV with those that are expected, in order.
#[track_caller]
fn rows_agree(bytes: &[u8], expected: &Value) {
    let mut csv = csv::Reader::from_reader(bytes);
    let head = csv.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let expected = expected.as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        agree(expected, |name| {
            row[head.iter().position(|n| n == name).unwrap()].to_owned()
        });
    }
}

/// A figure in a paper that another program would not find from the same scores is wrong.
#[test]
fn verdicts_and_differences_are_those_of_other_programs() {
    let (state, expected) = example();
    let arms = arms(&[("", &state)]);
    let mut verdicts = Vec::new();
    verdicts_csv(&arms, margins(&state), &mut verdicts).unwrap();
    rows_agree(&verdicts, &expected["verdicts"]);
    let mut differences_found = Vec::new();
    let all = differences(&arms, &arms[0]);
    differences_csv(&all, &arms[0].name, &mut differences_found).unwrap();
    rows_agree(&differences_found, &expected["differences"]);
}

/// An arm would be said to forget less than another at a point that it never was at.
#[test]
fn tables_on_equal_terms_are_those_of_other_programs() {
    let (state, expected) = example();
    let arms = arms(&[("", &state)]);
    let level = level(&arms, &arms[0]).unwrap();
    assert!((level - expected["level"].as_f64().unwrap()).abs() < 1e-12);
    let rows = |sheet: &Sheet| -> Value { sheet.rows.clone().into() };
    let mut at_loss = expected["equal_loss"].clone();
    for row in at_loss.as_array_mut().unwrap() {
        row[3] = format!("{:.2e}", row[3].as_f64().unwrap()).into();
    }
    let found = at_equal_loss(&arms, level);
    assert_eq!((rows(&found), found.notes.len()), (at_loss, 0));
    let found = at_equal_compute(&arms).unwrap();
    assert_eq!(
        (rows(&found), found.notes.len()),
        (expected["equal_compute"].clone(), 0)
    );
}

/// Measures under the names of papers must be theirs.
#[test]
fn retention_and_transfers_are_those_of_other_programs() {
    let (state, expected) = example();
    let arm = |of: &Value| {
        let is = |arm: &&crate::run::ArmState| {
            Some(arm.info.name.as_str()) == of["arm"].as_str()
                && Some(arm.info.seed) == of["seed"].as_u64()
        };
        state.arms.iter().find(is).unwrap()
    };
    let identity = |of: &Value, name: &str| match name {
        "seed" => of["seed"].to_string(),
        _ => of[name].as_str().unwrap().to_owned(),
    };
    let number = |value: Option<f64>| value.unwrap().to_string();
    for of in expected["kept"].as_array().unwrap() {
        let dataset = of["dataset"].as_str().unwrap();
        let [accuracy, ntp] =
            [Metric::Accuracy, Metric::Ntp].map(|metric| kept(&state, arm(of), dataset, metric));
        agree(of, |name| match name {
            "retention_accuracy" => number(accuracy.retention),
            "retention_ntp" => number(ntp.retention),
            "forgetting_best_accuracy" => number(accuracy.forgetting_from_best),
            "forgetting_best_ntp" => number(ntp.forgetting_from_best),
            _ => identity(of, name),
        });
    }
    for of in expected["transfers"].as_array().unwrap() {
        let transfer = transfer(&state, arm(of));
        agree(of, |name| match name {
            "average_accuracy" => number(transfer.average_accuracy),
            "backward" => number(transfer.backward),
            "forward" => number(transfer.forward),
            "min_accuracy" => number(transfer.min_accuracy),
            "worst_case_accuracy" => number(transfer.worst_case_accuracy),
            _ => identity(of, name),
        });
    }
}
