//! The contract between forgetlab and its replay strategies.
pub mod abi;
