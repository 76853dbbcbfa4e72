//! `conclave-chaos`: histories from seeds, judged by the oracle. Exit code 1 when a promise was broken.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conclave_chaos::{
    model::{BOUNDS, Bug, Outcome, WIDE_BOUNDS, search},
    report,
    sim::mutation::Mutation,
};

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
    /// The serve leases in every order of events within bounds
    Model {
        /// Search further: minutes, and some gigabytes of memory
        #[arg(long)]
        wide: bool,
        /// Most worlds to visit for each of the bounds
        #[arg(long, default_value_t = 50_000_000)]
        limit: u64,
        /// Print JSON in place of a table
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Args::parse().mode {
        Mode::Sim { seeds, seed, json, mutate } => sim(seeds, seed, json, mutate),
        Mode::Model { wide, limit, json } => check_model(wide, limit, json),
    }
}

/// Each of the bounds, a line as it is done.
fn check_model(wide: bool, limit: u64, json: bool) -> ExitCode {
    let further = if wide { WIDE_BOUNDS } else { &[] };
    let mut broken = false;
    for (name, bounds) in BOUNDS.iter().chain(further) {
        let outcome = search(bounds, Bug::None, limit);
        broken |= matches!(outcome, Outcome::Broken { .. });
        let (result, worlds, steps) = match &outcome {
            Outcome::Holds { worlds } => ("holds", *worlds, Vec::new()),
            Outcome::Unfinished { worlds } => ("unfinished", *worlds, Vec::new()),
            Outcome::Broken { steps } => ("BROKEN", 0, steps.clone()),
        };
        if json {
            let line =
                serde_json::json!({ "bounds": name, "result": result, "worlds": worlds, "steps": steps });
            println!("{line}");
        } else {
            println!("{name:<42}{worlds:>12} worlds  {result}  {}", steps.join(" > "));
        }
    }
    ExitCode::from(u8::from(broken))
}

fn sim(seeds: u64, seed: u64, json: bool, mutate: Mutation) -> ExitCode {
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
