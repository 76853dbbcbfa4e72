//! `CreateClient`, `UpdateClient`, `DeleteClient`.

use conclave_proto::command::v1 as pb;

use super::{Client, ClientAuthMethod, ClientId, ConsentMode, wire};
use crate::{
    draft::Draft,
    ids::{ApplicationId, SecretHash},
    reply::{Reason, Refusal, Reply, done},
    text,
};

pub(crate) fn create(draft: &mut Draft, order: &pb::CreateClient) -> Result<Reply, Refusal> {
    let id = ClientId::parse(&order.client_id)?;
    if draft.state.clients.contains_key(&id) {
        return Err(Refusal::new(Reason::ClientIdTaken, format!("the client id {id} is taken")));
    }
    let application = match order.application_id.as_slice() {
        [] => None,
        bytes => Some(draft.state.existing_application(ApplicationId::parse(bytes)?)?.id),
    };
    let client = Client {
        id,
        name: text::line("name", &order.name, text::MAX_TEXT_BYTES)?,
        auth_method: order.auth_method(),
        secret_hash: parse_secret(order.auth_method(), &order.secret_hash)?,
        redirect_uris: wire::parse_uris("redirect_uris", &order.redirect_uris)?,
        post_logout_redirect_uris: wire::parse_uris(
            "post_logout_redirect_uris",
            &order.post_logout_redirect_uris,
        )?,
        scopes: wire::parse_scopes(&order.scopes)?,
        signing_algorithm: wire::parse_algorithm(order.signing_algorithm())?,
        consent: parse_consent(order.consent())?,
        application,
        disabled: false,
        created_at: draft.at,
        back_channel_logout_uri: text::line(
            "back_channel_logout_uri",
            &order.back_channel_logout_uri,
            text::MAX_URI_BYTES,
        )?,
    };
    draft.state.put_client(client);
    Ok(done())
}

pub(crate) fn update(draft: &mut Draft, order: &pb::UpdateClient) -> Result<Reply, Refusal> {
    let id = ClientId::parse(&order.client_id)?;
    let mut client = (*draft.state.existing_client(&id)?).clone();
    if let Some(name) = &order.name {
        client.name = text::line("name", name, text::MAX_TEXT_BYTES)?;
    }
    if let Some(hash) = &order.secret_hash {
        client.secret_hash = parse_secret(client.auth_method, hash)?;
    }
    if let Some(uris) = &order.redirect_uris {
        client.redirect_uris = wire::parse_uris("redirect_uris", &uris.uris)?;
    }
    if let Some(uris) = &order.post_logout_redirect_uris {
        client.post_logout_redirect_uris = wire::parse_uris("post_logout_redirect_uris", &uris.uris)?;
    }
    if let Some(scopes) = &order.scopes {
        client.scopes = wire::parse_scopes(&scopes.scopes)?;
    }
    if order.signing_algorithm.is_some() {
        client.signing_algorithm = wire::parse_algorithm(order.signing_algorithm())?;
    }
    if order.consent.is_some() {
        client.consent = parse_consent(order.consent())?;
    }
    if let Some(disabled) = order.disabled {
        client.disabled = disabled;
    }
    let ends = client.disabled;
    draft.state.put_client(client);
    if ends {
        draft.end_grants_of_client(&id);
    }
    Ok(done())
}

/// With everything that was granted to it: a later client of the same id starts with nothing.
pub(crate) fn delete(draft: &mut Draft, order: &pb::DeleteClient) -> Result<Reply, Refusal> {
    let client = draft.state.existing_client(&ClientId::parse(&order.client_id)?)?;
    draft.end_grants_of_client(&client.id);
    draft.state.clients.remove(&client.id);
    Ok(done())
}

fn parse_secret(method: ClientAuthMethod, hash: &[u8]) -> Result<Option<SecretHash>, Refusal> {
    match method {
        ClientAuthMethod::None if hash.is_empty() => Ok(None),
        ClientAuthMethod::None => Err(Refusal::malformed("a public client has no secret")),
        ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost => SecretHash::parse(hash).map(Some),
        ClientAuthMethod::Unspecified => Err(Refusal::malformed("auth_method is missing")),
    }
}

fn parse_consent(mode: ConsentMode) -> Result<ConsentMode, Refusal> {
    match mode {
        ConsentMode::Unspecified => Err(Refusal::malformed("consent is missing")),
        mode => Ok(mode),
    }
}
