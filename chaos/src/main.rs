//! `conclave-chaos`: histories from seeds, judged by the oracle. Exit code 1 when a promise was broken.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conclave_chaos::{report, sim::mutation::Mutation};

#[derive(Parser)]
#[command(version, about = "Random histories with faults, and an oracle that knows what was promised")]
struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Replicas of the rules crate in one thread, in simulated time
    Sim {
        /// How many histories
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first history's seed; the others follow it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON in place of a table
        #[arg(long)]
        json: bool,
        /// A bug to put into the replicas (with the feature "mutations")
        #[arg(long, default_value = "none", value_parser = mutation)]
        mutate: Mutation,
    },
}

fn main() -> ExitCode {
    let Mode::Sim { seeds, seed, json, mutate } = Args::parse().mode;
    let report = report::run(seed, seeds, mutate);
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    ExitCode::from(u8::from(!report.failed.is_empty()))
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let names: Vec<&str> = Mutation::ALL.iter().map(|(name, _)| *name).collect();
    Mutation::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}
