//! Applications: their addresses, their hosts, and their access rules.

use conclave_proto::{
    admin::v1::{self as pb, application_service_server::ApplicationService},
    command::v1::{
        Access, CheckRules, CreateApplication, DeleteApplication, HeaderProfile as WireProfile,
        HeaderText as WireText, Hosts, IdentityHeaders, UpdateApplication, command::Body,
    },
};
use conclave_state::{
    State,
    application::{Application, HeaderProfile, HeaderText},
    ids::ApplicationId,
};
use tonic::{Request, Response, Status};

use conclave_auth::redirect_uri::RedirectUri;
use conclave_http::host::canonical_host;

use super::{Api, errors, names, request::Writing};

#[tonic::async_trait]
impl ApplicationService for Api {
    async fn create_application(
        &self,
        request: Request<pb::CreateApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (mut writing, message) = self.write(request, "CreateApplication").await?;
        check_link(&message.launch_url)?;
        let profile =
            if message.header_profile.is_empty() { DEFAULT_PROFILE } else { &*message.header_profile };
        let hosts = hosts(&message.hosts)?;
        if !(message.header_profile.is_empty()
            && message.header_text.is_empty()
            && hosts.address_hosts.is_empty())
        {
            writing.can_choose_headers()?;
        }
        // The default of new applications is such a choice too, which an older member would drop.
        let identity_headers = match writing.can_choose_headers() {
            Ok(()) => identity_headers(Some(profile), Some(&message.header_text))?,
            Err(_) => None,
        };
        let id = ApplicationId::new(writing.id("application"));
        let body = CreateApplication {
            application_id: id.to_vec(),
            slug: message.slug,
            name: message.name,
            launch_url: message.launch_url,
            hosts: hosts.hosts,
            address_hosts: hosts.address_hosts,
            access: Some(writing.access(message.everyone, &message.groups).await?),
            serve_known_for_ms: message.serve_known_for_ms,
            check: message.check.map(check_rules),
            identity_headers,
        };
        let committed = writing.propose(Body::CreateApplication(body)).await?;
        let application = find_proto(&committed.state, id)?;
        writing.reply(&committed, application)
    }

    async fn get_application(
        &self,
        request: Request<pb::GetApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let id = names::application(&reading.state, &wanted.application);
        let id = id.ok_or_else(|| errors::not_found("application", &wanted.application))?;
        reading.reply(find_proto(&reading.state, id)?)
    }

    async fn list_applications(
        &self,
        request: Request<pb::ListApplicationsRequest>,
    ) -> Result<Response<pb::ListApplicationsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("applications", wanted.page)?;
        let after = listing.after(|bytes| ApplicationId::parse(bytes).ok())?;
        let rows = reading.state.applications_after(after);
        let rows = rows.map(|application| (application.id.to_vec(), to_proto(&reading.state, application)));
        let (applications, next_page_token) = listing.page(rows);
        reading.reply(pb::ListApplicationsResponse { applications, next_page_token })
    }

    async fn update_application(
        &self,
        request: Request<pb::UpdateApplicationRequest>,
    ) -> Result<Response<pb::Application>, Status> {
        let (mut writing, message) = self.write(request, "UpdateApplication").await?;
        check_link(message.launch_url.as_deref().unwrap_or_default())?;
        let id = writing.application(&message.application).await?;
        let access = match message.access {
            Some(rule) => Some(writing.access(rule.everyone, &rule.groups).await?),
            None => None,
        };
        let hosts = message.hosts.map(|list| hosts(&list.hosts)).transpose()?;
        let has_address = hosts.as_ref().is_some_and(|hosts| !hosts.address_hosts.is_empty());
        if has_address || message.header_profile.is_some() || message.header_text.is_some() {
            writing.can_choose_headers()?;
        }
        let body = UpdateApplication {
            application_id: id.to_vec(),
            name: message.name,
            launch_url: message.launch_url,
            hosts,
            access,
            serve_known_for_ms: message.serve_known_for_ms,
            check: message.check.map(check_rules),
            identity_headers: identity_headers(
                message.header_profile.as_deref(),
                message.header_text.as_deref(),
            )?,
        };
        let committed = writing.propose(Body::UpdateApplication(body)).await?;
        let application = find_proto(&committed.state, id)?;
        writing.reply(&committed, application)
    }

    async fn delete_application(
        &self,
        request: Request<pb::DeleteApplicationRequest>,
    ) -> Result<Response<pb::DeleteApplicationResponse>, Status> {
        let (mut writing, message) = self.write(request, "DeleteApplication").await?;
        let application_id = writing.application(&message.application).await?.to_vec();
        let committed =
            writing.propose(Body::DeleteApplication(DeleteApplication { application_id })).await?;
        writing.reply(&committed, pb::DeleteApplicationResponse {})
    }
}

impl Writing {
    async fn access(&mut self, everyone: bool, groups: &[String]) -> Result<Access, Status> {
        Ok(Access { everyone, group_ids: self.groups(groups).await? })
    }
}

