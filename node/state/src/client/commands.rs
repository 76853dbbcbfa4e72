//! `CreateClient`, `UpdateClient`, `DeleteClient`.

use conclave_proto::command::v1 as pb;

use super::{
    Client, ClientAuthMethod, ClientId, ConsentMode, GrantType, MAX_OVERLAP_MS, PreviousSecret,
    RequestPolicy, TokenPolicy, requests, wire,
};
use crate::{
    draft::Draft,
    ids::{ApplicationId, SecretHash},
    level,
    reply::{Reason, Refusal, Reply, done},
    text,
};

/// Most self-registered clients: unauthenticated requests must not fill the state.
const MAX_SELF_REGISTERED: usize = 10_000;

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateClient) -> Result<Reply, Refusal> {
    let id = ClientId::parse(&command.client_id)?;
    let before = draft.state.client(id.as_str()).cloned();
    if let Some(before) = &before {
        make_place(draft, before, command)?;
    }
    let application = match command.application_id.as_slice() {
        [] => None,
        bytes => Some(draft.state.existing_application(ApplicationId::parse(bytes)?)?.id),
    };
    let tokens = TokenPolicy::from_wire(command.tokens.as_ref())?;
    tokens.fits(command.auth_method())?;
    // A deleted client of this id may have had tokens of its own: they must not be valid for the new one.
    let own_tokens_since = if tokens.allows(GrantType::ClientCredentials) { draft.index } else { 0 };
    let client = Client {
        id,
        name: text::line("name", &command.name, text::MAX_TEXT_BYTES)?,
        auth_method: command.auth_method(),
        secret_hash: parse_secret(command.auth_method(), &command.secret_hash)?,
        redirect_uris: wire::parse_uris("redirect_uris", &command.redirect_uris)?,
        post_logout_redirect_uris: wire::parse_uris(
            "post_logout_redirect_uris",
            &command.post_logout_redirect_uris,
        )?,
        scopes: wire::parse_scopes(&command.scopes)?,
        signing_algorithm: wire::parse_algorithm(command.signing_algorithm())?,
        // An operator may have set the consent mode, which survives a change of the document.
        consent: before.map_or_else(|| parse_consent(command.consent()), |before| Ok(before.consent))?,
        application,
        disabled: false,
        created_at: draft.at,
        back_channel_logout_uri: requests::parse_logout_uri(&command.back_channel_logout_uri)?,
        requests: RequestPolicy::of(command, draft.state.meta().level)?,
        tokens,
        previous_secret: None,
        own_tokens_since,
        document_seen_at: command.of_document.then_some(draft.at),
    };
    requests::fits(&client)?;
    if client.is_described() {
        draft.state.make_room_for_described(MAX_SELF_REGISTERED);
    }
    if client.is_self_registered() && draft.state.self_registered() >= MAX_SELF_REGISTERED {
        return Err(Refusal::new(Reason::TooManyWaiting, "too many clients have registered themselves"));
    }
    draft.state.put_client(client);
    Ok(done())
}

/// Makes room for a client whose id is in use. A client id is unique. If a client's metadata document changes its
/// authentication method, the old client is deleted with everything that belongs to it and is replaced. A disabled
/// client stays.
fn make_place(draft: &mut Draft, before: &Client, command: &pb::CreateClient) -> Result<(), Refusal> {
    let proves_otherwise = before.auth_method != command.auth_method();
    if !(command.of_document && before.is_described() && !before.disabled && proves_otherwise) {
        return Err(Refusal::new(Reason::ClientIdTaken, format!("the client id {} is taken", before.id)));
    }
    remove(draft, &before.id);
    Ok(())
}

pub(crate) fn update(draft: &mut Draft, command: &pb::UpdateClient) -> Result<Reply, Refusal> {
    let id = ClientId::parse(&command.client_id)?;
    let mut client = (*draft.state.existing_client(&id)?).clone();
    if command.of_document {
        client.document_seen_at =
            Some(client.document_seen_at.map_or_else(|| Err(not_described(&id)), |_| Ok(draft.at))?);
    }
    if let Some(name) = &command.name {
        client.name = text::line("name", name, text::MAX_TEXT_BYTES)?;
    }
    let (level, method_before) = (draft.state.meta().level, client.auth_method);
    if level >= level::EXCEPTIONS {
        change_method(&mut client, command)?;
        change_application(draft, &mut client, command)?;
    }
    if let Some(hash) = &command.secret_hash {
        replace_secret(draft, &mut client, hash, command.keep_previous_secret_ms)?;
    }
    if let Some(uris) = &command.redirect_uris {
        client.redirect_uris = wire::parse_uris("redirect_uris", &uris.uris)?;
    }
    if let Some(uris) = &command.post_logout_redirect_uris {
        client.post_logout_redirect_uris = wire::parse_uris("post_logout_redirect_uris", &uris.uris)?;
    }
    if let Some(scopes) = &command.scopes {
        client.scopes = wire::parse_scopes(&scopes.scopes)?;
    }
    if command.signing_algorithm.is_some() {
        client.signing_algorithm = wire::parse_algorithm(command.signing_algorithm())?;
    }
    if command.consent.is_some() {
        client.consent = parse_consent(command.consent())?;
    }
    if let Some(disabled) = command.disabled {
        client.disabled = disabled;
    }
    requests::change(&mut client, command, level)?;
    requests::fits(&client)?;
    if let Some(change) = &command.tokens {
        let could = client.allows(GrantType::ClientCredentials);
        client.tokens.change(change)?;
        if level >= level::EXCEPTIONS {
            client.tokens.change_subjects(change)?;
        }
        if could != client.allows(GrantType::ClientCredentials) {
            client.own_tokens_since = draft.index;
        }
    }
    if command.tokens.is_some() || client.auth_method != method_before {
        client.tokens.fits(client.auth_method)?;
    }
    let ends = client.disabled;
    if ends && client.allows(GrantType::ClientCredentials) {
        client.own_tokens_since = draft.index;
    }
    draft.state.put_client(client);
    if ends {
        draft.end_grants_of_client(&id);
    }
    Ok(done())
}

