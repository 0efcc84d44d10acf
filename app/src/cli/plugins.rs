//! `forgetlab plugins`: what strategies there are, whether one works, a new one to begin with.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use forgetlab_plugin_host::{CheckReport, Helper, Plugin, Registry, check, search_path, serve};
use forgetlab_study::printed::{one_line, path_in_line};
use serde_json::{Map, Value, json};

use super::worker::{folder, helper};
use super::{Usage, out, unless_gone, warn};

/// Names of the strategies that come with the lab.
const BUILT_IN: [&str; 4] = ["none", "true-data", "self-generated", "bos-prompted"];

/// Strategy plugins.
#[derive(Args, Debug)]
pub struct PluginsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Strategies that were found, and libraries that were refused and why
    List {
        /// Folder to search first; may be given several times
        #[arg(long = "plugin-dir", value_name = "DIR", value_parser = folder())]
        plugin_dirs: Vec<PathBuf>,
        /// One JSON object a line instead of text
        #[arg(long)]
        json: bool,
    },
    /// Try a library out: handshake, settings, and a short life against a made-up lab
    Check {
        /// The shared library
        file: PathBuf,
        /// A setting of the strategy
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Write the beginning of a new strategy into a folder of its name
    New {
        /// Name used in arms: lower-case letters, digits and `-`
        name: String,
        /// In C instead of Rust
        #[arg(long)]
        c: bool,
        /// Folder of the plugin-api crate, for a strategy in Rust
        #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api"))]
        plugin_api: PathBuf,
    },
}

/// Runs `forgetlab plugins`.
pub fn run(args: PluginsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List { plugin_dirs, json } => {
            let registry = Registry::discover(&search_path(&plugin_dirs), &helper());
            match json {
                true => list_as_json(&registry)?,
                false => list(&registry)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file, settings } => try_out(&file, &settings),
        Command::New {
            name,
            c,
            plugin_api,
        } => new(&name, c, &plugin_api),
    }
}

fn list_as_json(registry: &Registry) -> io::Result<()> {
    let mut out = out::stdout();
    for plugin in registry.plugins() {
        let settings: Vec<Value> = plugin
            .schema
            .settings
            .iter()
            .map(|setting| {
                json!({
                    "name": setting.name,
                    "expected": setting.expected(),
                    "default": setting.default,
                    "required": setting.required,
                    "description": setting.description,
                })
            })
            .collect();
        out.json(&json!({
            "strategy": plugin.name,
            "version": plugin.version,
            "summary": plugin.summary,
            "path": plugin.path.display().to_string(),
            "settings": settings,
            "needs": plugin.capabilities.needs(),
        }))?;
    }
    for rejected in registry.rejected() {
        let path = rejected.path.display().to_string();
        out.json(&json!({ "path": path, "refused": rejected.reason.to_string() }))?;
    }
    Ok(())
}

fn list(registry: &Registry) -> io::Result<()> {
    let mut out = out::stdout();
    for plugin in registry.plugins() {
        writeln!(
            out,
            "{} {}: {}",
            one_line(&plugin.name),
            one_line(&plugin.version),
            one_line(&plugin.summary)
        )?;
        writeln!(out, "    {}", path_in_line(&plugin.path))?;
        for setting in &plugin.schema.settings {
            let default = match &setting.default {
                Some(default) => format!(", default {default}"),
                None if setting.required => ", required".into(),
                None => String::new(),
            };
            let text = Some(&setting.description).filter(|text| !text.is_empty());
            let text = text.map_or(String::new(), |text| format!(": {text}"));
            let (name, expected) = (&setting.name, setting.expected());
            let line = format!("{name} ({expected}{default}){text}");
            writeln!(out, "    {}", one_line(&line))?;
        }
        let needs = plugin.capabilities.needs();
        if !needs.is_empty() {
            writeln!(out, "    needs {}", needs.join(", "))?;
        }
        if !plugin.printed.is_empty() {
            writeln!(out, "    prints when it is loaded: {}", plugin.printed)?;
        }
    }
    if registry.plugins().is_empty() {
        writeln!(out, "no strategies in:")?;
        for dir in registry.searched() {
            writeln!(out, "    {}", one_line(&dir.display().to_string()))?;
        }
    }
    for rejected in registry.rejected() {
        let line = format!("{} {}", rejected.path.display(), rejected.reason);
        writeln!(out, "refused: {}", one_line(&line))?;
    }
    Ok(())
}

/// Shows a check as it goes. The exit code tells whether a library works, whether or not somebody reads.
struct Shown;

impl CheckReport for Shown {
    fn tried(&mut self, what: &str, how: &str) {
        let _ = writeln!(out::stdout(), "{what:>13}  {}", one_line(how));
    }

    fn late(&mut self, call: &str) {
        warn(format_args!("warning: {call}"));
    }
}

