//! Built-in replay strategy.
