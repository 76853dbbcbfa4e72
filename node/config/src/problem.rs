//! Translates figment's errors for operators: `http.listen: … (in conclave.toml)`.

use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::environment::ENV_PREFIX;

/// A provider with a chosen name: the file's path as the operator gave it.
pub(super) struct Named<P> {
    name: String,
    provider: P,
}

impl<P> Named<P> {
    pub(super) fn new(name: String, provider: P) -> Self {
        Self { name, provider }
    }
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        self.provider.data()
    }
}

/// One line per error; `source` is the source of the setting, if the error does not contain it.
fn describe(error: Error, source: Option<&str>) -> Vec<String> {
    error.into_iter().map(|error| line(&error, source)).collect()
}

/// All errors in the settings: figment stops at the first, so each key is parsed on its own.
pub(super) fn all<'de, C: serde::Deserialize<'de>>(figment: &Figment, first: Error) -> Vec<String> {
    let data = figment.data().unwrap_or_default();
    let sections = data.into_values().flatten();
    let alone = sections.flat_map(|(section, value)| match value {
        Value::Dict(tag, keys) => {
            let one = |(key, value)| {
                let path = format!("{section}.{key}");
                (path, section.clone(), Value::Dict(tag, Dict::from([(key, value)])))
            };
            keys.into_iter().map(one).collect::<Vec<_>>()
        }
        value => vec![(section.clone(), section, value)],
    });
    let lines: Vec<String> = alone
        .flat_map(|(path, section, value)| {
            let source = figment.find_metadata(&path).map(|metadata| metadata.name.to_string());
            let one = Figment::from(One(Dict::from([(section, value)])));
            let error = one.extract::<C>().err();
            error.map(|error| describe(error, source.as_deref())).unwrap_or_default()
        })
        .collect();
    if lines.is_empty() { describe(first, None) } else { lines }
}

/// One setting.
struct One(Dict);

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::default()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

fn line(error: &Error, source: Option<&str>) -> String {
    let mut keys: Vec<&str> = error.path.iter().map(String::as_str).collect();
    let what = match &error.kind {
        Kind::UnknownField(field, known) => {
            if keys.last() != Some(&field.as_str()) {
                keys.push(field);
            }
            format!(": no such setting; known here: {}", known.join(", "))
        }
        // Errors in lists contain the entry already: `cluster.peers` + `[1]: …`.
        Kind::Message(message) if message.starts_with('[') => message.clone(),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!(": expected {expected}, found {found}")
        }
        Kind::UnknownVariant(found, known) => format!(": {found:?} is none of {}", known.join(", ")),
        kind => format!(": {kind}"),
    };
    let path = keys.join(".");
    let source = error.metadata.as_ref().map(|metadata| metadata.name.as_ref()).or(source);
    let origin = origin(source, &keys);
    if path.is_empty() {
        format!("{}{origin}", what.trim_start_matches(": "))
    } else {
        path + &what + &origin
    }
}

fn origin(source: Option<&str>, keys: &[&str]) -> String {
    match source {
        Some("environment") => {
            format!(" (in the environment, {ENV_PREFIX}{})", keys.join("__").to_uppercase())
        }
        Some(file) => format!(" (in {file})"),
        None => String::new(),
    }
}
