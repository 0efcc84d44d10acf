//! Buffers that a plugin writes into, with a margin behind them that shows whether it wrote past their end.

use std::{collections::TryReserveError, ops::Deref};

/// Bytes of the margin.
const MARGIN: usize = 8192;

/// The byte that fills the margin, which no plugin would write all over by chance.
const MARK: u8 = 0x5c;
static MARKS: [u8; MARGIN] = [MARK; MARGIN];

/// A number that any bytes make.
///
/// # Safety
/// Every pattern of its bytes must be a value, none of them padding.
pub(super) unsafe trait Number: Copy {
    /// The number whose bytes are all [`MARK`].
    const MARKED: Self;
}

// SAFETY: an integer.
unsafe impl Number for u8 {
    const MARKED: Self = MARK;
}
// SAFETY: an integer.
unsafe impl Number for u32 {
    const MARKED: Self = u32::from_ne_bytes([MARK; 4]);
}
// SAFETY: every pattern is a float, if only a NaN.
unsafe impl Number for f32 {
    const MARKED: Self = f32::from_bits(u32::MARKED);
}

/// A buffer to lend; reads as what was lent, without the margin.
#[derive(Debug, Default)]
pub(super) struct Lent<T> {
    cells: Vec<T>,
    len: usize,
}

impl<T: Number> Lent<T> {
    const MARGIN: usize = MARGIN / size_of::<T>();

    /// Makes the buffer `len` values long, each `value`.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(super) fn fill(&mut self, len: usize, value: T) -> Result<(), TryReserveError> {
        // From step to step the length is the same, and the margin was looked at.
        if self.len != len || self.cells.is_empty() {
            self.cells.clear();
            self.len = 0;
            self.cells
                .try_reserve_exact(len.saturating_add(Self::MARGIN))?;
            self.cells.resize(len, value);
            self.cells.resize(len + Self::MARGIN, T::MARKED);
            self.len = len;
        } else {
            self.cells[..len].fill(value);
        }
        Ok(())
    }

    /// Where the plugin writes.
    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        self.cells.as_mut_ptr()
    }

    /// Whether the plugin wrote past the end. To be asked before the call is over for everybody else: where the
    /// whole margin is written over, so is memory that is not ours, and the process ends here, in the call that the
    /// breadcrumb names.
    #[expect(clippy::print_stderr, reason = "these words are ours")]
    pub(super) fn overrun(&self) -> bool {
        let margin = &self.cells[self.len..];
        // SAFETY: the bytes of numbers, which have no padding.
        let margin = unsafe {
            std::slice::from_raw_parts(margin.as_ptr().cast::<u8>(), size_of_val(margin))
        };
        if margin == &MARKS[..margin.len()] {
            return false;
        }
        if margin.last() != Some(&MARK) {
            eprintln!("error: a strategy wrote far past the end of the buffer it was given");
            std::process::abort();
        }
        true
    }

    /// The first `len` values, without a copy.
    pub(super) fn take(mut self, len: usize) -> Vec<T> {
        self.cells.truncate(len.min(self.len));
        self.cells
    }
}

impl<T> Deref for Lent<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.cells[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a slip of one byte in a strategy would end the process later, in an innocent's call.
    #[test]
    fn a_write_past_the_end_is_noticed() {
        let mut lent = Lent::<u32>::default();
        lent.fill(4, 0).expect("memory");
        assert_eq!((&*lent, lent.overrun()), (&[0, 0, 0, 0][..], false));
        // SAFETY: the margin follows the four values.
        unsafe { lent.as_mut_ptr().add(4).write(0) };
        assert!(lent.overrun());
        lent.fill(0, 0).expect("memory");
        assert!(lent.is_empty() && !lent.overrun());
    }
}
