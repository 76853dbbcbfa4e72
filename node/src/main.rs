//! `conclave`: parses the command line, runs the command, and exits with its code.

use std::process::ExitCode;

use clap::Parser as _;
use conclave_base::runtime::Runtime;
use conclave_node::{
    cli::{self, Cli, Command},
    demo, serve,
};

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => {
            let options =
                serve::ServeOptions { config: args.config, exit_with_parent: args.exit_with_parent };
            ended(serve::run(options).await.map_err(Into::into))
        }
        Command::Demo(args) => {
            let options = demo::DemoOptions {
                nodes: args.nodes,
                base_port: args.base_port,
                data: args.data,
                admin_password: args.admin_password,
                json: args.json,
                restart: args.restart,
            };
            ended(demo::run(options, Runtime::system()).await)
        }
        Command::Tool(tool) => cli::run(tool).await,
    }
}

/// Prints the reason on standard error, whatever the log settings are.
fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclave: {error:#}");
            ExitCode::FAILURE
        }
    }
}
