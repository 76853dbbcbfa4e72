//! `RotateRefresh`: the current token is replaced by its successor. For a short time, the retry of a lost response gets
//! the same token; reuse ends the family.

use conclave_proto::command::v1 as pb;

use super::{Grant, RefreshFamily, dpop};
use crate::{
    client::{ClientId, GrantType},
    draft::Draft,
    event::Event,
    ids::FamilyId,
    reply::{Reason, Refusal, Reply, ReplyBody, body},
    user::User,
};

/// Longest window in which the retry of a lost response is honoured.
const MAX_RETRY_WINDOW_MS: u64 = 120_000;

pub(crate) fn rotate_refresh(draft: &mut Draft, command: &pb::RotateRefresh) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Reason::RefreshUnknown, "no such refresh token");
    let id = FamilyId::parse(&command.family_id)?;
    let family = draft.state.families.get(&id).cloned().ok_or_else(unknown)?;
    let (grant, user) = draft.state.existing_live_grant(family.grant, draft.at).map_err(|_| unknown())?;
    if grant.client != ClientId::parse(&command.client_id)? {
        return Err(unknown());
    }
    if family.expires_at.is_over_at(draft.at) {
        return Err(Refusal::new(Reason::RefreshExpired, "the refresh token has expired"));
    }
    let client = draft.state.able_client(&grant.client)?;
    if !draft.state.client_admits(&client, &user, command.policy_version) {
        return Err(Refusal::new(
            Reason::AccessDenied,
            format!("{} may not open {}", user.username, client.id),
        ));
    }
    client.must_allow(GrantType::RefreshToken)?;
    // Before the generation is compared: a caller without the key has a stolen token, and must not end the owner's
    // family.
    dpop::proved(&client, family.dpop_jkt, dpop::parse(&command.dpop_jkt)?)?;
    draft.use_up(&command.proofs)?;
    match judge(draft, &family, command) {
        Use::Current => {
            let next = RefreshFamily {
                generation: family.generation + 1,
                rotated_at: draft.at,
                rotated_index: draft.index,
                ..(*family).clone()
            };
            draft.state.put_family(next.clone());
            Ok(rotated(&next, &grant, &user))
        }
        Use::Retry => Ok(rotated(&family, &grant, &user)),
        Use::Reuse => {
            draft.state.take_grant(grant.id);
            draft.report(Event::RefreshReused { family: id });
            Draft::refuse_and_keep(Refusal::new(
                Reason::RefreshReused,
                "the refresh token was used before; all of its line end",
            ))
        }
    }
}

enum Use {
    Current,
    Retry,
    Reuse,
}

fn judge(draft: &Draft, family: &RefreshFamily, command: &pb::RotateRefresh) -> Use {
    let window = command.retry_window_ms.min(MAX_RETRY_WINDOW_MS);
    let within = draft.at <= family.rotated_at.plus_ms(window);
    if command.generation == family.generation {
        Use::Current
    } else if command.generation.checked_add(1) == Some(family.generation) && within {
        Use::Retry
    } else {
        Use::Reuse
    }
}

fn rotated(family: &RefreshFamily, grant: &Grant, user: &User) -> Reply {
    body(ReplyBody::RefreshRotated(pb::RefreshRotated {
        grant_id: grant.id.to_vec(),
        user_id: user.id.to_vec(),
        session_id: grant.session.to_vec(),
        scopes: grant.scopes.clone(),
        auth_time_ms: grant.auth_time.0,
        amr: grant.amr.clone(),
        generation: family.generation,
        index: family.rotated_index,
        at_ms: family.rotated_at.0,
    }))
}
