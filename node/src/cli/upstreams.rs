//! `conclave upstream …`

use std::time::Duration;

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, open_names, output::Output, password, tokens::duration};

const FIELDS: &[&str] = &[
    "name",
    "display_name",
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "client_id",
    "has_client_secret",
    "scopes",
    "claims",
    "atmosphere",
    "admit",
    "domains",
    "dids",
    "handles",
    "mapped",
    "groups",
    "first_group",
    "first_url",
    "disabled",
    "redirect_uri",
    "identity_count",
];
const COLUMNS: &[&str] = &["name", "display_name", "issuer", "admit", "groups", "disabled", "identity_count"];
const IDENTITY_COLUMNS: &[&str] =
    &["upstream", "subject", "label", "linked_at_ms", "admitted_by", "held_out"];
const INVITATION_COLUMNS: &[&str] = &["id", "upstream", "who", "groups", "expires_at_ms"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a provider, and print the redirect URI to register there
    #[command(after_help = "\
Examples:
  pass show google | conclave upstream add google --issuer https://accounts.google.com --client-id 123.apps --secret-stdin
  conclave upstream add corp --display-name Corp --issuer https://login.corp.test --client-id us --admit domains --domain corp.test
  conclave upstream add atmosphere --atmosphere --admit listed --handle '*.corp.test' --did did:plc:abc --group users
  conclave upstream add atmosphere --atmosphere --first-into admins
      prints a link; the first user who signs in by it with Atmosphere becomes an administrator
  conclave upstream add hub --client-id us --authorization-endpoint https://hub.test/auth --token-endpoint https://hub.test/token --userinfo-endpoint https://hub.test/user --claim subject=id

Without --admit only users who linked their account from their home page can sign in there.")]
    Add(Box<Add>),
    /// List providers
    #[command(after_help = "Examples:\n  conclave upstream list\n  conclave upstream list -o json")]
    List,
    /// Show a provider
    #[command(after_help = "Examples:\n  conclave upstream show google")]
    Show {
        /// The provider's name
        name: String,
    },
    /// Change a provider; options that are not given stay unchanged
    #[command(after_help = "\
Examples:
  conclave upstream update google --admit none
  conclave upstream update google --disabled true
      no user can sign in there, and the sessions that were opened by it end
  pass show google | conclave upstream update google --secret-stdin

The issuer and the endpoints cannot be changed: subjects belong to them. Remove the provider and add another instead.")]
    Update(Box<Update>),
    /// Remove a provider, with every identity there and the sessions that were opened by it
    #[command(after_help = "Examples:\n  conclave upstream remove google")]
    Remove {
        /// The provider's name
        name: String,
    },
    /// List the identities of a user
    #[command(
        after_help = "Examples:\n  conclave upstream identities ada\n  conclave upstream identities ada -o json"
    )]
    Identities {
        /// Username or id
        user: String,
    },
    /// Invite one user from the Atmosphere, once, even if the rule would not admit them
    #[command(after_help = "\
Examples:
  conclave upstream invite atmosphere --handle alice.example.com --group users
  conclave upstream invite atmosphere --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --expires 30d

