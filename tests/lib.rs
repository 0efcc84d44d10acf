//! Helpers of the end-to-end tests: where the binary and the strategy libraries are.
