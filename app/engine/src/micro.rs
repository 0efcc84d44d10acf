//! Micro-batches: whole rows of a batch that are processed together, and what is asked of their positions.
//!
//! How many there are is the engine's choice, by caches or by memory; how they are cut is the same on every device.

use std::ops::Range;

use crate::batch::Query;

/// Rows of a batch that are processed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Micro {
    /// Number of its batch.
    pub batch: usize,
    /// Its positions in the batch `[B, T]`.
    pub positions: Range<usize>,
    /// Tokens of a row.
    pub seq_len: usize,
}

/// The size of a batch.
#[derive(Clone, Copy)]
pub(crate) struct BatchSize {
    /// Number of tokens.
    pub tokens: usize,
    /// Tokens of a row.
    pub seq_len: usize,
}

impl BatchSize {
    /// Number of rows.
    pub fn rows(self) -> usize {
        self.tokens / self.seq_len.max(1)
    }

    /// Cuts batch number `batch` into `count` micro-batches, as evenly as possible, so that the last one is not much
    /// smaller.
    pub fn cut(self, batch: usize, count: usize) -> impl Iterator<Item = Micro> {
        let (rows, seq_len) = (self.rows(), self.seq_len);
        let start = move |i: usize| i * rows / count * seq_len;
        (0..count).map(move |i| Micro {
            batch,
            positions: start(i)..start(i + 1),
            seq_len,
        })
    }
}

impl Micro {
    /// Its part of something that has a value for each position of the batch.
    pub fn of<'a, T>(&self, values: &'a [T]) -> &'a [T] {
        &values[self.positions.clone()]
    }

    /// Its rows in the batch.
    #[cfg(gpu)]
    pub fn rows(&self) -> Range<usize> {
        self.positions.start / self.seq_len..self.positions.end / self.seq_len
    }

    /// Those of `queries` that ask for its positions, in their order.
    pub fn queries<'q>(&self, queries: &'q [Query]) -> impl Iterator<Item = &'q Query> {
        let positions = self.positions.clone();
        queries
            .iter()
            .filter(move |query| positions.contains(&query.position))
    }
}

/// Puts the answers of each micro-batch to its [`Micro::queries`] in the order of all `queries`; the answer to a query
/// about no position is empty.
pub(crate) fn in_order(
    queries: &[Query],
    answers: impl IntoIterator<Item = (Micro, Vec<Vec<f32>>)>,
) -> Vec<Vec<f32>> {
    let mut all = vec![Vec::new(); queries.len()];
    for (micro, answers) in answers {
        let places = queries.iter().zip(&mut all);
        let places = places.filter(|(query, _)| micro.positions.contains(&query.position));
        for ((_, place), answer) in places.zip(answers) {
            *place = answer;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a row would be trained on twice, or never, or a last micro-batch of one row take as long as a full one.
    #[test]
    fn every_row_is_in_one_micro_batch_and_none_is_much_smaller() {
        for rows in 1..40 {
            for count in 1..=rows {
                let size = BatchSize {
                    tokens: rows * 7,
                    seq_len: 7,
                };
                let micros: Vec<Micro> = size.cut(3, count).collect();
                let mut next = 0;
                for micro in &micros {
                    assert_eq!((micro.batch, micro.positions.start), (3, next));
                    assert!(
                        (rows / count..=rows.div_ceil(count))
                            .contains(&(micro.positions.len() / 7))
                    );
                    next = micro.positions.end;
                }
                assert_eq!((micros.len(), next), (count, rows * 7));
            }
        }
    }

    /// Else a likelihood would be taken for that of another query.
    #[test]
    fn answers_come_back_in_the_order_of_the_queries() {
        let query = |position: usize| Query {
            position,
            candidates: vec![position as u32],
        };
        let queries = [9, 0, 5, 99, 4, 9].map(query);
        let size = BatchSize {
            tokens: 12,
            seq_len: 2,
        };
        let micros: Vec<Micro> = size.cut(0, 4).collect();
        let answers = micros.iter().map(|micro| {
            let answer = |query: &Query| vec![query.position as f32];
            (micro.clone(), micro.queries(&queries).map(answer).collect())
        });
        let expected = [
            vec![9.0],
            vec![0.0],
            vec![5.0],
            vec![],
            vec![4.0],
            vec![9.0],
        ];
        assert_eq!(in_order(&queries, answers), expected);
    }
}
