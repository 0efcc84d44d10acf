//! Micro-batches: rows of a batch that are processed together, and their positions that pass through the head.
//!
//! How many there are is the engine's choice, by caches or by memory; all else is the same on every device. Rows
//! without such a position are left out. The others come by length, so that those of a micro-batch end together:
//! where the longest of them has its last position to score, for causal attention never looks further.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::batch::Query;

/// Rows of tokens.
#[derive(Clone, Copy)]
pub(crate) struct TokenRows<'a> {
    /// Token ids `[B, T]`.
    pub tokens: &'a [u32],
    /// Length T of a row.
    pub seq_len: usize,
}

/// How rows are divided into micro-batches.
#[derive(Clone, Copy)]
pub(crate) struct Cut<F: Fn(usize) -> usize> {
    /// Number of micro-batches for a number of rows.
    pub count: F,
    /// Lengths that rows are trimmed to are multiples of it, but for whole rows.
    pub multiple: usize,
}

/// Rows that are processed together, trimmed, and their positions that pass through the head.
#[derive(Debug)]
pub(crate) struct Micro {
    /// Token ids `[M]`.
    pub tokens: Vec<u32>,
    /// Length of the trimmed rows.
    pub seq_len: usize,
    /// Positions to score, counted from the first of the micro-batch.
    pub scored: Vec<u32>,
    /// The same positions in the batch.
    pub positions: Vec<usize>,
    /// Target token of each position to score.
    pub targets: Vec<u32>,
}

/// A micro-batch whose positions are those of queries, without targets.
pub(crate) struct Asked {
    /// A position to score for each query.
    pub micro: Micro,
    /// Numbers of the queries.
    pub queries: Vec<usize>,
}

impl TokenRows<'_> {
    /// Number of rows.
    fn rows(self) -> usize {
        self.tokens.len() / self.seq_len.max(1)
    }

    /// Micro-batches whose positions are scored against the next token where `counts` says so.
    pub fn next_token<F: Fn(usize) -> usize>(
        self,
        cut: Cut<F>,
        counts: impl Fn(usize) -> bool,
    ) -> Vec<Micro> {
        let (t, counts) = (self.seq_len, &counts);
        // The last position of a row has no next token.
        let scored = |row: usize| (row * t..(row + 1) * t - 1).filter(move |&i| counts(i));
        let last =
            (0..self.rows()).filter_map(|row| Some((row, scored(row).next_back()? - row * t)));
        let groups = cut.groups(self.rows(), last.collect()).into_iter();
        let micros = groups.map(|rows| {
            let positions: Vec<usize> = rows.iter().flat_map(|&row| scored(row)).collect();
            let targets = positions.iter().map(|i| self.tokens[i + 1]).collect();
            self.micro(&rows, positions, targets, cut.multiple)
        });
        micros.collect()
    }

    /// Micro-batches of what queries ask for; a query about no position is in none.
    pub fn asked<F: Fn(usize) -> usize>(self, cut: Cut<F>, queries: &[Query]) -> Vec<Asked> {
        let t = self.seq_len;
        let mut of_row: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, query) in queries.iter().enumerate() {
            if query.position < self.tokens.len() {
                of_row.entry(query.position / t).or_default().push(number);
            }
        }
        let last = |numbers: &[usize]| numbers.iter().map(|&q| queries[q].position % t).max();
        let rows = of_row.iter();
        let mut rows: Vec<(usize, usize)> = rows
            .filter_map(|(&row, numbers)| Some((row, last(numbers)?)))
            .collect();
        rows.sort_unstable();
        let groups = cut.groups(self.rows(), rows).into_iter();
        let asked = groups.map(|rows| {
            let queries_of_rows = rows.iter().flat_map(|row| of_row[row].iter().copied());
            let numbers: Vec<usize> = queries_of_rows.collect();
            let positions = numbers.iter().map(|&q| queries[q].position).collect();
            Asked {
                micro: self.micro(&rows, positions, Vec::new(), cut.multiple),
                queries: numbers,
            }
        });
        asked.collect()
    }

    /// These rows, by number, trimmed behind the last of `positions` of the batch in them.
    fn micro(
        self,
        rows: &[usize],
        positions: Vec<usize>,
        targets: Vec<u32>,
        multiple: usize,
    ) -> Micro {
        let t = self.seq_len;
        let longest = positions.iter().map(|i| i % t + 1).max().unwrap_or(1);
        let longest = longest.next_multiple_of(multiple).min(t);
        let places: HashMap<usize, usize> = rows.iter().copied().zip(0..).collect();
        let within = |i: &usize| (places[&(i / t)] * longest + i % t) as u32;
        let trimmed = rows.iter().map(|row| &self.tokens[row * t..][..longest]);
        Micro {
            tokens: trimmed.flatten().copied().collect(),
            seq_len: longest,
            scored: positions.iter().map(within).collect(),
            positions,
            targets,
        }
    }
}