The invited user signs in as usual; there is no link to send. A handle is verified when it is used: the user who has it then gets in.")]
    Invite {
        /// The provider's name
        name: String,
        /// The DID of the user
        #[arg(long, value_name = "DID", required_unless_present = "handle", conflicts_with = "handle")]
        did: Option<String>,
        /// The handle of the user
        #[arg(long, value_name = "HANDLE")]
        handle: Option<String>,
        /// A group that the user is added to; may be given several times
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// The time for which the invitation is open
        #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
        expires: Duration,
    },
    /// List open invitations
    #[command(after_help = "Examples:\n  conclave upstream invitations atmosphere")]
    Invitations {
        /// The provider's name
        name: String,
    },
    /// Withdraw an invitation
    #[command(
        after_help = "Examples:\n  conclave upstream uninvite atmosphere 0123456789abcdef0123456789abcdef"
    )]
    Uninvite {
        /// The provider's name
        name: String,
        /// The id, as `conclave upstream invitations` shows it
        id: String,
    },
    /// Unlink a user's identity, and end the sessions that were opened by it
    #[command(after_help = "Examples:\n  conclave upstream unlink google ada")]
    Unlink {
        /// The provider's name
        name: String,
        /// Username or id
        user: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Add {
    /// a-z, 0-9, '-', '_', '.'; part of the redirect URI
    name: String,
    /// The name on the button [default: the name of the provider]
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// An OpenID Provider; its endpoints and keys are discovered
    #[arg(long, value_name = "URL", required_unless_present_any = ["authorization_endpoint", "atmosphere"])]
    issuer: Option<String>,
    /// The Atmosphere network (atproto): users sign in with their own handle, each at their own server
    #[arg(long, conflicts_with_all = ["issuer", "authorization_endpoint", "client_id"])]
    atmosphere: bool,
    /// Plain OAuth 2.0 without discovery
    #[arg(long, value_name = "URL", conflicts_with = "issuer", requires_all = ["token_endpoint", "userinfo_endpoint"])]
    authorization_endpoint: Option<String>,
    /// The endpoint that exchanges codes for tokens, with --authorization-endpoint
    #[arg(long, value_name = "URL", conflicts_with = "issuer")]
    token_endpoint: Option<String>,
    /// The endpoint that returns the user's claims, with --authorization-endpoint
    #[arg(long, value_name = "URL", conflicts_with = "issuer")]
    userinfo_endpoint: Option<String>,
    /// The client id of this cluster at the provider
    #[arg(long, value_name = "ID", required_unless_present = "atmosphere")]
    client_id: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub struct Update {
    /// The provider's name
    name: String,
    /// The name on the button
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// The client id of this cluster at the provider
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Allow no sign-ins at this provider
    #[arg(long, value_name = "true|false")]
    disabled: Option<bool>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// Read the client secret from the first line of standard input
    #[arg(long)]
    secret_stdin: bool,
    /// A scope to request; may be given several times [default with an issuer: openid, profile, email]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The claim that contains the subject, username, email, email_verified or name; all given claims together replace
    /// the earlier ones
    #[arg(long = "claim", value_name = "WHAT=CLAIM", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// The users without an account here that may sign in [default for a new provider: none]
    #[arg(long, value_parser = ["none", "domains", "listed", "any"])]
    admit: Option<String>,
    /// For --admit domains: a domain of verified addresses; may be given several times
    #[arg(long = "domain", value_name = "DOMAIN", requires = "admit")]
    domains: Vec<String>,
    /// A group for new users; may be given several times
    #[arg(long = "group", value_name = "GROUP", requires = "admit")]
    groups: Vec<String>,
    /// For --admit listed: a DID; may be given several times
    #[arg(long = "did", value_name = "DID", requires = "admit")]
    dids: Vec<String>,
    /// For --admit listed: a handle, or '*.' and a domain for all names below it; may be given several times. Consider
    /// who can get a name below a domain: '*.bsky.social' admits anyone
    #[arg(long = "handle", value_name = "HANDLE", requires = "admit")]
    handles: Vec<String>,
    /// For Atmosphere: a further group for the user with this DID or handle; may be given several times
    #[arg(long = "map", value_name = "WHO=GROUP", value_parser = mapped)]
    mapped: Vec<(String, String)>,
    /// For Atmosphere: print a link that lets the first user in, into this group as well; it works once
    #[arg(long, value_name = "GROUP")]
    first_into: Option<String>,
}

fn mapped(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(who, group)| !who.is_empty() && !group.is_empty());
    let (who, group) = parts.ok_or_else(|| format!("{text:?} is not a DID or handle, '=' and a group"))?;
    Ok((who.to_owned(), group.to_owned()))
}

fn claim(text: &str) -> Result<(String, String), String> {
    const WHAT: [&str; 5] = ["subject", "username", "email", "email_verified", "name"];
    let parts = text.split_once('=').filter(|(what, claim)| WHAT.contains(what) && !claim.is_empty());
    let (what, claim) =
        parts.ok_or_else(|| format!("{text:?} is not one of {}, '=' and a claim", WHAT.join(", ")))?;
    Ok((what.to_owned(), claim.to_owned()))
}

impl Settings {
    fn secret(&self) -> Result<Option<String>, Failure> {
        self.secret_stdin.then(password::from_stdin).transpose()
    }

    fn rule(&self) -> Option<v1::UpstreamRule> {
        if self.admit.is_none() && self.mapped.is_empty() && self.first_into.is_none() {
            return None;
        }
        open_names::warn(&self.handles);
        let mapped = self.mapped.iter();
        let mapped =
            mapped.map(|(who, group)| v1::MappedGroups { who: who.clone(), groups: vec![group.clone()] });
        Some(v1::UpstreamRule {
            admit: self.admit.clone().unwrap_or_default(),
            domains: self.domains.clone(),
            groups: self.groups.clone(),
            dids: self.dids.clone(),
            handles: self.handles.clone(),
            mapped: mapped.collect(),
            first_group: self.first_into.clone().unwrap_or_default(),
        })
    }

    fn claims(&self) -> Option<v1::UpstreamClaims> {
        if self.claims.is_empty() {
            return None;
        }
        let named = |what: &str| {
            let found = self.claims.iter().find(|(name, _)| name == what);
            found.map(|(_, claim)| claim.clone()).unwrap_or_default()
        };
        Some(v1::UpstreamClaims {
            subject: named("subject"),
            username: named("username"),
            email: named("email"),
            email_verified: named("email_verified"),
            name: named("name"),
        })
    }
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    let upstreams = client.upstreams();
    match command {
        Command::Add(add) => Ok(one(&upstreams.create(create_request(*add)?).await?)),
        Command::List => list(client).await,
        Command::Show { name } => Ok(one(&upstreams.get(v1::GetUpstreamRequest { name }).await?)),
        Command::Update(update) => Ok(one(&upstreams.update(changes(*update)?).await?)),
        Command::Remove { name } => {
            upstreams.delete(v1::DeleteUpstreamRequest { name: name.clone() }).await?;
            Ok(Output::done(format!("upstream {name} is removed"), json!({ "removed": name })))
        }
        Command::Identities { user } => {
            let answer = upstreams.list_identities(v1::ListIdentitiesRequest { user }).await?;
            let rows = answer.identities.iter().map(identity).collect();
            Ok(Output::Many { columns: IDENTITY_COLUMNS, rows })
        }
        Command::Invite { name, did, handle, groups, expires } => {
            let ttl_ms = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
            let who = did.or(handle).unwrap_or_default();
            let request = v1::InviteIdentityRequest { upstream: name, who, groups, ttl_ms };
            let made = upstreams.invite_identity(request).await?;
            Ok(Output::One { fields: INVITATION_COLUMNS, value: invitation(&made) })
        }
        Command::Invitations { name } => {
            let open = all_pages(async |page| {
                let wanted = v1::ListInvitationsRequest { upstream: name.clone(), page: Some(page) };
                let answer = client.upstreams().list_invitations(wanted).await?;
                Ok((answer.invitations, answer.next_page_token))
            })
            .await?;
            Ok(Output::Many { columns: INVITATION_COLUMNS, rows: open.iter().map(invitation).collect() })
        }
        Command::Uninvite { name, id } => {
            upstreams
                .revoke_invitation(v1::RevokeInvitationRequest { upstream: name, id: id.clone() })
                .await?;
            Ok(Output::done(format!("invitation {id} is withdrawn"), json!({ "revoked": id })))
        }
        Command::Unlink { name, user } => {
            let request = v1::UnlinkIdentityRequest { user: user.clone(), upstream: name.clone() };
            upstreams.unlink_identity(request).await?;
            let value = json!({ "unlinked": name, "user": user });
            Ok(Output::done(format!("{user} is unlinked from {name}"), value))
        }
    }
}

fn create_request(add: Add) -> Result<v1::CreateUpstreamRequest, Failure> {
    Ok(v1::CreateUpstreamRequest {
        name: add.name,
        display_name: add.display_name.unwrap_or_default(),
        issuer: add.issuer.unwrap_or_default(),
        authorization_endpoint: add.authorization_endpoint.unwrap_or_default(),
        token_endpoint: add.token_endpoint.unwrap_or_default(),
        userinfo_endpoint: add.userinfo_endpoint.unwrap_or_default(),
        client_id: add.client_id.unwrap_or_default(),
        atmosphere: add.atmosphere,
        client_secret: add.settings.secret()?.unwrap_or_default(),
        claims: add.settings.claims(),
        rule: add.settings.rule(),
        scopes: add.settings.scopes,
    })
}

fn changes(update: Update) -> Result<v1::UpdateUpstreamRequest, Failure> {
    Ok(v1::UpdateUpstreamRequest {
        name: update.name,
        display_name: update.display_name,
        client_id: update.client_id,
        client_secret: update.settings.secret()?,
        claims: update.settings.claims(),
        rule: update.settings.rule(),
        scopes: (!update.settings.scopes.is_empty())
            .then_some(v1::ScopeList { scopes: update.settings.scopes }),
        disabled: update.disabled,
    })
}

async fn list(client: &AdminClient) -> Result<Output, Failure> {
    let upstreams = all_pages(async |page| {
        let answer = client.upstreams().list(v1::ListUpstreamsRequest { page: Some(page) }).await?;
        Ok((answer.upstreams, answer.next_page_token))
    })
    .await?;
    Ok(Output::Many { columns: COLUMNS, rows: upstreams.iter().map(value).collect() })
}

fn one(upstream: &v1::Upstream) -> Output {
    Output::One { fields: FIELDS, value: value(upstream) }
}

fn value(upstream: &v1::Upstream) -> Value {
    let (claims, rule) =
        (upstream.claims.clone().unwrap_or_default(), upstream.rule.clone().unwrap_or_default());
    json!({
        "name": upstream.name,
        "display_name": upstream.display_name,
        "issuer": upstream.issuer,
        "authorization_endpoint": upstream.authorization_endpoint,
        "token_endpoint": upstream.token_endpoint,
        "userinfo_endpoint": upstream.userinfo_endpoint,
        "client_id": upstream.client_id,
        "has_client_secret": upstream.has_client_secret,
        "scopes": upstream.scopes,
        "claims": {
            "subject": claims.subject,
            "username": claims.username,
            "email": claims.email,
            "email_verified": claims.email_verified,
            "name": claims.name,
        },
        "atmosphere": upstream.atmosphere,
        "admit": rule.admit,
        "domains": rule.domains,
        "dids": rule.dids,
        "handles": rule.handles,
        "mapped": rule.mapped.iter().map(|one| json!({"who": one.who, "groups": one.groups})).collect::<Vec<_>>(),
        "first_group": rule.first_group,
        "first_url": upstream.first_url,
        "groups": rule.groups,
        "disabled": upstream.disabled,
        "redirect_uri": upstream.redirect_uri,
        "identity_count": upstream.identity_count,
    })
}

fn identity(identity: &v1::Identity) -> Value {
    json!({
        "upstream": identity.upstream,
        "subject": identity.subject,
        "label": identity.label,
        "linked_at_ms": identity.linked_at_ms,
        "admitted_by": identity.admitted_by,
        "unconfirmed_since_ms": identity.unconfirmed_since_ms,
        "held_out": identity.held_out,
    })
}

fn invitation(row: &v1::Invitation) -> Value {
    json!({
        "id": row.id,
        "upstream": row.upstream,
        "who": row.who,
        "groups": row.groups,
        "expires_at_ms": row.expires_at_ms,
        "created_at_ms": row.created_at_ms,
    })
}
