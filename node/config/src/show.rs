//! All settings with their value and origin, for `conclave config show`.

use std::path::Path;

use figment::Figment;
use serde_json::{Map, Value};

use super::{Config, ConfigError, Environment, sources};

/// The origin of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Set neither in the file nor in the environment.
    Default,
    /// The configuration file.
    File,
    /// A variable `CONCLAVE_SECTION__KEY`.
    Environment,
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The path, as in the file: `http.listen`.
    pub path: String,
    /// The value, as written in the file; null if it has none. Secrets are replaced by `(secret)`.
    pub value: Value,
    pub origin: SettingOrigin,
}

/// All settings that a node with this file and environment would use, by path.
///
/// # Errors
/// As [`Config::from_sources`].
pub fn effective(file: Option<&Path>, environment: &Environment) -> Result<Vec<Setting>, ConfigError> {
    let figment = sources(file, environment)?;
    let config = Config::extract(&figment)?;
    let value = serde_json::to_value(&config)
        .map_err(|error| ConfigError::Invalid { problems: vec![error.to_string()] })?;
    let mut settings = Vec::new();
    if let Value::Object(sections) = value {
        flatten("", sections, &figment, &mut settings);
    }
    settings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(settings)
}

fn flatten(prefix: &str, values: Map<String, Value>, figment: &Figment, settings: &mut Vec<Setting>) {
    for (key, value) in values {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(inner) => flatten(&path, inner, figment, settings),
            value => {
                let origin = origin(figment, &path);
                settings.push(Setting { path, value, origin });
            }
        }
    }
}

fn origin(figment: &Figment, path: &str) -> SettingOrigin {
    match figment.find_metadata(path) {
        None => SettingOrigin::Default,
        Some(metadata) if metadata.name == "environment" => SettingOrigin::Environment,
        Some(_) => SettingOrigin::File,
    }
}
