//! What runs are composed of: experiments, strategies, devices.

use std::path::PathBuf;

use forgetlab_plugin_host::{Helper, Registry, search_path};
use forgetlab_study::experiment::{self, Overrides};
use forgetlab_tui::lab::{Catalog, Device, Experiment, Plugin, Preset};

use super::{file_name, sweeps};

/// What runs are composed of on this machine.
pub struct LocalCatalog {
    pub plugin_dirs: Vec<PathBuf>,
    pub devices: Vec<Device>,
}

impl Catalog for LocalCatalog {
    fn experiments(&self) -> anyhow::Result<Vec<Experiment>> {
        let mut experiments = Vec::new();
        for known in experiment::experiments() {
            let mut names: Vec<&str> = known.presets().collect();
            names.sort_by_key(|name| *name != known.default_preset);
            let presets = names.into_iter().map(|name| preset(known, name));
            experiments.push(Experiment {
                name: known.name.to_string(),
                summary: known.summary.to_string(),
                presets: presets.collect::<anyhow::Result<_>>()?,
            });
        }
        Ok(experiments)
    }

    fn plugins(&self) -> anyhow::Result<Vec<Plugin>> {
        let registry = Registry::discover(&search_path(&self.plugin_dirs), &Helper::this_program());
        let loaded = registry.plugins().iter().map(|plugin| {
            let needs = plugin.capabilities.needs();
            let mut capabilities: Vec<String> =
                needs.iter().map(|need| format!("needs {need}")).collect();
            if plugin.capabilities.independent_of_student() {
                capabilities.push("batches may be generated ahead".to_string());
            }
            Plugin {
                name: plugin.name.clone(),
                version: plugin.version.clone(),
                summary: plugin.summary.clone(),
                path: plugin.path.clone(),
                // By the grammar of arms, `none` is the one strategy without replay.
                replays: plugin.name != "none",
                // The host has checked it; without a schema there are no fields.
                schema: serde_json::from_str(&plugin.schema_json).unwrap_or_default(),
                capabilities,
                error: None,
            }
        });
        let rejected = registry.rejected().iter().map(|rejected| Plugin {
            name: file_name(&rejected.path),
            version: String::new(),
            summary: String::new(),
            path: rejected.path.clone(),
            replays: false,
            schema: serde_json::Value::Null,
            capabilities: Vec::new(),
            error: Some(rejected.reason.to_string()),
        });
        Ok(loaded.chain(rejected).collect())
    }

    fn devices(&self) -> anyhow::Result<Vec<Device>> {
        Ok(self.devices.clone())
    }
}

fn preset(known: &experiment::Experiment, name: &str) -> anyhow::Result<Preset> {
    let preset = known.preset(name)?;
    let overrides = Overrides {
        preset: Some(name.to_string()),
        ..Overrides::default()
    };
    Ok(Preset {
        name: name.to_string(),
        summary: preset.summary.clone(),
        expectation: preset.expectation.clone(),
        config: experiment::resolve(known.name, &overrides)?,
        points: sweeps::points(known, name)?,
    })
}
