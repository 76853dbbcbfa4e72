//! `conclave policy …`: access conditions of an application, which can be tested before they take effect.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf};

use conclave_client::{AdminClient, Error, all_pages, v1};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{decisions, failure::Failure, output::Output};
use conclave_auth::policy::document::{Document, MAX_DOCUMENT_BYTES};

const VERDICT: &[&str] = &["user", "allowed", "row", "why"];
const REPORT: &[&str] =
    &["application", "version", "nodes", "seen", "would_deny", "would_allow", "faults", "unreachable_nodes"];
const REPLAY: &[&str] =
    &["application", "version", "nodes", "looked_at", "would_deny", "would_allow", "unreachable_nodes"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Set the policy of an application; it takes effect at once, on every node
    #[command(after_help = "\
Examples:
  conclave policy set wiki wiki.toml
  cat wiki.json | conclave policy set wiki -

The file is TOML or JSON; docs/policy.md describes it. For example:
  [[row]]
  effect = \"deny\"
  everyone = true
  unless = { network = [\"10.0.0.0/8\"] }

  [[row]]
  effect = \"allow\"
  group = \"staff\"")]
    Set(Setting),
    /// Show the policy of an application, and its candidate
    #[command(after_help = "Examples:\n  conclave policy show wiki\n  conclave policy show wiki -o json")]
    Show {
        /// Slug or id of the application
        application: String,
    },
    /// Remove the policy: the access rule of the application applies again
    #[command(after_help = "Examples:\n  conclave policy remove wiki")]
    Remove {
        /// Slug or id of the application
        application: String,
    },
    /// Show which users could open an application, and why
    #[command(after_help = "\
Examples:
  conclave policy test wiki
      all users, without an address, now
  conclave policy test wiki --user ada --address 203.0.113.9 --path /admin/ --at 2026-12-24T20:00:00Z
  conclave policy test wiki --user ada --amr otp --candidate -o json")]
    Test(Testing),
    /// Explain why a user was allowed or denied: the decision id is on the page that they saw
    #[command(after_help = "Examples:\n  conclave policy explain 1-9f86d081884c7d65")]
    Explain {
        /// The decision's id; it names the node that knows it
        decision: String,
    },
    /// List recent decisions of all nodes, the latest first: every denial, and a sample of the allowed requests
    #[command(after_help = "\
Examples:
  conclave policy decisions --user ada
  conclave policy decisions --app wiki --denied -o json

Nodes keep decisions in memory: up to 512 denials for each application, and none from before the node started.")]
    Decisions(decisions::Listing),
    /// Show the changes that the candidate would make to live traffic, on all nodes together
    #[command(after_help = "Examples:\n  conclave policy shadow wiki\n  conclave policy shadow wiki -o json")]
    Shadow {
        /// Slug or id of the application
        application: String,
    },
    /// Apply the candidate to the decisions that all nodes recorded
    #[command(after_help = "Examples:\n  conclave policy replay wiki\n  conclave policy replay wiki -o json")]
    Replay {
        /// Slug or id of the application
        application: String,
    },
    /// Manage a policy that is only watched
    #[command(
        subcommand,
        after_help = "Examples:\n  conclave policy candidate set wiki next.toml\n  conclave policy candidate promote wiki"
    )]
    Candidate(Candidate),
}

