//! **The command line.** Every command but `serve` and `demo` talks to a running cluster through its admin API, with
//! conclave-client; `serve` and `demo` are only described here.
//!
//! | file | owns |
//! |---|---|
//! | `serve`, `demo` | the arguments of the commands that `main` runs itself |
//! | `connection` | the connection to a cluster, and its credentials |
//! | `output` | tables for users, JSON for programs |
//! | `failure` | failures, and their exit codes |
//! | `password` | passwords: typed, or from standard input, never an argument |
//! | `progress` | a progress line |
//! | `restore`, `recover` | a data directory that no node uses, without contacting a cluster |
//! | `config` | checks of the configuration file |
//! | `doctor/` | checks of a protected application from the outside |
//! | `users`, `groups`, `applications`, `app_passwords`, `clients`, `sessions`, `tokens`, `keys`, `upstreams`, `policies`, `snapshots`, `cluster`, `archive`, `join`, `secret` | a command each |
//!
//! A command is a function from its arguments and a client to an `output::Output`; nothing else prints.

mod app_passwords;
mod applications;
mod archive;
mod client_requests;
mod client_tokens;
mod client_words;
mod clients;
mod cluster;
mod config;
mod connection;
mod decisions;
mod demo;
mod doctor;
mod failure;
mod groups;
mod join;
mod keys;
mod open_names;
mod output;
mod password;
mod policies;
mod progress;
mod recover;
mod restore;
mod secret;
mod serve;
mod sessions;
mod snapshots;
mod tokens;
mod upstreams;
mod users;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use demo::DemoArgs;
pub use serve::ServeArgs;

use connection::ApiArgs;
use failure::Failure;
use output::Output;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  any other failure
  2  the command line is wrong
  3  what is named does not exist
  4  refused: the request is wrong, or a name is taken
  5  the token is missing, wrong, or may not do this
  6  the cluster cannot be reached or has no leader; nothing changed
  7  a write was sent and not answered: its outcome is unknown

Environment:
  CONCLAVE_CONFIG configuration file [else /etc/conclave/conclave.toml, if it exists]
  CONCLAVE_API    URLs of the admin API, separated by commas
  CONCLAVE_TOKEN  bearer token of the admin API";

/// A highly available identity cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "conclave", version, after_help = EXIT_CODES, propagate_version = true, term_width = 0)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `conclave`.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value a process")]
pub enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Run a whole cluster on this machine, to try out
    Demo(DemoArgs),
    #[command(flatten)]
    Tool(Tool),
}

/// The commands that end by themselves: [`run`] runs them.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Manage users
    #[command(
        after_help = "Examples:\n  conclave user create ada --email ada@example.org\n  conclave user list -o json"
    )]
    User(Resource<users::Command>),
    /// Manage groups of users
    #[command(after_help = "Examples:\n  conclave group create staff\n  conclave group add staff ada")]
    Group(Resource<groups::Command>),
    /// Manage applications and their access rules
    #[command(
        after_help = "Examples:\n  conclave app create wiki --host wiki.example.org --group staff\n  conclave app list"
    )]
    App(Resource<applications::Command>),
    /// Manage passwords for programs that support only HTTP Basic
    #[command(
        after_help = "Examples:\n  conclave app-password create ada --name phone --app calendar\n  conclave app-password list"
    )]
    AppPassword(Resource<app_passwords::Command>),
    /// Manage OIDC clients
    #[command(after_help = "Examples:\n  conclave client list\n  conclave client list -o json")]
    Client(Resource<clients::Command>),
    /// Manage upstream providers, at which users may sign in
    #[command(after_help = "Examples:\n  conclave upstream list\n  conclave upstream show google -o json")]
    Upstream(Resource<upstreams::Command>),
    /// Manage policies: access conditions of an application, beyond its access rule
    #[command(
        after_help = "Examples:\n  conclave policy set wiki wiki.toml\n  conclave policy test wiki --user ada"
    )]
    Policy(Resource<policies::Command>),
    /// Manage the sessions of signed-in users
    #[command(
        after_help = "Examples:\n  conclave session list --user ada\n  conclave session revoke --user ada"
    )]
    Session(Resource<sessions::Command>),
    /// Manage bearer tokens of the admin API
    #[command(after_help = "Examples:\n  conclave token list\n  conclave token list -o json")]
    Token(Resource<tokens::Command>),
    /// Manage the keys that tokens are signed with
    #[command(after_help = "Examples:\n  conclave key list\n  conclave key rotate ES256")]
    Key(Resource<keys::Command>),
    /// Manage the cluster itself
    #[command(
        after_help = "Examples:\n  conclave cluster status\n  conclave cluster join 10.0.0.1:9300 --secret-file cluster.secret"
    )]
    Cluster(Resource<cluster::Command>),
    /// Save, verify and restore the whole cluster as one file
    #[command(
        after_help = "Examples:\n  conclave snapshot save --to conclave.snapshot\n  conclave snapshot verify conclave.snapshot"
    )]
    Snapshot(Resource<snapshots::Command>),
    /// Found a cluster from a snapshot, on an empty machine
    Restore(restore::RestoreArgs),
    /// Repair a cluster that cannot recover by itself
    #[command(
        subcommand,
        after_help = "Examples:\n  conclave recover from-survivor /var/lib/conclave --lost 1,2 --config conclave.toml"
    )]
    Recover(recover::Command),
    /// Manage the archive: a copy of the log and snapshots at another place
    #[command(
        after_help = "Examples:\n  conclave archive status\n  conclave archive list\n  conclave archive prune --dry-run"
    )]
    Archive(Resource<archive::Command>),
    /// Find faults from the outside
    #[command(subcommand, after_help = "Examples:\n  conclave doctor forward-auth https://wiki.example.org/")]
    Doctor(doctor::Command),
    /// Manage the cluster secret
    #[command(subcommand, after_help = "Examples:\n  conclave secret new\n  conclave secret status")]
    Secret(secret::Command),
    /// Check the configuration of a node
    #[command(
        subcommand,
        after_help = "Examples:\n  conclave config check /etc/conclave/conclave.toml\n  conclave config check"
    )]
    Config(config::Command),
    /// Print the version
    #[command(after_help = "Examples:\n  conclave version\n  conclave version -o json")]
    Version {
        /// The output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: output::Format,
    },
}

