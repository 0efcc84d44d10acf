//! `forgetlab label`.

use std::io::Write;
use std::process::ExitCode;

use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Found, Labels, Results};

use super::{Usage, out, unless_gone};

/// Arguments of `label`.
#[derive(clap::Args)]
pub struct Args {
    /// Run or sweep: path, name, unique beginning of a name, or display name
    run: String,
    /// Display name, shown beside that of the folder; an empty one removes it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Note, in place of the one before; an empty one removes it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Add a tag (may be given again)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Take a tag away (may be given again)
    #[arg(long = "untag", value_name = "TAG")]
    untags: Vec<String>,
}

/// Changes the labels where an option says so, and prints them.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let found = Results::from_env().find_any(&args.run)?;
    let before = match &found {
        Found::Run(run) => run.labels(),
        Found::Sweep(sweep) => sweep.labels(),
    }?;
    let labels = changed(before.clone(), args)?;
    if labels != before {
        match &found {
            Found::Run(run) => run.set_labels(&labels),
            Found::Sweep(sweep) => sweep.set_labels(&labels),
        }?;
    }
    unless_gone(out::stdout().write_all(told(&labels).as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

fn changed(mut labels: Labels, args: Args) -> anyhow::Result<Labels> {
    if let Some(name) = args.name {
        labels.name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    }
    if let Some(note) = args.note {
        labels.note = note.trim().to_owned();
    }
    for tag in args.untags.iter().map(|tag| tag.trim()) {
        if !labels.tags.remove(tag) {
            let tags: Vec<&str> = labels.tags.iter().map(String::as_str).collect();
            let has = match tags.is_empty() {
                true => "there are none".to_owned(),
                false => format!("there are {}", tags.join(", ")),
            };
            return Err(Usage(format!("there is no tag `{tag}` to take away; {has}")).into());
        }
    }
    let tags = args.tags.iter().map(|tag| tag.trim());
    labels
        .tags
        .extend(tags.filter(|tag| !tag.is_empty()).map(str::to_owned));
    Ok(labels)
}

fn told(labels: &Labels) -> String {
    if labels.is_empty() {
        return "no labels\n".to_owned();
    }
    let mut told = String::new();
    if let Some(name) = &labels.name {
        told += &format!("name  {}\n", one_line(name));
    }
    if !labels.tags.is_empty() {
        let tags: Vec<&str> = labels.tags.iter().map(String::as_str).collect();
        told += &format!("tags  {}\n", one_line(&tags.join(", ")));
    }
    if !labels.note.is_empty() {
        told += &format!("note  {}\n", labels.note.replace('\n', "\n      "));
    }
    told
}