impl<F: Fn(usize) -> usize> Cut<F> {
    /// Divides rows, each with the last position that is needed of it, as evenly as possible; none of the parts is larger
    /// than those of `all` rows of the batch would be, whose memory was predicted.
    fn groups(&self, all: usize, mut rows: Vec<(usize, usize)>) -> Vec<Vec<usize>> {
        rows.sort_by_key(|&(_, last)| Reverse(last));
        let most = all.div_ceil((self.count)(all).max(1)).max(1);
        let count = (self.count)(rows.len()).max(rows.len().div_ceil(most));
        let count = count.min(rows.len());
        let start = |i: usize| i * rows.len() / count;
        let group = |i: usize| rows[start(i)..start(i + 1)].iter().map(|&(row, _)| row);
        (0..count).map(|i| group(i).collect()).collect()
    }
}

impl Micro {
    /// What positions of the batch have, for each position to score.
    pub fn of<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.positions.iter().map(|&i| values[i]).collect()
    }

    /// Puts what the positions to score have in the place of the whole batch's.
    pub fn put<T>(&self, scored: impl IntoIterator<Item = T>, all: &mut [T]) {
        for (&position, value) in self.positions.iter().zip(scored) {
            all[position] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(count: usize, multiple: usize) -> Cut<impl Fn(usize) -> usize + Copy> {
        let count = move |_| count;
        Cut { count, multiple }
    }

    /// Else a position would be trained on twice, or never, or against another row's token, or a row be cut short.
    #[test]
    fn every_position_that_counts_is_scored_once_with_its_own_tokens() {
        let t = 9;
        let tokens: Vec<u32> = (0..t as u32 * 11).map(|i| i * 3).collect();
        let rows = TokenRows {
            tokens: &tokens,
            seq_len: t,
        };
        // Of row 4 nothing counts; the others end at different places.
        let counts = |i: usize| i / t != 4 && i % t <= i / t && i % 3 != 1;
        for count in 1..=11 {
            for multiple in [1, 4] {
                let micros = rows.next_token(cut(count, multiple), counts);
                let mut seen = Vec::new();
                let mut longest = usize::MAX;
                for micro in &micros {
                    assert!(micro.seq_len <= longest && micro.seq_len <= t);
                    assert!(micro.seq_len.is_multiple_of(multiple) || micro.seq_len == t);
                    longest = micro.seq_len;
                    let scored = micro.scored.iter().zip(&micro.positions);
                    for ((&within, &i), &target) in scored.zip(&micro.targets) {
                        let within = within as usize;
                        // All that it attends to is there.
                        let row = within / micro.seq_len * micro.seq_len;
                        assert_eq!(micro.tokens[row..=within], tokens[i / t * t..=i]);
                        assert_eq!(target, tokens[i + 1]);
                        seen.push(i);
                    }
                }
                seen.sort_unstable();
                let last = |i: &usize| !(i + 1).is_multiple_of(t);
                let all: Vec<usize> = (0..tokens.len())
                    .filter(last)
                    .filter(|&i| counts(i))
                    .collect();
                assert_eq!(seen, all, "{count} micro-batches");
            }
        }
    }

    /// Else a last micro-batch of one row would take as long as a full one.
    #[test]
    fn no_micro_batch_is_much_smaller_than_another() {
        for rows in 1..30 {
            let tokens = vec![0; rows * 2];
            let rows_of = TokenRows {
                tokens: &tokens,
                seq_len: 2,
            };
            for count in 1..=rows {
                let micros = rows_of.next_token(cut(count, 1), |_| true);
                assert_eq!(micros.len(), count);
                let even = rows / count..=rows.div_ceil(count);
                assert!(
                    micros
                        .iter()
                        .all(|micro| even.contains(&micro.tokens.len()))
                );
            }
        }
    }

    /// Else a run would take more memory than was predicted where rows have nothing to score.
    #[test]
    fn no_micro_batch_grows_where_rows_are_left_out() {
        let most = Cut {
            count: |rows: usize| rows.div_ceil(18),
            multiple: 1,
        };
        for (rows, left, largest) in [(20, 18, 10), (128, 126, 16), (20, 20, 10), (17, 1, 17)] {
            let tokens = vec![0; rows * 2];
            let rows_of = TokenRows {
                tokens: &tokens,
                seq_len: 2,
            };
            let micros = rows_of.next_token(most, |i| i / 2 < left);
            let lens = || micros.iter().map(|micro| micro.tokens.len());
            assert!(lens().all(|len| len <= largest), "{rows}: {micros:?}");
            assert_eq!(lens().sum::<usize>(), left);
        }
    }

    /// Else a likelihood would be taken for that of another query.
    #[test]
    fn queries_are_asked_once_at_their_own_positions() {
        let tokens: Vec<u32> = (0..12).collect();
        let rows = TokenRows {
            tokens: &tokens,
            seq_len: 3,
        };
        let query = |position: usize| Query {
            position,
            candidates: Vec::new(),
        };
        let queries = [9, 0, 5, 99, 4, 9].map(query);
        for count in 1..5 {
            let mut numbers = Vec::new();
            for Asked { micro, queries: of } in rows.asked(cut(count, 1), &queries) {
                for (&number, &within) in of.iter().zip(&micro.scored) {
                    let position = queries[number].position;
                    assert_eq!(micro.tokens[within as usize], tokens[position]);
                    numbers.push(number);
                }
            }
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1, 2, 4, 5]);
        }
    }
}