/// Checks a launch URL. The portal makes a link of it, so `javascript:` would run in the visitor's session.
fn check_link(url: &str) -> Result<(), Status> {
    if url.is_empty() {
        return Ok(());
    }
    RedirectUri::parse_link(url).map(|_| ()).map_err(|error| errors::redirect_uri("launch_url", url, &error))
}

fn find_proto(state: &State, id: ApplicationId) -> Result<pb::Application, Status> {
    let found = state.application(id).map(|application| to_proto(state, application));
    found.ok_or_else(|| errors::not_found("application", &id.to_string()))
}

fn to_proto(state: &State, application: &Application) -> pb::Application {
    let groups = application.access.groups.iter().filter_map(|id| state.group(*id));
    pb::Application {
        id: application.id.to_string(),
        slug: application.slug.to_string(),
        name: application.name.clone(),
        launch_url: application.launch_url.clone(),
        hosts: application.hosts.iter().map(ToString::to_string).collect(),
        everyone: application.access.everyone,
        groups: groups.map(|group| group.name.to_string()).collect(),
        serve_known_for_ms: application.serve_known_for_ms,
        check: Some(pb::CheckRules {
            bearer: application.check.bearer,
            basic: application.check.basic,
            assertion: application.check.assertion,
        }),
        header_profile: name_of(&PROFILES, |(_, _, profile)| {
            *profile == application.identity_headers.profile
        }),
        header_text: name_of(&TEXTS, |(_, _, text)| *text == application.identity_headers.text),
    }
}

/// The header profile of a new application for which none is named: four headers that most applications know.
const DEFAULT_PROFILE: &str = "remote";

type Choice<Wire, Known> = (&'static str, Wire, Known);

const PROFILES: [Choice<WireProfile, HeaderProfile>; 4] = [
    ("remote", WireProfile::Remote, HeaderProfile::Remote),
    ("authentik", WireProfile::Authentik, HeaderProfile::Authentik),
    ("auth-request", WireProfile::AuthRequest, HeaderProfile::AuthRequest),
    ("all", WireProfile::All, HeaderProfile::All),
];

const TEXTS: [Choice<WireText, HeaderText>; 3] = [
    ("raw", WireText::Raw, HeaderText::Raw),
    ("percent", WireText::Percent, HeaderText::Percent),
    ("omit", WireText::Omit, HeaderText::Omit),
];

fn name_of<Wire, Known>(
    choices: &[Choice<Wire, Known>],
    is_it: impl Fn(&&Choice<Wire, Known>) -> bool,
) -> String {
    choices.iter().find(is_it).map(|(name, ..)| (*name).to_owned()).unwrap_or_default()
}

/// The change of identity headers for these names. An empty or absent name leaves its half unchanged.
fn identity_headers(profile: Option<&str>, text: Option<&str>) -> Result<Option<IdentityHeaders>, Status> {
    let headers = IdentityHeaders {
        profile: chosen("header_profile", &PROFILES, profile)?.map_or(0, i32::from),
        text: chosen("header_text", &TEXTS, text)?.map_or(0, i32::from),
    };
    Ok((headers != IdentityHeaders::default()).then_some(headers))
}

fn chosen<Wire: Copy, Known>(
    field: &'static str,
    choices: &[Choice<Wire, Known>],
    name: Option<&str>,
) -> Result<Option<Wire>, Status> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let found = choices.iter().find(|(known, ..)| *known == name).map(|(_, wire, _)| Some(*wire));
    let all = || choices.iter().map(|(known, ..)| *known).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| Status::invalid_argument(format!("{field}: {name:?} is not one of {}", all())))
}

/// Hosts in their canonical form, as commands carry them: international names as `xn--`, IPv6 addresses separately.
fn hosts(typed: &[String]) -> Result<Hosts, Status> {
    let canonical = typed.iter().map(|host| canonical(host)).collect::<Result<Vec<_>, _>>()?;
    let (address_hosts, hosts) = canonical.into_iter().partition(|host| host.starts_with('['));
    Ok(Hosts { hosts, address_hosts })
}

fn canonical(typed: &str) -> Result<String, Status> {
    let (prefix, name) = typed.strip_prefix("*.").map_or(("", typed), |name| ("*.", name));
    // Text that is not a host at all is refused by the rules, which know the valid characters of a host.
    let wrong = || {
        let advice = "write a name without a port, such as wiki.example.org, *.example.org or [2001:db8::7]";
        Status::invalid_argument(format!("hosts: {typed:?} is not a host; {advice}"))
    };
    match canonical_host(name) {
        Some(address) if address.starts_with('[') && !prefix.is_empty() => Err(wrong()),
        Some(host) => Ok(format!("{prefix}{host}")),
        None if name.is_ascii() && !name.contains(['[', ':']) => Ok(typed.to_owned()),
        None => Err(wrong()),
    }
}

const fn check_rules(rules: pb::CheckRules) -> CheckRules {
    CheckRules { bearer: rules.bearer, basic: rules.basic, assertion: rules.assertion }
}
