//! Number formats the matrix products may compute in.

/// Format of the matrix products' inputs. Sums, weights, moments and losses are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// Inputs rounded to bfloat16.
    Bf16,
}

impl Precision {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
