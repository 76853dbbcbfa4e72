//! `conclave config …`: needs no cluster and writes nothing.

use std::path::PathBuf;

use serde_json::json;

use crate::config::Config;

use super::{
    failure::Failure,
    output::{Format, Output},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read a configuration and the environment as a node would, and name every mistake
    #[command(
        after_help = "Examples:\n  conclave config check /etc/conclave/conclave.toml\n  conclave config check -o json"
    )]
    Check {
        /// The file [default: $CONCLAVE_CONFIG, else /etc/conclave/conclave.toml if it is there]
        file: Option<PathBuf>,
        /// How to print the result
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub fn run(command: Command) -> Result<(Output, Format), Failure> {
    let Command::Check { file, output } = command;
    let config = Config::load(file.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    let source = config.source.map(|source| source.display().to_string());
    let text = match &source {
        Some(file) => format!("{file} is in order"),
        None => "no configuration file is there; the defaults and the environment are in order".to_owned(),
    };
    Ok((Output::done(text, json!({ "file": source, "valid": true })), output))
}
