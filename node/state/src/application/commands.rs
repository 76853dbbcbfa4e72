//! `CreateApplication`, `UpdateApplication`, `DeleteApplication`.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;
use imbl::OrdSet;

use super::{Application, IdentityHeaders, wire};
use crate::{
    draft::Draft,
    ids::ApplicationId,
    reply::{Reason, Refusal, Reply, done},
    state::State,
    text,
};

/// Longest slug.
const MAX_SLUG_BYTES: usize = 64;

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateApplication) -> Result<Reply, Refusal> {
    let id = ApplicationId::parse(&command.application_id)?;
    let slug: Arc<str> = text::slug("slug", &command.slug, MAX_SLUG_BYTES)?.into();
    if draft.state.applications.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, format!("application {id} exists")));
    }
    if draft.state.slugs.contains_key(&slug) {
        return Err(Refusal::new(Reason::ApplicationSlugTaken, format!("the slug {slug} is taken")));
    }
    let application = Application {
        id,
        slug,
        name: text::required("name", &command.name, text::MAX_TEXT_BYTES)?,
        launch_url: text::line("launch_url", &command.launch_url, text::MAX_URI_BYTES)?,
        hosts: free_hosts(&draft.state, id, &command.hosts, &command.address_hosts)?,
        access: wire::parse_access(&draft.state, command.access.as_ref())?,
        serve_known_for_ms: wire::parse_serve_known_for(command.serve_known_for_ms)?,
        check: wire::parse_check(command.check.as_ref()),
        identity_headers: wire::parse_identity_headers(
            IdentityHeaders::default(),
            command.identity_headers.as_ref(),
        )?,
        created_at: draft.at,
    };
    draft.state.put_application(application);
    Ok(done())
}

pub(crate) fn update(draft: &mut Draft, command: &pb::UpdateApplication) -> Result<Reply, Refusal> {
    let id = ApplicationId::parse(&command.application_id)?;
    let mut application = (*draft.state.existing_application(id)?).clone();
    if let Some(name) = &command.name {
        application.name = text::required("name", name, text::MAX_TEXT_BYTES)?;
    }
    if let Some(url) = &command.launch_url {
        application.launch_url = text::line("launch_url", url, text::MAX_URI_BYTES)?;
    }
    if let Some(hosts) = &command.hosts {
        application.hosts = free_hosts(&draft.state, id, &hosts.hosts, &hosts.address_hosts)?;
    }
    if command.access.is_some() {
        application.access = wire::parse_access(&draft.state, command.access.as_ref())?;
    }
    if let Some(ms) = command.serve_known_for_ms {
        application.serve_known_for_ms = wire::parse_serve_known_for(ms)?;
    }
    if command.check.is_some() {
        application.check = wire::parse_check(command.check.as_ref());
    }
    application.identity_headers =
        wire::parse_identity_headers(application.identity_headers, command.identity_headers.as_ref())?;
    draft.state.put_application(application);
    Ok(done())
}

/// Deletes an application. Refused while a client refers to the application: without its access rule the client would
/// admit every user.
pub(crate) fn delete(draft: &mut Draft, command: &pb::DeleteApplication) -> Result<Reply, Refusal> {
    let application = draft.state.existing_application(ApplicationId::parse(&command.application_id)?)?;
    if let Some(client) =
        draft.state.clients.values().find(|client| client.application == Some(application.id))
    {
        return Err(Refusal::malformed(format!(
            "client {} still belongs to it; delete the client first",
            client.id
        )));
    }
    draft.state.take_app_passwords_for(application.id);
    draft.state.policies.remove(&application.id);
    draft.state.take_application(&application);
    Ok(done())
}

fn free_hosts(
    state: &State,
    id: ApplicationId,
    names: &[String],
    addresses: &[String],
) -> Result<OrdSet<Arc<str>>, Refusal> {
    let hosts = wire::parse_hosts(names, addresses)?;
    let taken = hosts.iter().find(|host| state.hosts.get(*host).is_some_and(|owner| *owner != id));
    match taken {
        Some(host) => {
            Err(Refusal::new(Reason::HostTaken, format!("the host {host} belongs to another application")))
        }
        None => Ok(hosts),
    }
}
