//! Batches as the paper's trainer has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::{RowSettings, TokenFile, TokenRows};
use super::{counted, file, settings};
use crate::data::Batch;

/// Rows of 10 tokens of a file in which token number i is i; the last 7 tokens are no row.
fn rows(dir: &TempDir, settings: &RowSettings) -> TokenRows {
    let path = file(dir, 70_000, &counted(1007));
    TokenRows::new(Arc::new(TokenFile::open(&path).unwrap()), settings).unwrap()
}

/// The row of the file that each row of a batch is.
fn numbers(batch: &Batch) -> Vec<u32> {
    let rows = batch.tokens.chunks(batch.seq_len);
    rows.map(|row| {
        assert_eq!(row[0], 1, "the marker");
        let number = row[1] / 10;
        let own = (1..10).map(|i| number * 10 + i);
        assert!(own.eq(row[1..].iter().copied()), "{row:?}");
        number
    })
    .collect()
}

/// Each rule of the paper's trainer changes every number that follows.
#[test]
fn rows_are_split_and_ordered_as_the_papers_trainer_does() {
    let dir = tempfile::tempdir().unwrap();
    // 100 rows: 14 held out; 86 left, of which 14 · 6 come.
    let rows = rows(&dir, &settings(10, 6, 14));
    let held_out = numbers(&rows.held_out(20).unwrap());
    assert_eq!(numbers(&rows.held_out(5).unwrap()), held_out[..5]);
    let epoch = |epoch: u64| -> Vec<u32> {
        let batches = (0..14).map(|k| rows.batch(epoch * 14 + k).unwrap());
        batches.flat_map(|batch| numbers(&batch)).collect()
    };
    let first = epoch(0);
    let set = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<u32>>();
    assert_eq!(
        (set(&held_out).len(), set(&first).len()),
        (14, 84),
        "every row once"
    );
    assert!(set(&held_out).is_disjoint(&set(&first)));
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_ne!(first, sorted, "shuffled");
    // Later epochs: the same rows, in another order, also across batches.
    let (second, third) = (epoch(1), epoch(2));
    for later in [&second, &third] {
        assert_eq!(set(later), set(&first));
    }
    assert!(first != second && second != third);
    assert_ne!(set(&first[..6]), set(&second[..6]));
    let batch = rows.batch(3).unwrap();
    assert_eq!((batch.rows(), batch.seq_len, batch.targets()), (6, 10, 54));
    assert!(!batch.mask[0] && batch.mask[1] && !batch.mask[10]);
    assert_eq!(
        numbers(&rows.begin_of(17, 2).unwrap()),
        numbers(&rows.batch(17).unwrap())[..2]
    );
}

/// The split's seed alone says what is held out: else runs of several seeds would be measured on each other's
/// training rows.
#[test]
fn the_two_seeds_decide_what_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let base = settings(10, 6, 14);
    let of = |settings: &RowSettings| {
        let rows = rows(&dir, settings);
        let held_out = numbers(&rows.held_out(6).unwrap());
        let [first, later] = [0, 14].map(|k| numbers(&rows.batch(k).unwrap()));
        (held_out, first, later)
    };
    let (held_out, first, later) = of(&base);
    assert_eq!(of(&base), (held_out.clone(), first.clone(), later.clone()));
    let other = of(&RowSettings { seed: 1, ..base });
    assert_eq!((&other.0, &other.1), (&held_out, &first));
    assert_ne!(other.2, later);
    let other = of(&RowSettings {
        split_seed: 1,
        ..base
    });
    assert!(other.0 != held_out && other.1 != first);
}

/// A run that goes on must see the batches that it would have seen.
#[test]
fn a_batch_depends_on_its_number_alone() {
    let dir = tempfile::tempdir().unwrap();
    let straight = rows(&dir, &settings(10, 6, 14));
    let all: Vec<Batch> = (0..40).map(|k| straight.batch(k).unwrap()).collect();
    let resumed = rows(&dir, &settings(10, 6, 14));
    for k in [39, 14, 13, 0, 28] {
        assert_eq!(resumed.batch(k).unwrap(), all[k as usize]);
    }
}

/// Replay that favours some rows, or touches held-out ones, would not be replay of the training data.
#[test]
fn replay_draws_from_the_rows_that_are_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(&dir, &settings(10, 6, 14));
    let trained: Vec<u32> = (0..14)
        .flat_map(|k| numbers(&rows.batch(k).unwrap()))
        .collect();
    let all: Vec<u64> = (0..84).collect();
    assert_eq!(numbers(&rows.training_rows(&all).unwrap()), trained);
    let some = numbers(&rows.training_rows(&[83, 0, 83]).unwrap());
    assert_eq!(some, [trained[83], trained[0], trained[83]]);
}

/// Nothing to train on must be told before the run and not in it.
#[test]
fn what_leaves_no_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 70_000, &counted(1007));
    let refused = |change: &dyn Fn(&mut RowSettings)| {
        let mut settings = settings(10, 6, 14);
        change(&mut settings);
        let opened = TokenFile::open(&path).unwrap();
        TokenRows::new(Arc::new(opened), &settings)
            .unwrap_err()
            .to_string()
    };
    let rows = |rows: u64| refused(&move |s| s.held_out = rows);
    for (error, said) in [
        (
            rows(95),
            "95 of its 100 rows are held out, and no whole batch is left",
        ),
        (rows(1 << 60), "and no whole batch is left to train on"),
        (
            refused(&|s| s.batch_size = 101),
            "1007 tokens are fewer than a batch: a batch is 101 rows",
        ),
        (
            refused(&|s| s.seq_len = 1008),
            "1007 tokens are fewer than a batch",
        ),
        (refused(&|s| s.seq_len = 1), "seq_len = 1 makes no sense"),
        (
            refused(&|s| s.batch_size = 0),
            "batch_size = 0 makes no sense",
        ),
        (
            refused(&|s| s.marker = Some(70_000)),
            "marker = 70000 makes no sense",
        ),
    ] {
        assert!(error.contains(said), "{said:?} is not in {error}");
    }
    let opened = Arc::new(TokenFile::open(&path).unwrap());
    let settings = RowSettings {
        marker: None,
        ..settings(10, 6, 94)
    };
    let rows = TokenRows::new(opened, &settings).unwrap();
    let batch = rows.batch(0).unwrap();
    assert_eq!(batch.tokens[0] + 1, batch.tokens[1], "its own first token");
}
