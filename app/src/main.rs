//! The forgetlab binary.

#![forbid(unsafe_code)]

mod cli;
mod last_words;
mod local_lab;
mod machine;

fn main() -> std::process::ExitCode {
    cli::main()
}
