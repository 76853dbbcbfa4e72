//! `conclave recover …`: repairs a cluster that cannot recover by itself. It needs the cluster secret; its actions are
//! in the log and in the audit lines.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use conclave_state::user::parse_username;
use serde_json::{Value, json};

use conclave_auth::recovery;
use conclave_base::runtime::Runtime;
use conclave_cluster::offline_state::Survivor;
use conclave_crypto::keys::ClusterKeys;
use conclave_dr::offline::{LogTime, Restore, restore};
use conclave_store::DataDir;

use super::{
    failure::Failure,
    output::{Format, Output},
    restore::{keys, settings, told},
};

const FIELDS: &[&str] = &[
    "restored",
    "from_node",
    "loss",
    "node_id",
    "cluster_id",
    "epoch",
    "index",
    "data_dir",
    "aside",
    "users",
    "sessions_ended",
    "change_count",
    "next",
];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Most nodes are lost for good: found the cluster anew from the data directories that are left
    #[command(after_help = "\
Examples:
  conclave recover from-survivor /var/lib/conclave --lost 1,2 --config conclave.toml --dry-run
  conclave recover from-survivor /var/lib/conclave --lost 1,2 --config conclave.toml
  conclave recover from-survivor /mnt/node2 /mnt/node3 --lost 1 --config conclave.toml
      the one with the longest log is used

Every member must be given, as a survivor or with --lost: a node that is given as neither could come back with a longer log. Writes
that the lost nodes alone had acknowledged are lost. No node may run in these directories.")]
    FromSurvivor(FromSurvivor),
    /// No administrator can sign in: make a link that lets one user in, once, within a quarter of an hour
    #[command(after_help = "\
Examples:
  conclave recover admin --config conclave.toml
  conclave recover admin ada
  conclave recover admin ada --create
      the account is created if it does not exist

The user who opens the link sets a password for that account. The account is enabled and put into the group admins; its sessions and app passwords end. The link is made from the cluster secret alone, so the cluster need not run now, only when the link is
opened. The audit log shows that it was used.")]
    Admin(Admin),
}

