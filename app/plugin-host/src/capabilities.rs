//! Capabilities that strategies declare and runs offer.

use forgetlab_plugin_api::abi;

/// A set of capabilities: those a strategy declares, or those a run offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

const NEEDS: [(u64, &str); 7] = [
    (abi::NEEDS_OLD_DATA, "the true old data"),
    (abi::NEEDS_GENERATION, "generation"),
    (abi::NEEDS_TOKENIZER, "a tokenizer"),
    (abi::NEEDS_SCORES, "scores of sequences"),
    (abi::NEEDS_SNAPSHOTS, "kept snapshots of a model"),
    (abi::NEEDS_VIRTUAL_STEP, "scores after a virtual step"),
    (abi::SUPPLIES_TEACHER, "supplied teacher log-probabilities"),
];

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// True old sequences can be drawn.
    pub const OLD_DATA: Self = Self(abi::NEEDS_OLD_DATA);
    /// Reference and student can generate.
    pub const GENERATION: Self = Self(abi::NEEDS_GENERATION);
    /// Text can be encoded and decoded, special tokens are known.
    pub const TOKENIZER: Self = Self(abi::NEEDS_TOKENIZER);
    /// Reference and student can score.
    pub const SCORES: Self = Self(abi::NEEDS_SCORES);
    /// Snapshots of a model can be kept.
    pub const SNAPSHOTS: Self = Self(abi::NEEDS_SNAPSHOTS);
    /// The student after a virtual step can score.
    pub const VIRTUAL_STEP: Self = Self(abi::NEEDS_VIRTUAL_STEP);
    /// A batch may bring its own teacher log-probabilities.
    pub const SUPPLIED_TEACHER: Self = Self(abi::SUPPLIES_TEACHER);

    /// Every capability of this version of the ABI.
    pub const ALL: Self = Self(abi::ALL_CAPABILITIES);

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The union of two sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set includes all of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether batches depend neither on the student nor on `observe`, so that they may be generated ahead.
    pub const fn independent_of_student(self) -> bool {
        self.0 & abi::INDEPENDENT_OF_STUDENT != 0
    }

    /// The needs in the set, in words.
    pub fn needs(self) -> Vec<&'static str> {
        let needed = NEEDS.iter().filter(|(bit, _)| self.0 & bit != 0);
        needed.map(|(_, words)| *words).collect()
    }

    /// The needs that `offered` lacks, in words; `None` if there are none.
    pub fn missing_from(self, offered: Self) -> Option<String> {
        let missing = Self(self.0 & !offered.0).needs();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}
