//! `CreateUpstream`, `UpdateUpstream`, `DeleteUpstream`.

use std::sync::Arc;

use conclave_proto::command::v1 as pb;

use super::{ProviderLocation, Upstream, wire};
use crate::{
    draft::Draft,
    ids::{SessionId, UserId},
    reply::{Reason, Refusal, Reply, done},
    text,
};

/// Most providers: each is a button on the login page.
const MAX_UPSTREAMS: usize = 32;

pub(crate) fn create(draft: &mut Draft, command: &pb::CreateUpstream) -> Result<Reply, Refusal> {
    let command = command.upstream.clone().unwrap_or_default();
    let upstream = wire::parse(command, draft.at)?;
    if draft.state.upstreams.contains_key(&upstream.name) {
        let why = format!("the upstream {} exists", upstream.name);
        return Err(Refusal::new(Reason::UpstreamNameTaken, why));
    }
    if draft.state.upstreams.len() >= MAX_UPSTREAMS {
        return Err(Refusal::malformed(format!("there are at most {MAX_UPSTREAMS} upstreams")));
    }
    if let Some(group) = upstream.rule.all_groups().find(|group| draft.state.group(*group).is_none()) {
        return Err(Refusal::new(Reason::GroupUnknown, format!("there is no group {group}")));
    }
    draft.state.put_upstream(upstream);
    Ok(done())
}

/// Changes a provider. Disabling it ends the sessions that it opened: their users must sign in another way.
pub(crate) fn update(draft: &mut Draft, command: &pb::UpdateUpstream) -> Result<Reply, Refusal> {
    let mut upstream = (*draft.state.existing_upstream(&command.name)?).clone();
    if let Some(name) = &command.display_name {
        upstream.display_name = text::required("display_name", name, text::MAX_TEXT_BYTES)?;
    }
    if let Some(client_id) = &command.client_id {
        upstream.client_id = wire::parse_client_id(client_id, &upstream.location)?;
    }
    if let Some(secret) = &command.sealed_secret {
        upstream.sealed_secret = wire::parse_secret(secret)?;
    }
    if let Some(scopes) = &command.scopes {
        upstream.scopes = wire::parse_scopes(&scopes.scopes)?;
    }
    if let Some(claims) = &command.claims {
        let claims = wire::parse_claims(claims.clone(), &upstream.location)?;
        if claims.subject != upstream.claims.subject {
            return Err(Refusal::malformed("the claim of the subject cannot change; add another upstream"));
        }
        upstream.claims = claims;
    }
    if let Some(rule) = &command.rule {
        upstream.rule = wire::parse_rule(rule, &upstream.location)?;
        for group in upstream.rule.all_groups() {
            draft.state.existing_group(group)?;
        }
    }
    if let Some(disabled) = command.disabled {
        upstream.disabled = disabled;
    }
    let (name, ends) = (upstream.name.clone(), upstream.disabled);
    draft.state.put_upstream(upstream);
    if ends {
        draft.end_sessions_by(&name);
    }
    Ok(done())
}

/// Deletes a provider with its identities. Subjects mean nothing without their provider: a provider that is added later
/// under the same name knows no user.
pub(crate) fn delete(draft: &mut Draft, command: &pb::DeleteUpstream) -> Result<Reply, Refusal> {
    let upstream = draft.state.existing_upstream(&command.name)?;
    draft.end_sessions_by(&upstream.name);
    draft.state.forget_identities_at(&upstream.name);
    draft.state.take_invitations_at(&upstream.name);
    draft.state.upstreams.remove(&upstream.name);
    Ok(done())
}

impl Draft {
    /// Ends every session that this provider opened. Walks over its identities: providers change rarely and by hand.
    fn end_sessions_by(&mut self, upstream: &Arc<str>) {
        let people: Vec<UserId> = self.state.identities_at(upstream).map(|identity| identity.user).collect();
        people.into_iter().for_each(|user| self.end_sessions_of_by(user, upstream, None));
    }

    /// Ends this user's sessions that the provider opened, `except` one.
    pub(super) fn end_sessions_of_by(&mut self, user: UserId, upstream: &str, except: Option<SessionId>) {
        let own = self.state.sessions_of(user).filter(|session| &*session.upstream == upstream);
        let ending: Vec<SessionId> = own.map(|session| session.id).filter(|id| Some(*id) != except).collect();
        ending.into_iter().for_each(|session| self.end_session(session));
    }
}

impl ProviderLocation {
    pub(super) const fn is_discovered(&self) -> bool {
        matches!(self, Self::Issuer(_))
    }
}

impl Upstream {
    /// True if an ID token identifies the user (OIDC); otherwise userinfo does.
    pub const fn is_openid(&self) -> bool {
        self.location.is_discovered()
    }
}
