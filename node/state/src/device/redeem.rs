//! `RedeemDevice`: the device receives the grant that the user allowed (RFC 8628 §3.4). The request is deleted, so it
//! can be redeemed only once.

use conclave_proto::command::v1 as pb;

use super::DeviceAnswer;
use crate::{
    client::{ClientId, GrantType},
    draft::Draft,
    grant::{self, Grant},
    ids::{DeviceId, GrantId, SecretHash, SessionId},
    reply::{Reason, Refusal, Reply},
    session::Session,
};

use super::DeviceRequest;

pub(crate) fn redeem(draft: &mut Draft, command: &pb::RedeemDevice) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Reason::DeviceUnknown, "there is no such device request");
    let device = draft.state.existing_device(DeviceId::parse(&command.device_id)?, draft.at)?;
    // A caller that has the id without the secret, or another client, learns nothing and ends nothing.
    if !device.secret_hash.matches(&SecretHash::parse(&command.secret_hash)?)
        || device.client != ClientId::parse(&command.client_id)?
    {
        return Err(unknown());
    }
    let session = match device.answer {
        DeviceAnswer::Waiting => return Err(Refusal::new(Reason::DevicePending, "nobody has answered yet")),
        DeviceAnswer::Denied => return Err(Refusal::new(Reason::DeviceDenied, "the person said no")),
        DeviceAnswer::Allowed { session } => session,
    };
    let (session, user) = live(draft, session)?;
    let client = draft.state.able_client(&device.client)?;
    client.must_allow(GrantType::DeviceCode)?;
    grant::proved_key(&client, &command.dpop_jkt)?;
    draft.use_up(&command.proofs)?;
    if !draft.state.client_admits(&client, &user, command.policy_version) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    let id = GrantId::parse(&command.grant_id)?;
    if draft.state.grants.contains_key(&id) {
        return Err(Refusal::new(Reason::AlreadyExists, "the grant exists"));
    }
    draft.state.take_device(device.id);
    draft.note_client(&session, &client.id);
    let fetched = pb::RedeemCode {
        family_id: command.family_id.clone(),
        refresh_ttl_ms: command.refresh_ttl_ms,
        access_ttl_ms: command.access_ttl_ms,
        dpop_jkt: command.dpop_jkt.clone(),
        ..pb::RedeemCode::default()
    };
    let grant = granted(draft, id, &device, &session);
    grant::redeem_as(draft, &client, &grant, &fetched)
}

/// The session that the user allowed the device in, if it is live. If the user signed out between the answer and the
/// redemption, nothing is granted.
fn live(
    draft: &Draft,
    session: SessionId,
) -> Result<(std::sync::Arc<Session>, std::sync::Arc<crate::user::User>), Refusal> {
    let ended = |_| Refusal::new(Reason::DeviceDenied, "the person has signed out");
    draft.state.existing_live_session(session, draft.at).map_err(ended)
}

fn granted(draft: &Draft, id: GrantId, device: &DeviceRequest, session: &Session) -> Grant {
    Grant {
        id,
        session: session.id,
        user: session.user,
        client: device.client.clone(),
        redirect_uri: String::new(),
        scopes: device.scopes.clone(),
        nonce: String::new(),
        code_challenge: None,
        secret_hash: device.secret_hash,
        code_expires_at: draft.at,
        redeemed_at: None,
        family: None,
        expires_at: draft.at,
        auth_time: session.auth_time,
        amr: session.amr.clone(),
        epoch: draft.state.meta.revocation_epoch,
        resources: device.resources.clone(),
        id_token_claims: Vec::new(),
        userinfo_claims: Vec::new(),
        dpop_jkt: None,
    }
}
