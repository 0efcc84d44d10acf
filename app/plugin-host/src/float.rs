//! The mode of a thread's floating-point arithmetic: rounding, and whether tiny numbers become zero.
//!
//! A library may change it for itself, on purpose or because it was built with `-ffast-math`. Were it left so, the
//! numbers of every arm would change, in their last bits and without a word.

/// The mode, as the processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FloatMode(Registers);

impl FloatMode {
    /// The mode of this thread.
    pub(super) fn now() -> Self {
        Self(Registers::read())
    }

    /// Gives this thread the mode back, if it has another one.
    pub(super) fn restore(self) {
        if Self::now() != self {
            self.0.write();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::asm;

    /// Rounding, flush-to-zero, denormals-are-zero and the masks of exceptions; the flags below them only tell
    /// what happened.
    const MODE: u32 = 0xffc0;

    /// Control registers of SSE (with AVX) and of the x87.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Registers {
        sse: u32,
        x87: u16,
    }

    impl Registers {
        pub(crate) fn read() -> Self {
            let (mut sse, mut x87) = (0_u32, 0_u16);
            // SAFETY: both instructions only store a register into a local of its size.
            unsafe {
                asm!("stmxcsr [{}]", in(reg) &raw mut sse, options(nostack, preserves_flags));
                asm!("fnstcw [{}]", in(reg) &raw mut x87, options(nostack, preserves_flags));
            }
            Self {
                sse: sse & MODE,
                x87,
            }
        }

        #[cfg(test)]
        pub(crate) fn rounding_up(self) -> Self {
            let sse = self.sse | 0x4000;
            Self { sse, ..self }
        }

        #[cfg(test)]
        pub(crate) fn flushing(self) -> Self {
            let sse = self.sse | 0x8040;
            Self { sse, ..self }
        }

        pub(crate) fn write(self) {
            let Self { sse, x87 } = self;
            // SAFETY: both values were read from the same registers, so no reserved bit is set.
            unsafe {
                asm!("ldmxcsr [{}]", in(reg) &raw const sse, options(nostack, preserves_flags));
                asm!("fldcw [{}]", in(reg) &raw const x87, options(nostack, preserves_flags));
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use std::arch::asm;

    /// The control register.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Registers(u64);

    impl Registers {
        pub(crate) fn read() -> Self {
            let mode: u64;
            // SAFETY: reading the register has no effect.
            unsafe {
                asm!("mrs {}, fpcr", out(reg) mode, options(nomem, nostack, preserves_flags))
            };
            Self(mode)
        }

        pub(crate) fn write(self) {
            // SAFETY: the value was read from the same register.
            unsafe {
                asm!("msr fpcr, {}", in(reg) self.0, options(nomem, nostack, preserves_flags))
            };
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod registers {
    /// Nothing is known of this processor.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Registers;

    impl Registers {
        pub(crate) fn read() -> Self {
            Self
        }

        pub(crate) fn write(self) {}
    }
}

use registers::Registers;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Else a library that rounds up for itself would change the numbers of every arm, in their last bits.
    #[test]
    fn rounding_and_flushing_are_put_back() {
        let sum = || black_box(1.0_f32) + black_box(1e-10_f32);
        let tiny = || black_box(f32::MIN_POSITIVE) / black_box(4.0_f32);
        let (before, exact) = (FloatMode::now(), sum());
        for (changed, differs) in [
            (before.0.rounding_up(), sum as fn() -> f32),
            (before.0.flushing(), tiny as fn() -> f32),
        ] {
            let as_it_was = differs();
            changed.write();
            let other = differs();
            before.restore();
            assert_ne!(other, as_it_was, "the mode was another one");
            assert_eq!(differs(), as_it_was);
            assert_eq!(FloatMode::now(), before);
        }
        assert_eq!(sum(), exact);
    }
}