#[derive(Debug, clap::Subcommand)]
pub enum Candidate {
    /// Watch a policy on live traffic; it decides nothing
    #[command(after_help = "Examples:\n  conclave policy candidate set wiki next.toml")]
    Set {
        /// Slug or id of the application
        application: String,
        /// A TOML or JSON file; - for standard input
        file: PathBuf,
    },
    /// Make the candidate the policy
    #[command(after_help = "\
Examples:
  conclave policy candidate promote wiki
  conclave policy candidate promote wiki --watched 1234
      only if that is the version that was watched")]
    Promote {
        /// Slug or id of the application
        application: String,
        /// The version that was watched [default: the current one]
        #[arg(long, value_name = "VERSION")]
        watched: Option<u64>,
        /// Promote it even if it admits no user, or no administrator
        #[arg(long)]
        force: bool,
    },
    /// Discard the candidate
    #[command(after_help = "Examples:\n  conclave policy candidate remove wiki")]
    Remove {
        /// Slug or id of the application
        application: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Setting {
    /// Slug or id of the application
    application: String,
    /// A TOML or JSON file; - for standard input
    file: PathBuf,
    /// Set it even if it admits no user, or no administrator
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct Testing {
    /// Slug or id of the application
    application: String,
    /// Username or id [default: all users]
    #[arg(long)]
    user: Option<String>,
    /// The client's address
    #[arg(long)]
    address: Option<String>,
    /// The request's method [default: GET, when a path or host is given]
    #[arg(long)]
    method: Option<String>,
    /// The request's host
    #[arg(long)]
    host: Option<String>,
    /// The request's path [default: none, as for OIDC]
    #[arg(long)]
    path: Option<String>,
    /// The time of the request, such as 2026-12-24T20:00:00Z [default: now]
    #[arg(long, value_parser = moment)]
    at: Option<u64>,
    /// The authentication method of the user (RFC 8176); may be given several times [default: pwd]
    #[arg(long = "amr", value_name = "METHOD")]
    methods: Vec<String>,
    /// Test the candidate
    #[arg(long)]
    candidate: bool,
}

/// Parses a time (RFC 3339) into Unix milliseconds.
pub(super) fn moment(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a time; write for example 2026-12-24T20:00:00Z");
    let seconds = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?.unix_timestamp();
    u64::try_from(seconds).map_err(|_| bad())?.checked_mul(1_000).ok_or_else(bad)
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Set(Setting { application, file, force }) => {
            set(client, application, &file, false, force).await
        }
        Command::Show { application } => show(client, application).await,
        Command::Remove { application } => remove(client, application, false).await,
        Command::Test(testing) => test(client, testing).await,
        Command::Explain { decision } => decisions::explain(client, decision).await,
        Command::Decisions(listing) => decisions::list(client, listing).await,
        Command::Shadow { application } => shadow(client, application).await,
        Command::Replay { application } => replay(client, application).await,
        Command::Candidate(Candidate::Set { application, file }) => {
            set(client, application, &file, true, false).await
        }
        Command::Candidate(Candidate::Promote { application, watched, force }) => {
            promote(client, application, watched, force).await
        }
        Command::Candidate(Candidate::Remove { application }) => remove(client, application, true).await,
    }
}

async fn set(
    client: &AdminClient,
    application: String,
    file: &std::path::Path,
    candidate: bool,
    force: bool,
) -> Result<Output, Failure> {
    let document = document(file)?;
    let request = v1::SetPolicyRequest { application, document, candidate, force };
    let answer = client.policies().set(request).await.map_err(or_force)?;
    let (what, version) =
        if candidate { ("candidate", answer.candidate_version) } else { ("policy", answer.version) };
    let text = format!("the {what} of {} is version {version}", answer.application);
    Ok(Output::done(text, json!({ "application": answer.application, "version": version })))
}

/// Adds the remedies to a refusal of a policy that locks users out.
fn or_force(error: Error) -> Failure {
    match error {
        Error::Refused(text) if text.contains("admit") => Failure::from(Error::Refused(format!(
            "{text}. Rows with a network, a time, a path or an expression may not match; put a row such as [[row]] effect = \"allow\" group = \"admins\" before the first of them, or repeat the command with --force"
        ))),
        error => error.into(),
    }
}

/// Reads a document as JSON, whether it is TOML or JSON. Mistakes are reported before anything is sent.
fn document(file: &std::path::Path) -> Result<String, Failure> {
    let bad = |why: String| Failure::usage(format!("{}: {why}", file.display()));
    let mut text = String::new();
    let most = MAX_DOCUMENT_BYTES as u64 + 1;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.map_err(|error| bad(error.to_string()))?;
    let is_json = text.trim_start().starts_with('{');
    let document = if is_json { Document::from_json(&text) } else { Document::from_toml(&text) };
    serde_json::to_string(&document.map_err(bad)?).map_err(|error| Failure::other(error.to_string()))
}

async fn show(client: &AdminClient, application: String) -> Result<Output, Failure> {
    let policy = client.policies().get(v1::GetPolicyRequest { application }).await?;
    let value = json!({
        "application": policy.application,
        "version": policy.version,
        "policy": parsed(&policy.document),
        "candidate_version": policy.candidate_version,
        "candidate": parsed(&policy.candidate_document),
    });
    let text = serde_json::to_string_pretty(&value).map_err(|error| Failure::other(error.to_string()))?;
    Ok(Output::done(text, value))
}

fn parsed(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or(Value::Null)
}

async fn remove(client: &AdminClient, application: String, candidate: bool) -> Result<Output, Failure> {
    let request = v1::RemovePolicyRequest { application: application.clone(), candidate };
    client.policies().remove(request).await?;
    let text = if candidate {
        format!("the candidate of {application} is removed")
    } else {
        format!("the policy of {application} is removed; its access rule applies")
    };
    Ok(Output::done(text, json!({ "removed": application, "candidate": candidate })))
}

async fn promote(
    client: &AdminClient,
    application: String,
    version: Option<u64>,
    force: bool,
) -> Result<Output, Failure> {
    let version = match version {
        Some(version) => version,
        None => {
            let get = v1::GetPolicyRequest { application: application.clone() };
            client.policies().get(get).await?.candidate_version
        }
    };
    let request = v1::PromoteCandidateRequest { application, version, force };
    let answer = client.policies().promote(request).await.map_err(or_force)?;
    let text =
        format!("the candidate is now the policy of {}, version {}", answer.application, answer.version);
    Ok(Output::done(text, json!({ "application": answer.application, "version": answer.version })))
}

async fn test(client: &AdminClient, testing: Testing) -> Result<Output, Failure> {
    let whole = testing.user.is_none();
    let request = v1::TestPolicyRequest {
        application: testing.application,
        user: testing.user.unwrap_or_default(),
        address: testing.address.unwrap_or_default(),
        method: testing.method.unwrap_or_default(),
        host: testing.host.unwrap_or_default(),
        path: testing.path.unwrap_or_default(),
        at_ms: testing.at.unwrap_or(0),
        methods: testing.methods,
        candidate: testing.candidate,
        page: None,
    };
    if whole {
        let verdicts = all_pages(async |page| {
            let request = v1::TestPolicyRequest { page: Some(page), ..request.clone() };
            let answer = client.policies().test(request).await?;
            Ok((answer.verdicts, answer.next_page_token))
        })
        .await?;
        return Ok(Output::Many { columns: VERDICT, rows: verdicts.iter().map(verdict).collect() });
    }
    let answer = client.policies().test(request).await?;
    let found = answer.verdicts.first().map(verdict).unwrap_or_default();
    Ok(Output::One { fields: &["user", "allowed", "row", "version", "why", "saw"], value: found })
}

pub(super) fn verdict(verdict: &v1::PolicyVerdict) -> Value {
    let saw = verdict.saw.iter().map(|saw| format!("{} = {}", saw.name, saw.value));
    json!({
        "user": verdict.user,
        "allowed": verdict.allowed,
        "row": (verdict.row != 0).then_some(verdict.row),
        "version": (verdict.version != 0).then_some(verdict.version),
        "why": verdict.why,
        "saw": saw.collect::<Vec<_>>(),
    })
}

/// The members, each with a client that contacts only this member.
pub(super) async fn members(client: &AdminClient) -> Result<Vec<(u64, Option<AdminClient>)>, Failure> {
    let status = client.cluster().status(v1::GetStatusRequest {}).await?;
    let members = status.nodes.into_iter();
    Ok(members.map(|node| (node.id, client.at(&node.api_url).ok().filter(|_| node.reachable))).collect())
}

/// The response of each node, and the nodes that could not be reached.
pub(super) async fn everywhere<T>(
    client: &AdminClient,
    ask: impl AsyncFn(AdminClient) -> Result<T, conclave_client::Error>,
) -> Result<(Vec<T>, Vec<u64>), Failure> {
    let (mut answers, mut missing) = (Vec::new(), Vec::new());
    for (node, there) in members(client).await? {
        match there {
            Some(there) => answers.push(ask(there).await?),
            None => missing.push(node),
        }
    }
    Ok((answers, missing))
}

async fn shadow(client: &AdminClient, application: String) -> Result<Output, Failure> {
    let (reports, missing) = everywhere(client, async |there| {
        there.policies().shadow(v1::GetShadowReportRequest { application: application.clone() }).await
    })
    .await?;
    let sum = |of: fn(&v1::ShadowReport) -> u64| reports.iter().map(of).sum::<u64>();
    let mut differences: BTreeMap<(String, bool, u32), (v1::PolicyVerdict, u64, u64)> = BTreeMap::new();
    for difference in reports.iter().flat_map(|report| &report.differences) {
        let Some(would) = &difference.would else { continue };
        let key = (would.user.clone(), would.allowed, would.row);
        let known = differences.entry(key).or_insert_with(|| (would.clone(), 0, 0));
        known.1 += difference.count;
        known.2 = known.2.max(difference.last_at_ms);
    }
    let differences = differences.into_values().map(|(would, count, last_at_ms)| {
        json!({
            "user": if would.user.is_empty() { "(not signed in)" } else { &would.user },
            "would": if would.allowed { "allow" } else { "deny" },
            "count": count,
            "why": would.why,
            "last_at_ms": last_at_ms,
        })
    });
    let value = json!({
        "application": application,
        "version": reports.iter().map(|report| report.version).max(),
        "nodes": reports.iter().map(|report| report.node_id).collect::<Vec<_>>(),
        "unreachable_nodes": missing,
        "seen": sum(|r| r.seen),
        "would_deny": sum(|r| r.would_deny),
        "would_allow": sum(|r| r.would_allow),
        "faults": sum(|r| r.faults),
        "differences": differences.collect::<Vec<_>>(),
    });
    let columns = &["user", "would", "count", "why", "last_at_ms"];
    Ok(Output::Nested { fields: REPORT, value, list: "differences", columns })
}

async fn replay(client: &AdminClient, application: String) -> Result<Output, Failure> {
    let (answers, missing) = everywhere(client, async |there| {
        there.policies().replay(v1::ReplayCandidateRequest { application: application.clone() }).await
    })
    .await?;
    let changed: Vec<&v1::ReplayedDecision> = answers.iter().flat_map(|answer| &answer.changed).collect();
    let allows = |changed: &&&v1::ReplayedDecision| changed.would.as_ref().is_some_and(|would| would.allowed);
    let would_allow = changed.iter().filter(allows).count();
    let rows = changed.iter().map(|changed| {
        let (decision, would) =
            (changed.decision.clone().unwrap_or_default(), changed.would.clone().unwrap_or_default());
        json!({
            "user": would.user,
            "would": if would.allowed { "allow" } else { "deny" },
            "why": would.why,
            "decision": decision.id,
            "path": decision.path,
            "at_ms": decision.at_ms,
        })
    });
    let value = json!({
        "application": application,
        "version": answers.iter().map(|answer| answer.version).max(),
        "nodes": answers.iter().map(|answer| answer.node_id).collect::<Vec<_>>(),
        "unreachable_nodes": missing,
        "looked_at": answers.iter().map(|answer| answer.looked_at).sum::<u64>(),
        "would_deny": changed.len() - would_allow,
        "would_allow": would_allow,
        "changed": rows.collect::<Vec<_>>(),
    });
    let columns = &["user", "would", "why", "decision", "path", "at_ms"];
    Ok(Output::Nested { fields: REPLAY, value, list: "changed", columns })
}