#[derive(Debug, clap::Args)]
pub struct Admin {
    /// Username of the account
    #[arg(default_value = "admin")]
    username: String,
    /// Create the account if it does not exist
    #[arg(long)]
    create: bool,
    /// Settings of a node: its cluster secret and its public URL
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct FromSurvivor {
    /// Data directories that are left; copies from other machines may be given too
    #[arg(required = true)]
    survivors: Vec<PathBuf>,
    /// Numbers of the nodes that are lost for good, separated by commas
    #[arg(long, value_name = "NODES", value_delimiter = ',', required = true)]
    lost: Vec<u64>,
    /// Settings of the node that is to start here; the result is written into its data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep sessions: allowed only if most of the nodes are read, so that no revocation can be missing
    #[arg(long)]
    keep_sessions: bool,
    /// Show the result, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// The confirmation for scripts: the words that the command asks for
    #[arg(long, value_name = "WORDS")]
    confirm: Option<String>,
    /// The output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(command: Command) -> Result<(Output, Format), Failure> {
    let args = match command {
        Command::FromSurvivor(args) => args,
        Command::Admin(args) => return Ok((admin(&args)?, args.output)),
    };
    let format = args.output;
    let work = tokio::task::spawn_blocking(move || from_survivor(&args));
    let output = work.await.map_err(|error| Failure::other(error.to_string()))??;
    Ok((output, format))
}

fn admin(args: &Admin) -> Result<Output, Failure> {
    let config = settings(args.config.as_deref())?;
    let keys = keys(&config)?;
    let username = parse_username(&args.username).map_err(|refusal| Failure::usage(refusal.detail))?;
    let public_url = config
        .http
        .public_url()
        .ok_or_else(|| Failure::usage("http.public_url is not set in these settings"))?;
    let link = recovery::make(&keys, &Runtime::system(), &username, args.create)
        .map_err(|error| Failure::other(format!("a link cannot be made: {error}")))?;
    let url = public_url.join(&format!("/recover?link={link}"));
    let value = json!({ "username": username.as_ref(), "url": url });
    Ok(Output::done(format!("open this within a quarter of an hour, once:\n{url}"), value))
}

fn from_survivor(args: &FromSurvivor) -> Result<Output, Failure> {
    let config = settings(args.config.as_deref())?;
    let keys = keys(&config)?;
    let survivors = read(&args.survivors, &keys)?;
    let newest = most_advanced(&survivors)?;
    let members = newest.known.members();
    account_for_all(&members, &survivors, &args.lost)?;
    let read_most = newest.known.is_quorum(&survivors.iter().map(|survivor| survivor.node).collect());
    if args.keep_sessions && !read_most {
        return Err(Failure::usage(format!(
            "{} of {} nodes are read, which is not a majority of the voters: a lost node may have revoked a session \
             that these still have; omit --keep-sessions",
            survivors.len(),
            members.len()
        )));
    }
    if !args.dry_run {
        confirmed(args, newest, read_most)?;
    }
    let request = Restore {
        older: newest.known.clone(),
        newest: newest.known.clone(),
        data_dir: config.node.data_dir.clone(),
        cluster_addr: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        keep_sessions: args.keep_sessions,
        enable_returning: false,
        set_aside: true,
        dry_run: args.dry_run,
        log_time: LogTime::Keep,
    };
    let done = restore(request, &keys, &Runtime::system()).map_err(|e| Failure::other(e.to_string()))?;
    Ok(with_loss(told(&config, args.config.as_deref(), &done, args.dry_run), newest, read_most))
}

fn read(paths: &[PathBuf], keys: &ClusterKeys) -> Result<Vec<Survivor>, Failure> {
    let one = |path: &PathBuf| {
        if DataDir::is_fresh(path) {
            return Err(Failure::usage(format!("{}: contains no data of a node", path.display())));
        }
        // Closed again before anything is written: the result may be written into one of them.
        let data = DataDir::open(path).map_err(|e| Failure::other(e.to_string()))?;
        Survivor::read(&data, keys).map_err(|e| Failure::other(format!("{}: {e}", path.display())))
    };
    let survivors = paths.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    match survivors.iter().find(|survivor| !seen.insert(survivor.node)) {
        // A directory that is counted twice could be taken for a majority.
        Some(twice) => {
            Err(Failure::usage(format!("the data of node {} is given twice; give it once", twice.node)))
        }
        None => Ok(survivors),
    }
}

/// Selects by the rule of elections: the later term, then the longer log (Raft §5.4.1).
fn most_advanced(survivors: &[Survivor]) -> Result<&Survivor, Failure> {
    let Some(newest) = survivors.iter().max_by_key(|survivor| survivor.known.last) else {
        return Err(Failure::usage("give at least one data directory that is left"));
    };
    match survivors.iter().find(|survivor| survivor.known.lineage != newest.known.lineage) {
        None => Ok(newest),
        Some(other) => Err(Failure::usage(format!(
            "the data directories of node {} and node {} belong to different clusters or lineages",
            newest.node, other.node
        ))),
    }
}

fn account_for_all(
    members: &[(u64, conclave_cluster::types::Member)],
    survivors: &[Survivor],
    lost: &[u64],
) -> Result<(), Failure> {
    for (id, _) in members {
        let survives = survivors.iter().any(|survivor| survivor.node == *id);
        match (survives, lost.contains(id)) {
            (true, true) => {
                return Err(Failure::usage(format!(
                    "node {id} is given as lost, but its data directory is given as well"
                )));
            }
            (false, false) => {
                return Err(Failure::usage(format!(
                    "node {id} is a member, and is given neither as survivor nor as lost: give its data directory, or --lost {id}"
                )));
            }
            _ => {}
        }
    }
    match lost.iter().find(|id| members.iter().all(|(member, _)| member != *id)) {
        Some(id) => Err(Failure::usage(format!("node {id} is not a member of this cluster"))),
        None => Ok(()),
    }
}

/// Asks for confirmation. The words name the lost nodes, so that an operator does not type them by habit.
fn confirmed(args: &FromSurvivor, newest: &Survivor, read_most: bool) -> Result<(), Failure> {
    let mut lost = args.lost.clone();
    lost.sort_unstable();
    let words = format!("lost {}", lost.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
    let given = match &args.confirm {
        Some(given) => given.clone(),
        None if std::io::stdin().is_terminal() => ask(&words, newest, read_most)?,
        None => String::new(),
    };
    if given.trim() == words {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "nothing was written; to go on, confirm with the words: {words} (--confirm {words:?})"
    )))
}

fn ask(words: &str, newest: &Survivor, read_most: bool) -> Result<String, Failure> {
    let failed = |e: std::io::Error| Failure::other(format!("cannot ask: {e}"));
    let mut err = std::io::stderr();
    writeln!(
        err,
        "{}\nThe lost nodes must never be started again. Type the words to go on: {words}",
        loss(newest, read_most)
    )
    .map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(line)
}

fn loss(newest: &Survivor, read_most: bool) -> String {
    let index = newest.known.last.map_or(0, |last| last.index);
    let committed = newest.committed.map_or(0, |last| last.index);
    let tail = index.saturating_sub(committed);
    let taken = format!(
        "Node {} has the longest log: up to entry {index}. It did not know the last {tail} to be committed; they are taken as committed.",
        newest.node
    );
    if read_most {
        format!("{taken} Most nodes were read: nothing that was acknowledged is lost.")
    } else {
        format!("{taken} Writes acknowledged after that by the lost nodes alone are lost.")
    }
}

fn with_loss(output: Output, newest: &Survivor, read_most: bool) -> Output {
    let add = |value: Value| super::output::with(value, "loss", loss(newest, read_most));
    let from = |value: Value| super::output::with(value, "from_node", newest.node);
    match output {
        Output::One { value, .. } => Output::One { fields: FIELDS, value: add(from(value)) },
        Output::Nested { value, list, columns, .. } => {
            Output::Nested { fields: FIELDS, value: add(from(value)), list, columns }
        }
        other => other,
    }
}
