//! `conclave app …`

use conclave_client::{Client, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const FIELDS: &[&str] =
    &["id", "slug", "name", "launch_url", "hosts", "everyone", "groups", "serve_known_for_ms"];
const COLUMNS: &[&str] = &["slug", "name", "hosts", "everyone", "groups", "launch_url"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an application
    #[command(after_help = "\
Examples:
  conclave app create wiki --name Wiki --host wiki.example.org --group staff
  conclave app create status --host status.example.org --everyone --launch-url https://status.example.org/

Without --everyone and --group nobody may open it.")]
    Create {
        /// a-z, 0-9, '-', '_', '.'
        slug: String,
        /// For people [default: the slug]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        rule: Rule,
    },
    /// List applications
    #[command(after_help = "Examples:\n  conclave app list\n  conclave app list -o json")]
    List,
    /// Show an application
    #[command(after_help = "Examples:\n  conclave app show wiki")]
    Show {
        /// Slug or id
        application: String,
    },
    /// Change an application; what is not named stays
    #[command(after_help = "\
Examples:
  conclave app update wiki --host wiki.example.org --host wiki.internal
      the hosts together replace those before
  conclave app update wiki --group staff --group guests
  conclave app update wiki --serve-known-for 10m
      stays open for ten minutes when this node is cut off from the cluster
  conclave app update wiki --nobody")]
    Update {
        /// Slug or id
        application: String,
        #[arg(long)]
        name: Option<String>,
        /// Take the access rule back: nobody may open it
        #[arg(long, conflicts_with_all = ["everyone", "groups"])]
        nobody: bool,
        #[command(flatten)]
        rule: Rule,
    },
    /// Delete an application that no client belongs to
    #[command(after_help = "Examples:\n  conclave app delete wiki")]
    Delete {
        /// Slug or id
        application: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Rule {
    /// Where people open it
    #[arg(long, value_name = "URL")]
    launch_url: Option<String>,
    /// Host that forward-auth protects, without port; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Everybody who can sign in may open it
    #[arg(long)]
    everyone: bool,
    /// Members of this group may open it; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// While the cluster is out of reach, let sessions in that were good at the last confirmation, for at most so long after it, such
    /// as 10m; revocations since then are not seen. 0s: not at all [default for a new application]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    serve_known_for: Option<std::time::Duration>,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::config::parse_duration(text)
        .ok_or_else(|| format!("{text:?} is not a duration; write for example 90s, 10m or 1h"))
}

impl Rule {
    fn serve_known_for_ms(&self) -> Option<u64> {
        self.serve_known_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

pub async fn run(client: &Client, command: Command) -> Result<Output, Failure> {
    let applications = client.applications();
    match command {
        Command::Create { slug, name, rule } => {
            let order = v1::CreateApplicationRequest {
                serve_known_for_ms: rule.serve_known_for_ms().unwrap_or(0),
                name: name.unwrap_or_else(|| slug.clone()),
                slug,
                launch_url: rule.launch_url.unwrap_or_default(),
                hosts: rule.hosts,
                everyone: rule.everyone,
                groups: rule.groups,
            };
            Ok(one(&applications.create(order).await?))
        }
        Command::List => list(client).await,
        Command::Show { application } => {
            Ok(one(&applications.get(v1::GetApplicationRequest { application }).await?))
        }
        Command::Update { application, name, nobody, rule } => {
            Ok(one(&applications.update(changes(application, name, nobody, rule)).await?))
        }
        Command::Delete { application } => {
            applications.delete(v1::DeleteApplicationRequest { application: application.clone() }).await?;
            Ok(Output::done(
                format!("application {application} is deleted"),
                json!({ "deleted": application }),
            ))
        }
    }
}

fn changes(
    application: String,
    name: Option<String>,
    nobody: bool,
    rule: Rule,
) -> v1::UpdateApplicationRequest {
    let new_rule = nobody || rule.everyone || !rule.groups.is_empty();
    v1::UpdateApplicationRequest {
        application,
        name,
        serve_known_for_ms: rule.serve_known_for_ms(),
        launch_url: rule.launch_url,
        hosts: (!rule.hosts.is_empty()).then_some(v1::HostList { hosts: rule.hosts }),
        access: new_rule.then_some(v1::AccessRule { everyone: rule.everyone, groups: rule.groups }),
    }
}

async fn list(client: &Client) -> Result<Output, Failure> {
    let mut applications = all_pages(async |page| {
        let answer = client.applications().list(v1::ListApplicationsRequest { page: Some(page) }).await?;
        Ok((answer.applications, answer.next_page_token))
    })
    .await?;
    applications.sort_by(|a, b| a.slug.cmp(&b.slug));
    Ok(Output::Many { columns: COLUMNS, rows: applications.iter().map(value).collect() })
}

fn one(application: &v1::Application) -> Output {
    Output::One { fields: FIELDS, value: value(application) }
}

fn value(application: &v1::Application) -> Value {
    json!({
        "id": application.id,
        "slug": application.slug,
        "name": application.name,
        "launch_url": application.launch_url,
        "hosts": application.hosts,
        "everyone": application.everyone,
        "groups": application.groups,
        "serve_known_for_ms": application.serve_known_for_ms,
    })
}
