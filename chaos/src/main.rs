//! `conclave-chaos`: histories from seeds, judged by the oracle. Exit code 1 if a promise was broken.

use std::{process::ExitCode, time::Duration};

mod batch;

use clap::{Parser, Subcommand};
use conclave_chaos::{
    live::{self, How, LiveOptions, Scenario},
    model::{BOUNDS, ModelBug, SearchOutcome, WIDE_BOUNDS, search},
    mutation_tests, report,
    rules::mutation::ReplicaMutation,
    sim,
};

#[derive(Parser)]
#[command(version, about = "Random histories with faults, and an oracle that knows the promises")]
struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Three whole nodes in one thread, over a simulated network, disk and clock
    Sim {
        /// Number of histories
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first history's seed; the others follow it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of processes at once [default: the number of processors]
        #[arg(long)]
        jobs: Option<u64>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        /// Run one seed in this process and print a line of JSON
        #[arg(long, hide = true)]
        line: bool,
        /// Run one seed and show the log lines of its nodes, with a filter like RUST_LOG
        #[arg(long, value_name = "FILTER")]
        log: Option<String>,
        /// A bug to inject into the nodes (with the feature "mutations")
        #[arg(long, default_value = "none", value_parser = bug)]
        mutate: sim::SimBug,
        /// storm: faults chosen by the seed; deposed, returned, reborn, power-lost: staged situations [default: storm,
        /// or the one in which the bug must show]
        #[arg(long, value_parser = plan)]
        plan: Option<sim::SimPlan>,
    },
    /// Replicas of the rules crate in one thread, in simulated time
    Rules {
        /// Number of histories
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first history's seed; the others follow it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        /// A bug to inject into the replicas (with the feature "mutations")
        #[arg(long, default_value = "none", value_parser = mutation)]
        mutate: ReplicaMutation,
    },
    /// Three real processes under faults and traffic, judged by the acknowledged operations
    Live {
        /// kill, pause, term, delay, wipe, churn; partition, full-disk and mixed, which need root and iproute2
        #[arg(long, default_value = "kill", value_parser = scenario)]
        scenario: Scenario,
        /// Duration of the faults
        #[arg(long, default_value = "60s", value_parser = seconds)]
        duration: Duration,
        /// Seed for the choice of faults; timing depends on the machine
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The node to run [default: the one beside this program]
        #[arg(long, value_name = "FILE")]
        binary: Option<std::path::PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Measure the time until the next write when the leader fails
    Failover {
        /// kill, freeze, cut, term or heal; cut and heal need root and iproute2
        #[arg(long, default_value = "kill", value_parser = how)]
        how: How,
        #[arg(long, default_value_t = 50)]
        runs: u32,
        /// The node to run [default: the one beside this program]
        #[arg(long, value_name = "FILE")]
        binary: Option<std::path::PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Measure the cost of a revocation compared with a plain write
    Revocation {
        /// Freeze a follower by SIGSTOP during each of them
        #[arg(long)]
        frozen: bool,
        #[arg(long, default_value_t = 50)]
        runs: u32,
        /// The node to run [default: the one beside this program]
        #[arg(long, value_name = "FILE")]
        binary: Option<std::path::PathBuf>,
        /// Print JSON instead of lines
        #[arg(long)]
        json: bool,
    },
    /// A slow link before a node in a network namespace; started by `live`
    #[command(hide = true)]
    Relay { near: String, far: String },
    /// Run every known bug against the checker that must catch it (with the feature "mutations")
    MutationTests,
    /// Check the serve leases in every order of events within bounds
    Model {
        /// Search further: takes minutes, and some gigabytes of memory
        #[arg(long)]
        wide: bool,
        /// Most worlds to visit for each of the bounds; an unfinished search proves nothing
        #[arg(long, default_value_t = 50_000_000)]
        limit: u64,
        /// Only the bounds whose name contains this text
        #[arg(long, default_value = "")]
        only: String,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

/// The node beside this program, as in a release build's own folder.
fn sibling() -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("conclave")
}

fn main() -> ExitCode {
    match Args::parse().mode {
        Mode::Live { scenario, duration, seed, binary, json } => {
            let options = LiveOptions { binary: binary.unwrap_or_else(sibling), duration, seed };
            finish(live(scenario, &options, json))
        }
        Mode::Failover { how, runs, binary, json } => {
            let options =
                LiveOptions { binary: binary.unwrap_or_else(sibling), duration: Duration::ZERO, seed: 0 };
            finish(failover(how, runs, &options, json))
        }
        Mode::Revocation { frozen, runs, binary, json } => {
            let options =
                LiveOptions { binary: binary.unwrap_or_else(sibling), duration: Duration::ZERO, seed: 0 };
            finish(revocation(frozen, runs, &options, json))
        }
        Mode::Relay { near, far } => finish(live::serve_relay(near, far).map(|()| true).map_err(Into::into)),
        Mode::MutationTests => run_mutation_tests(),
        Mode::Sim { seed, mutate, plan, log: Some(filter), .. } => {
            sim::show_log(&filter);
            batch::line(seed, plan.unwrap_or_else(|| mutate.plan()), mutate)
        }
        Mode::Sim { seed, line: true, mutate, plan, .. } => {
            batch::line(seed, plan.unwrap_or_else(|| mutate.plan()), mutate)
        }
        Mode::Sim { seeds, seed, jobs, json, mutate, plan, .. } => {
            let plan = plan.unwrap_or_else(|| mutate.plan());
            finish(batch::run(&batch::Batch { first: seed, seeds, jobs, plan, bug: mutate }, json))
        }
        Mode::Rules { seeds, seed, json, mutate } => rules(seeds, seed, json, mutate),
        Mode::Model { wide, limit, only, json } => check_model(wide, limit, &only, json),
    }
}

/// Fails if a bug survives, or if none is compiled in.
fn run_mutation_tests() -> ExitCode {
    let own = std::env::current_exe().unwrap_or_default();
    let mutants = mutation_tests::run(&own, |mutant| {
        let how = mutant.caught.as_deref().unwrap_or("SURVIVED");
        println!("{:<10}{:<28}{how}", mutant.checker, mutant.bug);
    });
    let survived = mutants.iter().filter(|mutant| mutant.caught.is_none()).count();
    println!("{} bugs, {survived} survived", mutants.len());
    if mutants.is_empty() {
        eprintln!(
            "none is compiled in: cargo run --release -p conclave-chaos --features mutations -- mutation-tests"
        );
    }
    ExitCode::from(u8::from(mutants.is_empty() || survived > 0))
}

fn finish(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(kept) => ExitCode::from(u8::from(!kept)),
        Err(error) => {
            eprintln!("conclave-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if every promise was kept.
fn live(scenario: Scenario, options: &LiveOptions, json: bool) -> anyhow::Result<bool> {
    let findings = tokio::runtime::Runtime::new()?.block_on(live::run(scenario, options))?;
    if json {
        let counts: serde_json::Map<String, serde_json::Value> =
            findings.counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
        let line = serde_json::json!({
            "scenario": scenario.to_string(), "counts": counts,
            "violations": findings.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        println!("{line}");
    } else {
        for (name, count) in &findings.counts {
            println!("{name:<40}{count:>10}");
        }
        for violation in &findings.violations {
            println!("VIOLATION: {violation}");
        }
    }
    Ok(findings.violations.is_empty())
}

/// True if no check accepted a session that had been ended.
fn revocation(frozen: bool, runs: u32, options: &LiveOptions, json: bool) -> anyhow::Result<bool> {
    let costs = tokio::runtime::Runtime::new()?.block_on(live::revocations(frozen, runs, options))?;
    let ms = |times: &[Duration], permille| live::quantile(times, permille).as_secs_f64() * 1_000.0;
    for (name, times) in
        [("first", &costs.first), ("plain write", &costs.writes), ("revocation", &costs.revocations)]
    {
        let (p50, p99, most) = (ms(times, 500), ms(times, 990), ms(times, 1_000));
        if json {
            let line = serde_json::json!({
                "what": name, "runs": times.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": most, "stale": costs.stale,
            });
            println!("{line}");
        } else {
            println!(
                "{name:<12} {} runs: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms",
                times.len()
            );
        }
    }
    if !json {
        println!("accepted after the acknowledgement: {}", costs.stale);
    }
    Ok(costs.stale == 0)
}

/// Always true: times are reported, not judged.
fn failover(how: How, runs: u32, options: &LiveOptions, json: bool) -> anyhow::Result<bool> {
    let times = tokio::runtime::Runtime::new()?.block_on(live::measure(how, runs, options))?;
    let ms = |permille| live::quantile(&times.writes, permille).as_secs_f64() * 1_000.0;
    let (p50, p90, p99, most) = (ms(500), ms(900), ms(990), ms(1_000));
    if json {
        let line = serde_json::json!({
            "runs": times.writes.len(), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": most,
            "writes_failed": times.writes_failed,
            "checks": times.checks, "checks_failed": times.checks_failed,
            "logins": times.logins, "logins_failed": times.logins_failed,
        });
        println!("{line}");
    } else {
        println!(
            "{} runs: p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms",
            times.writes.len()
        );
        println!("writes failed after the end of a partition: {}", times.writes_failed);
        println!(
            "forward-auth checks at survivors meanwhile: {}, failed {}",
            times.checks, times.checks_failed
        );
        println!("logins at survivors meanwhile: {}, failed {}", times.logins, times.logins_failed);
    }
    Ok(true)
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let names: Vec<&str> = Scenario::ALL.iter().map(|(name, _)| *name).collect();
    Scenario::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}

fn how(name: &str) -> Result<How, String> {
    let names: Vec<&str> = How::ALL.iter().map(|(name, _)| *name).collect();
    How::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u32 =
        number.parse().map_err(|_| format!("{text:?} is not a duration; write for example 60s or 10m"))?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

/// Checks each of the bounds and prints a line for it. Fails if a promise is broken, and also if a search was not
/// finished or no bounds were selected: only a complete search proves anything.
fn check_model(wide: bool, limit: u64, only: &str, json: bool) -> ExitCode {
    let further = if wide { WIDE_BOUNDS } else { &[] };
    let (mut total, mut shown, mut searched) = (0, true, false);
    for (name, bounds) in BOUNDS.iter().chain(further).filter(|(name, _)| name.contains(only)) {
        let outcome = search(bounds, ModelBug::None, limit);
        searched = true;
        shown &= matches!(outcome, SearchOutcome::Holds { .. });
        let (result, worlds, steps) = match &outcome {
            SearchOutcome::Holds { worlds } => ("holds", *worlds, Vec::new()),
            SearchOutcome::Unfinished { worlds } => ("unfinished", *worlds, Vec::new()),
            SearchOutcome::Broken { steps } => ("BROKEN", 0, steps.clone()),
        };
        if json {
            let line =
                serde_json::json!({ "bounds": name, "result": result, "worlds": worlds, "steps": steps });
            println!("{line}");
        } else {
            println!("{name:<42}{worlds:>12} worlds  {result}  {}", steps.join(" > "));
        }
        total += worlds;
    }
    if !json {
        println!("{:<42}{total:>12} worlds", "together");
    }
    ExitCode::from(u8::from(!(shown && searched)))
}

fn rules(seeds: u64, seed: u64, json: bool, mutate: ReplicaMutation) -> ExitCode {
    let report = report::run(seed, seeds, mutate);
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    ExitCode::from(u8::from(!report.failed.is_empty()))
}

fn bug(name: &str) -> Result<sim::SimBug, String> {
    let names: Vec<&str> = sim::SimBug::ALL.iter().map(|(name, _)| *name).collect();
    sim::SimBug::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}

fn plan(name: &str) -> Result<sim::SimPlan, String> {
    let names: Vec<&str> = sim::SimPlan::ALL.iter().map(|(name, _)| *name).collect();
    sim::SimPlan::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}

fn mutation(name: &str) -> Result<ReplicaMutation, String> {
    let names: Vec<&str> = ReplicaMutation::ALL.iter().map(|(name, _)| *name).collect();
    ReplicaMutation::named(name).ok_or_else(|| format!("choose one of: {}", names.join(", ")))
}
