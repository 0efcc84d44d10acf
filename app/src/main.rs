//! The forgetlab binary.

mod cli;
mod tui;

fn main() -> std::process::ExitCode {
    cli::main()
}
