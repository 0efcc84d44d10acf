//! The contract between forgetlab and its replay strategies.
