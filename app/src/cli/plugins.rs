//! `forgetlab plugins`: what strategies there are, whether one works, a new one to begin with.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use forgetlab_plugin_host::{OnLate, Plugin, Registry, dry_run, search_path};
use serde_json::{Map, Value};

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
        #[arg(long = "plugin-dir", value_name = "DIR")]
        plugin_dirs: Vec<PathBuf>,
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
        Command::List { plugin_dirs } => Ok(list(&plugin_dirs)),
        Command::Check { file, settings } => check(&file, &settings),
        Command::New {
            name,
            c,
            plugin_api,
        } => new(&name, c, &plugin_api),
    }
}

fn list(plugin_dirs: &[PathBuf]) -> ExitCode {
    let registry = Registry::discover(&search_path(plugin_dirs));
    for plugin in registry.plugins() {
        println!("{} {}: {}", plugin.name, plugin.version, plugin.summary);
        println!("    {}", plugin.path.display());
        for setting in &plugin.schema.settings {
            let default = match &setting.default {
                Some(default) => format!(", default {default}"),
                None if setting.required => ", required".into(),
                None => String::new(),
            };
            let text = Some(&setting.description).filter(|text| !text.is_empty());
            let text = text.map_or(String::new(), |text| format!(": {text}"));
            println!(
                "    {} ({}{default}){text}",
                setting.name,
                setting.expected()
            );
        }
        let needs = plugin.capabilities.needs();
        if !needs.is_empty() {
            println!("    needs {}", needs.join(", "));
        }
    }
    if registry.plugins().is_empty() {
        println!("no strategies in:");
        for dir in registry.searched() {
            println!("    {}", dir.display());
        }
    }
    for rejected in registry.rejected() {
        println!("refused: {} {}", rejected.path.display(), rejected.reason);
    }
    ExitCode::SUCCESS
}

fn check(file: &Path, settings: &[String]) -> anyhow::Result<ExitCode> {
    let say = |what: &str, text: &str| println!("{what:>13}  {text}");
    let plugin = match Plugin::load(file) {
        Ok(plugin) => plugin,
        Err(error) => bail!("{} {error}", file.display()),
    };
    say("file", &plugin.path.display().to_string());
    say("blake3", &plugin.hash);
    say("strategy", &format!("{} {}", plugin.name, plugin.version));
    say("summary", &plugin.summary);
    let needs = match plugin.capabilities.needs() {
        needs if needs.is_empty() => "nothing".into(),
        needs => needs.join(", "),
    };
    say("needs", &needs);
    if plugin.capabilities.independent_of_student() {
        say(
            "promises",
            "batches depend neither on the student nor on observe",
        );
    }
    let settings = parse_settings(settings)?;
    let on_late: OnLate = Arc::new(|late| eprintln!("warning: {late}"));
    let result = dry_run(&plugin, &settings, &on_late, &mut |what, text| {
        say(what, &text)
    });
    result.with_context(|| format!("{} does not work", file.display()))?;
    println!("{} works", plugin.name);
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
    for (path, text) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    let file = library_name(name);
    let source = if c { "strategy.c" } else { "src/lib.rs" };
    println!("\nIts code is in {name}/{source}. Build it and try it:");
    // From this folder, so that its runs stand with the others in the list.
    let folder = if c {
        println!("    cc -std=c11 -O2 -shared -fPIC -o {name}/{file} {name}/strategy.c");
        name.to_owned()
    } else {
        println!("    cargo build --release --manifest-path {name}/Cargo.toml");
        format!("{name}/target/release")
    };
    println!("    forgetlab plugins check {folder}/{file}");
    println!("    forgetlab run toy-continual --plugin-dir {folder} --arms none,{name}:kl");
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
