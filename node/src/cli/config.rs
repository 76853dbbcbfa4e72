//! `conclave config …`: needs no cluster and writes nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use conclave_config::{Config, Environment, Setting, SettingOrigin, effective};

use super::{
    failure::Failure,
    output::{Format, Output},
};

const COLUMNS: &[&str] = &["setting", "value", "from"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read a configuration and the environment as a node would, and report every mistake
    #[command(
        after_help = "Examples:\n  conclave config check /etc/conclave/conclave.toml\n  conclave config check -o json"
    )]
    Check(File),
    /// List every setting that a node would use, its value, and its source: the file, the environment or the default
    #[command(after_help = "\
Examples:
  conclave config show
  conclave config show /etc/conclave/conclave.toml -o json

Secrets are not shown. A setting without a value is shown as -.")]
    Show(File),
}

#[derive(Debug, clap::Args)]
pub struct File {
    /// The file [default: $CONCLAVE_CONFIG, else /etc/conclave/conclave.toml if it exists]
    file: Option<PathBuf>,
    /// The output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: Command) -> Result<(Output, Format), Failure> {
    match command {
        Command::Check(args) => Ok((check(args.file.as_deref())?, args.output)),
        Command::Show(args) => Ok((show(args.file.as_deref())?, args.output)),
    }
}

fn check(file: Option<&Path>) -> Result<Output, Failure> {
    let config = Config::load(file).map_err(|error| Failure::usage(error.to_string()))?;
    let source = config.source.map(|source| source.display().to_string());
    let text = match &source {
        Some(file) => format!("{file} is valid"),
        None => "there is no configuration file; the defaults and the environment are valid".to_owned(),
    };
    Ok(Output::done(text, json!({ "file": source, "valid": true })))
}

fn show(file: Option<&Path>) -> Result<Output, Failure> {
    let file = Config::find(file);
    let settings = effective(file.as_deref(), &Environment::of_process())
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Output::Many { columns: COLUMNS, rows: settings.iter().map(row).collect() })
}

fn row(setting: &Setting) -> Value {
    let from = match setting.origin {
        SettingOrigin::Default => "default",
        SettingOrigin::File => "file",
        SettingOrigin::Environment => "environment",
    };
    json!({ "setting": setting.path, "value": setting.value, "from": from })
}
