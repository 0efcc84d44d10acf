//! What a finished run tells at a glance: the forgetting of its first arm.

use super::super::csv_table::CsvTable;
use super::super::{Change, RunDir};

const SUMMARY: &str = "summary.csv";

/// The first arm of a run that has come to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstArm {
    /// Its name.
    pub name: String,
    /// Its mean forgetting, over datasets and seeds.
    pub forgetting: Change,
}

impl RunDir {
    /// The first arm's forgetting, read from `summary.csv` alone, which is small however long the run was; `None`
    /// where that does not tell.
    pub fn first_arm(&self) -> Option<FirstArm> {
        let needed = ["arm", "role", "forgetting_ntp", "forgetting_accuracy"];
        let table = CsvTable::read(self.join(SUMMARY), &needed).ok()?;
        let name = table.rows().next()?.text("arm").to_owned();
        let mean = |column: &str| {
            let own = table.rows().filter(|row| row.text("arm") == name);
            let values: Vec<f64> = own
                .filter(|row| row.text("role") == "old")
                .filter_map(|row| row.number(column).ok()?)
                .collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let forgetting = Change {
            ntp: mean("forgetting_ntp"),
            accuracy: mean("forgetting_accuracy"),
            error: mean("forgetting_error"),
        };
        Some(FirstArm { name, forgetting })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Else the list of points would show another arm's loss, or that of what was learned.
    #[test]
    fn the_first_arm_is_told_over_its_old_datasets() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "").unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        assert_eq!(run.first_arm(), None);
        let text = "arm,role,forgetting_ntp,forgetting_accuracy\n\
                    none,old,0.5,\nnone,new,,\nnone,old,1.5,\ntrue-data:kl:1,old,9,\n";
        fs::write(run.join(SUMMARY), text).unwrap();
        let first = run.first_arm().unwrap();
        assert_eq!(first.name, "none");
        assert_eq!(
            (first.forgetting.ntp, first.forgetting.accuracy),
            (Some(1.0), None)
        );
        fs::write(run.join(SUMMARY), "torn").unwrap();
        assert_eq!(run.first_arm(), None);
    }
}
