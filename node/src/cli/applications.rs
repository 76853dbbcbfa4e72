//! `conclave app …`

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const FIELDS: &[&str] = &[
    "id",
    "slug",
    "name",
    "launch_url",
    "hosts",
    "everyone",
    "groups",
    "serve_known_for_ms",
    "check",
    "headers_profile",
    "headers_text",
];
const COLUMNS: &[&str] = &["slug", "name", "hosts", "everyone", "groups", "launch_url"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an application
    #[command(after_help = "\
Examples:
  conclave app create wiki --name Wiki --host wiki.example.org --group staff
  conclave app create status --host status.example.org --everyone --launch-url https://status.example.org/

Without --everyone and --group no user may open it.")]
    Create {
        /// a-z, 0-9, '-', '_', '.'
        slug: String,
        /// The name for display [default: the slug]
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
    /// Change an application; options that are not given stay unchanged
    #[command(after_help = "\
Examples:
  conclave app update wiki --host wiki.example.org --host wiki.internal
      the given hosts together replace the earlier ones
  conclave app update wiki --group staff --group guests
  conclave app update wiki --serve-known-for 10m
      stays available for ten minutes when this node is cut off from the cluster
  conclave app update wiki --basic on --bearer on
      programs may use app passwords and access tokens
  conclave app update wiki --headers-profile authentik
      X-authentik-* instead of Remote-*
  conclave app update wiki --nobody")]
    Update {
        /// Slug or id
        application: String,
        /// The name that pages show
        #[arg(long)]
        name: Option<String>,
        /// Remove the access rule: no user may open the application
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
    /// The URL at which users open it
    #[arg(long, value_name = "URL")]
    launch_url: Option<String>,
    /// A host that forward-auth protects, without port: a name, an address ([2001:db8::7]), or *.example.org for every
    /// host below it; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Every user who can sign in may open it
    #[arg(long)]
    everyone: bool,
    /// Members of this group may open it; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// While the cluster cannot be reached, admit sessions that were valid at the last confirmation, for at most this
    /// long after it, such as 10m; revocations since then are not seen. 0s: not at all [default for a new application]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    serve_known_for: Option<std::time::Duration>,
    /// Accept access tokens of the cluster whose audience is the application's origin (https://wiki.example.org)
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    bearer: Option<bool>,
    /// Accept app passwords by HTTP Basic
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    basic: Option<bool>,
    /// Send a signed assertion with each admitted request, in X-Conclave-Assertion (and X-authentik-jwt, with that
    /// profile)
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    assertion: Option<bool>,
    /// The identity headers that the application reads: Remote-*, X-authentik-*, X-Auth-Request-*, or all three; the
    /// others are sent empty [default for a new application: remote]
    #[arg(long, value_name = "PROFILE", value_parser = ["remote", "authentik", "auth-request", "all"])]
    headers_profile: Option<String>,
    /// The encoding of names outside ASCII in identity headers: as UTF-8, percent-encoded, or omitted [default for a
    /// new application: raw]
    #[arg(long, value_name = "FORM", value_parser = ["raw", "percent", "omit"])]
    headers_text: Option<String>,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".into()),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    conclave_config::parse_duration(text)
        .ok_or_else(|| format!("{text:?} is not a duration; write for example 90s, 10m or 1h"))
}

impl Rule {
    /// Applies the options that are given; `None` if there are none.
    fn check(&self, before: v1::CheckRules) -> Option<v1::CheckRules> {
        let after = v1::CheckRules {
            bearer: self.bearer.unwrap_or(before.bearer),
            basic: self.basic.unwrap_or(before.basic),
            assertion: self.assertion.unwrap_or(before.assertion),
        };
        [self.bearer, self.basic, self.assertion].iter().any(Option::is_some).then_some(after)
    }

    fn serve_known_for_ms(&self) -> Option<u64> {
        self.serve_known_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    let applications = client.applications();
    match command {
        Command::Create { slug, name, rule } => {
            let request = v1::CreateApplicationRequest {
                serve_known_for_ms: rule.serve_known_for_ms().unwrap_or(0),
                check: rule.check(v1::CheckRules::default()),
                name: name.unwrap_or_else(|| slug.clone()),
                slug,
                launch_url: rule.launch_url.unwrap_or_default(),
                hosts: rule.hosts,
                everyone: rule.everyone,
                groups: rule.groups,
                header_profile: rule.headers_profile.unwrap_or_default(),
                header_text: rule.headers_text.unwrap_or_default(),
            };
            Ok(one(&applications.create(request).await?))
        }
        Command::List => list(client).await,
        Command::Show { application } => {
            Ok(one(&applications.get(v1::GetApplicationRequest { application }).await?))
        }
        Command::Update { application, name, nobody, rule } => {
            let before = v1::GetApplicationRequest { application: application.clone() };
            let before = applications.get(before).await?.check.unwrap_or_default();
            let request = v1::UpdateApplicationRequest {
                check: rule.check(before),
                ..changes(application, name, nobody, rule)
            };
            Ok(one(&applications.update(request).await?))
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
        check: None,
        header_profile: rule.headers_profile,
        header_text: rule.headers_text,
        access: new_rule.then_some(v1::AccessRule { everyone: rule.everyone, groups: rule.groups }),
    }
}

async fn list(client: &AdminClient) -> Result<Output, Failure> {
    let mut applications = all_pages(async |page| {
        let answer = client.applications().list(v1::ListApplicationsRequest { page: Some(page) }).await?;
        Ok((answer.applications, answer.next_page_token))
    })
    .await?;
    applications.sort_by(|a, b| a.slug.cmp(&b.slug));
    Ok(Output::Many { columns: COLUMNS, rows: applications.iter().map(value).collect() })
}

fn check(rules: v1::CheckRules) -> Vec<&'static str> {
    let named = [(rules.bearer, "bearer"), (rules.basic, "basic"), (rules.assertion, "assertion")];
    named.into_iter().filter_map(|(is_on, name)| is_on.then_some(name)).collect()
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
        "check": check(application.check.unwrap_or_default()),
        "headers_profile": application.header_profile,
        "headers_text": application.header_text,
    })
}
