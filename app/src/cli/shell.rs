//! `forgetlab completions` and `forgetlab man`, made from the command line itself.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use forgetlab_study::printed::path_in_line;

use super::{out, unless_gone};

/// Arguments of `completions`.
#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// Shell, e.g. `forgetlab completions bash > ~/.local/share/bash-completion/completions/forgetlab`
    shell: Shell,
}

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a shell's completions of the command line.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut out = out::stdout();
    unless_gone(out.write_all(&script).and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page, or writes one for each command.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let mut out = out::stdout();
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        unless_gone(out.write_all(&page).and_then(|()| out.flush()))?;
        return Ok(ExitCode::SUCCESS);
    };
    let write = || {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(command, folder)
    };
    write().with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    let told = writeln!(out, "{}", path_in_line(&folder.join("forgetlab.1")));
    unless_gone(told)?;
    Ok(ExitCode::SUCCESS)
}