/// A command of the admin API, and the connection for it.
#[derive(Debug, clap::Args)]
pub struct Resource<C: Subcommand> {
    #[command(flatten)]
    api: ApiArgs,
    #[command(subcommand)]
    command: C,
}

/// Runs the command, prints its result to standard output or its failure to standard error, and returns the exit code.
pub async fn run(tool: Tool) -> ExitCode {
    if let Tool::Doctor(command) = &tool {
        return doctor::run(command).await;
    }
    let format = output::Format::asked(std::env::args());
    match outcome(tool).await {
        Ok((output, format)) => output::print(&output, format),
        Err(failure) => failure.report(format),
    }
}

async fn outcome(tool: Tool) -> Result<(Output, output::Format), Failure> {
    macro_rules! over_api {
        ($resource:ident, $run:path) => {{
            let client = $resource.api.connect()?;
            Ok(($run(&client, $resource.command).await?, $resource.api.output))
        }};
    }
    match tool {
        Tool::User(resource) => over_api!(resource, users::run),
        Tool::Group(resource) => over_api!(resource, groups::run),
        Tool::App(resource) => over_api!(resource, applications::run),
        Tool::AppPassword(resource) => over_api!(resource, app_passwords::run),
        Tool::Client(resource) => over_api!(resource, clients::run),
        Tool::Upstream(resource) => over_api!(resource, upstreams::run),
        Tool::Policy(resource) => over_api!(resource, policies::run),
        Tool::Session(resource) => over_api!(resource, sessions::run),
        Tool::Token(resource) => over_api!(resource, tokens::run),
        Tool::Key(resource) => over_api!(resource, keys::run),
        Tool::Cluster(Resource { command: cluster::Command::Join(args), api }) => {
            Ok((join::run(&args, api.named_settings()?).await?, api.output))
        }
        Tool::Cluster(resource) => over_api!(resource, cluster::run),
        Tool::Snapshot(Resource { command, api }) => {
            // Boxed: a drill runs a whole node.
            Ok((Box::pin(snapshots::run(&api, command)).await?, api.output))
        }
        Tool::Restore(args) => Box::pin(restore::run(args)).await,
        Tool::Recover(command) => recover::run(command).await,
        Tool::Archive(resource) => over_api!(resource, archive::run),
        Tool::Secret(command) => secret::run(command).await,
        Tool::Config(command) => config::run(command),
        Tool::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            let text = format!("conclave {version}");
            Ok((Output::done(text, serde_json::json!({ "version": version })), output))
        }
        // The doctor has its own exit codes.
        Tool::Doctor(_) => Err(Failure::other("the doctor was asked for a result instead of an exit code")),
    }
}
