//! Errors of figures.

/// Failure to draw a figure.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The drawing library refused.
    #[error("{0}")]
    Drawing(String),
    /// The picture could not be encoded.
    #[error("encoding the PNG: {0}")]
    Png(#[from] png::EncodingError),
}

/// The error of a drawing library that refused; for `map_err`.
pub(super) fn refused(error: impl std::fmt::Display) -> FigureError {
    FigureError::Drawing(error.to_string())
}