fn try_out(file: &Path, settings: &[String]) -> anyhow::Result<ExitCode> {
    let settings = parse_settings(settings)?;
    let helper = Helper::this_program();
    let plugin = match Plugin::look(file, &helper) {
        Ok(plugin) => plugin,
        Err(error) => bail!("{} {error}", file.display()),
    };
    let mut shown = Shown;
    shown.tried("file", &plugin.path.display().to_string());
    shown.tried("blake3", &plugin.hash);
    shown.tried("strategy", &format!("{} {}", plugin.name, plugin.version));
    shown.tried("summary", &plugin.summary);
    let needs = match plugin.capabilities.needs() {
        needs if needs.is_empty() => "nothing".into(),
        needs => needs.join(", "),
    };
    shown.tried("needs", &needs);
    if plugin.capabilities.independent_of_student() {
        let promise = "batches depend neither on the student nor on observe";
        shown.tried("promises", promise);
    }
    check(file, &settings, &helper, &mut shown)
        .with_context(|| format!("{} does not work", file.display()))?;
    unless_gone(writeln!(out::stdout(), "{} works", plugin.name))?;
    Ok(ExitCode::SUCCESS)
}

/// Arguments of the hidden command that looks at libraries for this program.
#[derive(Args)]
pub struct ChildArgs {
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    task: Vec<OsString>,
}

/// The child's side of looking at a library, or of checking one.
pub fn child(args: &ChildArgs) -> anyhow::Result<ExitCode> {
    serve(&args.task)?;
    Ok(ExitCode::SUCCESS)
}

/// `key=value` pairs; a value that is no JSON is a text.
fn parse_settings(pairs: &[String]) -> anyhow::Result<Map<String, Value>> {
    let pair = |pair: &String| {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("--set {pair}: write it as KEY=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok((key.to_owned(), value))
    };
    pairs.iter().map(pair).collect()
}

fn new(name: &str, c: bool, plugin_api: &Path) -> anyhow::Result<ExitCode> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let first = name.chars().next();
    if BUILT_IN.contains(&name) {
        let why = format!(
            "`{name}` is the name of a built-in strategy: an arm of that name could mean either; \
             choose another name"
        );
        return Err(Usage(why).into());
    }
    ensure!(
        first.is_some_and(|c| c.is_ascii_lowercase())
            && name.len() <= 64
            && name.chars().all(allowed),
        "{name:?} is no name for a strategy: lower-case letters, digits and `-`, a letter first, 64 at most"
    );
    let dir = PathBuf::from(name);
    let files = if c {
        c_files(name)
    } else {
        rust_files(name, plugin_api)?
    };
    std::fs::create_dir(&dir)
        .with_context(|| format!("{} cannot be made; choose another name", dir.display()))?;
    let mut told = String::new();
    for (path, text) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        told += &format!("wrote {}\n", path.display());
    }
    let file = library_name(name);
    let source = if c { "strategy.c" } else { "src/lib.rs" };
    told += &format!("\nIts code is in {name}/{source}. Build it and try it:\n");
    // From this folder, so that its runs stand with the others in the list.
    let (build, folder) = if c {
        let build = format!("cc -std=c11 -O2 -shared -fPIC -o {name}/{file} {name}/strategy.c");
        (build, name.to_owned())
    } else {
        let build = format!("cargo build --release --manifest-path {name}/Cargo.toml");
        (build, format!("{name}/target/release"))
    };
    for command in [
        build,
        format!("forgetlab plugins check {folder}/{file}"),
        format!("forgetlab run toy-continual --plugin-dir {folder} --arms none,{name}:kl"),
    ] {
        told += &format!("    {command}\n");
    }
    out::stdout().write_all(told.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn library_name(name: &str) -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let name = name.replace('-', "_");
    format!("{DLL_PREFIX}forgetlab_strategy_{name}{DLL_SUFFIX}")
}

fn rust_files(name: &str, plugin_api: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let plugin_api = plugin_api
        .canonicalize()
        .ok()
        .filter(|dir| dir.join("src/abi.rs").is_file());
    let plugin_api = plugin_api.context(
        "the plugin-api crate was not found; name its folder with `--plugin-api DIR` (it is in the forgetlab sources), or begin in C with `--c`",
    )?;
    let manifest = format!(
        r#"[package]
name = "forgetlab-strategy-{name}"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]
name = "forgetlab_strategy_{}"

[dependencies]
forgetlab-plugin-api = {{ path = {:?} }}

# A workspace of its own, wherever the folder lies.
[workspace]
"#,
        name.replace('-', "_"),
        plugin_api
    );
    let source = include_str!("../../../plugin-api/templates/strategy.rs");
    Ok(vec![
        ("Cargo.toml", manifest),
        ("src/lib.rs", source.replace("my-strategy", name)),
        (".gitignore", "/target\n".into()),
    ])
}

fn c_files(name: &str) -> Vec<(&'static str, String)> {
    let source = include_str!("../../../plugin-api/templates/strategy.c");
    let source = source
        .replace("my-strategy", name)
        .replace("my_strategy", &name.replace('-', "_"));
    let header = include_str!("../../../plugin-api/include/forgetlab_strategy.h");
    vec![
        ("strategy.c", source),
        ("forgetlab_strategy.h", header.into()),
    ]
}
