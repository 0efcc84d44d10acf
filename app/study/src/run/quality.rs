//! Diversity of token rows, to judge replayed text by.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// The longest n-gram counted.
const LONGEST: usize = 4;

/// Diversity of rows of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Number of rows.
    pub rows: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Rows that repeat an earlier row token by token.
    pub duplicate_rows: usize,
    /// Share of the n-grams of all rows that are distinct, for n = 1 … 4; 1 where there are none.
    pub distinct: [f64; LONGEST],
}

impl Quality {
    /// Counts rows and n-grams; an n-gram never spans two rows.
    pub fn of(rows: &[&[u32]]) -> Self {
        let different: HashSet<&[u32]> = rows.iter().copied().collect();
        Self {
            rows: rows.len(),
            tokens: rows.iter().map(|row| row.len()).sum(),
            duplicate_rows: rows.len() - different.len(),
            distinct: std::array::from_fn(|i| distinct(rows, i + 1)),
        }
    }
}

/// Share of the n-grams of all rows that are distinct; 1 where there are none.
fn distinct(rows: &[&[u32]], n: usize) -> f64 {
    let mut total = 0_usize;
    let mut seen = HashSet::new();
    for gram in rows.iter().flat_map(|row| row.windows(n)) {
        total += 1;
        seen.insert(gram);
    }
    if total == 0 {
        return 1.0;
    }
    seen.len() as f64 / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A strategy whose samples repeat themselves would pass for one that recalls the old data.
    #[test]
    fn repeated_text_shows_in_every_figure() {
        let rows: [&[u32]; 3] = [&[1, 2, 1, 2, 3], &[1, 2, 1, 2, 3], &[7]];
        let quality = Quality::of(&rows);
        assert_eq!((quality.rows, quality.tokens), (3, 11));
        assert_eq!(quality.duplicate_rows, 1);
        // 1-grams 1 2 3 7 of 11; 2-grams 12 21 23 of 8; 3-grams 121 212 123 of 6; 4-grams 2 of 4.
        assert_eq!(quality.distinct, [4.0 / 11.0, 3.0 / 8.0, 0.5, 0.5]);
        assert_eq!(Quality::of(&[]).distinct, [1.0; 4]);
    }
}
