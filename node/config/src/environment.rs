//! Settings from the environment: `CONCLAVE_HTTP__LISTEN` is `http.listen`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

/// Prefix of all our variables.
pub const ENV_PREFIX: &str = "CONCLAVE_";

/// Separates section and key.
const NESTING: &str = "__";

/// The sections, to distinguish a setting with a missing underscore from a variable of the command line tools.
const SECTIONS: [&str; 14] = [
    "NODE",
    "CLUSTER",
    "HTTP",
    "ENVOY",
    "API",
    "LOGIN",
    "TOKENS",
    "AUTHORIZATION",
    "OUTBOUND",
    "ATMOSPHERE",
    "POLICY",
    "ARCHIVE",
    "LOG",
    "TELEMETRY",
];

/// The variables that are settings, `SECTION__KEY` without the prefix. Other variables with our prefix
/// (`CONCLAVE_TOKEN`) belong to the command line tools and are ignored.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    settings: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

/// The file named by `CONCLAVE_CONFIG`, if it is set.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
pub(super) fn configuration_file() -> Option<PathBuf> {
    std::env::var_os("CONCLAVE_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::from_os(std::env::vars_os())
    }

    /// An environment for tests.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::from_os(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn from_os(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut found = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(ENV_PREFIX)) else { continue };
            match value.into_string() {
                Ok(value) => found.take(name, value),
                Err(_) => found.mistakes.push(format!("environment {ENV_PREFIX}{name}: not valid UTF-8")),
            }
        }
        found
    }

    fn take(&mut self, name: &str, value: String) {
        if name.contains(NESTING) {
            self.settings.insert(name.to_owned(), value);
        } else if let Some((section, key)) = name.split_once('_').filter(|(s, _)| SECTIONS.contains(s)) {
            self.mistakes.push(format!(
                "environment {ENV_PREFIX}{name}: write {ENV_PREFIX}{section}{NESTING}{key}, with two underscores after the section"
            ));
        }
    }

    pub(super) fn mistakes(&self) -> Vec<String> {
        self.mistakes.clone()
    }
}

impl Provider for &Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut root = Dict::new();
        for (name, value) in &self.settings {
            let path: Vec<String> = name.to_lowercase().split(NESTING).map(str::to_owned).collect();
            // Numbers, booleans and lists in TOML syntax; everything else is text.
            let value = value.parse().unwrap_or_else(|never: Infallible| match never {});
            insert(&mut root, &path, value);
        }
        Ok(Profile::Default.collect(root))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            dict.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let entry = dict.entry(section.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}