/// Changes the client's authentication method. A change between header and body keeps the secret; a method without a
/// secret removes it; a method that needs a secret where there was none must come with one.
fn change_method(client: &mut Client, command: &pb::UpdateClient) -> Result<(), Refusal> {
    if command.auth_method.is_none() || command.auth_method() == client.auth_method {
        return Ok(());
    }
    client.auth_method = command.auth_method();
    let new_secret = command.secret_hash.as_deref().unwrap_or_default();
    let kept = client.secret_hash.map(|hash| hash.bytes().to_vec()).unwrap_or_default();
    match client.auth_method {
        ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost if new_secret.is_empty() => {
            client.secret_hash = parse_secret(client.auth_method, &kept)?;
        }
        ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost => {}
        method => {
            client.secret_hash = parse_secret(method, new_secret)?;
            client.previous_secret = None;
        }
    }
    Ok(())
}

/// Changes the application whose access rule applies. Grants that were made under another rule are checked against the
/// new rule at their next use.
fn change_application(draft: &Draft, client: &mut Client, command: &pb::UpdateClient) -> Result<(), Refusal> {
    match command.application_id.as_deref() {
        None => {}
        Some([]) => client.application = None,
        Some(bytes) => {
            let id = ApplicationId::parse(bytes)?;
            client.application = Some(draft.state.existing_application(id)?.id);
        }
    }
    Ok(())
}

/// Replaces the secret. The former secret stays valid for the overlap that the command names. If there is no overlap,
/// what was issued with it ends too.
fn replace_secret(
    draft: &Draft,
    client: &mut Client,
    hash: &[u8],
    keep_previous_ms: u64,
) -> Result<(), Refusal> {
    if keep_previous_ms > MAX_OVERLAP_MS {
        return Err(Refusal::malformed("the secret before may stay good for at most 90 days"));
    }
    let previous = client.secret_hash;
    client.secret_hash = parse_secret(client.auth_method, hash)?;
    let until = draft.at.plus_ms(keep_previous_ms);
    client.previous_secret =
        previous.filter(|_| keep_previous_ms > 0).map(|hash| PreviousSecret { hash, until });
    if client.previous_secret.is_none() && client.allows(GrantType::ClientCredentials) {
        client.own_tokens_since = draft.index;
    }
    Ok(())
}

/// Deletes a client with all its grants: a later client of the same id starts with nothing.
pub(crate) fn delete(draft: &mut Draft, command: &pb::DeleteClient) -> Result<Reply, Refusal> {
    let client = draft.state.existing_client(&ClientId::parse(&command.client_id)?)?;
    remove(draft, &client.id);
    Ok(done())
}

fn remove(draft: &mut Draft, id: &ClientId) {
    draft.end_grants_of_client(id);
    draft.state.forget_consents_to(id);
    draft.state.clients.remove(id);
}

/// Refuses a metadata document for a client that an operator registered.
fn not_described(id: &ClientId) -> Refusal {
    Refusal::malformed(format!("client {id} is not described by a document"))
}

fn parse_secret(method: ClientAuthMethod, hash: &[u8]) -> Result<Option<SecretHash>, Refusal> {
    match method {
        ClientAuthMethod::None
        | ClientAuthMethod::PrivateKeyJwt
        | ClientAuthMethod::TlsClientAuth
        | ClientAuthMethod::SelfSignedTlsClientAuth
            if hash.is_empty() =>
        {
            Ok(None)
        }
        ClientAuthMethod::None => Err(Refusal::malformed("a public client has no secret")),
        ClientAuthMethod::PrivateKeyJwt
        | ClientAuthMethod::TlsClientAuth
        | ClientAuthMethod::SelfSignedTlsClientAuth => {
            Err(Refusal::malformed("a client that proves itself by a key has no secret"))
        }
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
