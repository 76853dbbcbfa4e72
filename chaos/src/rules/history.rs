//! The random commands of a history: users who sign in, clients that redeem and refresh, administrators who change
//! rows; some commands are repeated, some are invalid.

use std::collections::{BTreeMap, VecDeque};

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{Reply, ReplyBody, Stamp, State, ids::UserId, user::User};

use super::log::LoggedCommand;
use crate::random::Random;

/// The time after its first reply within which a request may be repeated: less than the rules remember it, as in the
/// product, where a write is retried for seconds.
const RETRIED_WITHIN_MS: u64 = 100_000;
/// Most requests whose reply may still be lost.
const MAX_RETRIED: usize = 12;
/// Most grants and families that are used again; old ones are dropped.
const MAX_KNOWN: usize = 24;
/// Most users, so that commands often affect the same rows.
const MAX_USERS: usize = 8;
const MINUTE: u64 = 60_000;
const CLIENT: &str = "web";
const REDIRECT_URI: &str = "https://rp.test/cb";
const CODE_SECRET: [u8; 32] = [8; 32];
const CHALLENGE: [u8; 32] = [7; 32];

/// The knowledge of users and clients, from the replies that they got.
#[derive(Debug, Default)]
pub(super) struct RulesHistory {
    recent: VecDeque<(LoggedCommand, Stamp)>,
    grants: VecDeque<Vec<u8>>,
    /// The last generation that each refresh family returned.
    families: BTreeMap<Vec<u8>, u64>,
    made: u64,
}

/// The commands at the start of every history.
pub(super) fn seed_commands() -> Vec<Body> {
    vec![
        Body::CreateGroup(pb::CreateGroup {
            group_id: vec![2; 16],
            name: "staff".into(),
            description: String::new(),
        }),
        Body::CreateClient(pb::CreateClient {
            client_id: CLIENT.into(),
            name: CLIENT.into(),
            auth_method: pb::ClientAuthMethod::SecretBasic.into(),
            secret_hash: vec![1; 32],
            redirect_uris: vec![REDIRECT_URI.into()],
            scopes: vec!["openid".into(), "offline_access".into()],
            signing_algorithm: pb::SigningAlgorithm::Rs256.into(),
            consent: pb::ConsentMode::Implicit.into(),
            back_channel_logout_uri: "https://rp.test/bcl".into(),
            ..Default::default()
        }),
        create_user([1; 16], 0),
    ]
}

impl RulesHistory {
    /// The next command. `state` is the leader's: users act on what they see.
    pub(super) fn next(&mut self, random: &mut Random, state: &State) -> Body {
        self.made += 1;
        let users: Vec<&User> = state.users_after(None).map(AsRef::as_ref).collect();
        let Some(user) = random.pick(&users).copied() else { return create_user(random.id(), self.made) };
        match random.below(100) {
            0..8 if users.len() < MAX_USERS => create_user(random.id(), self.made),
            0..40 => start_session(random, state, user),
            40..58 => self.redeem(random).unwrap_or_else(|| start_session(random, state, user)),
            58..76 => self.rotate(random).unwrap_or_else(|| start_session(random, state, user)),
            76..82 => revoke_session(random, state),
            _ => administer(random, user.id),
        }
    }

    /// Redeems a code that was issued; now and then one that was redeemed before.
    fn redeem(&self, random: &mut Random) -> Option<Body> {
        let grants: Vec<&Vec<u8>> = self.grants.iter().collect();
        let grant_id = (*random.pick(&grants)?).clone();
        Some(Body::RedeemCode(pb::RedeemCode {
            grant_id,
            secret_hash: CODE_SECRET.to_vec(),
            client_id: CLIENT.into(),
            redirect_uri: REDIRECT_URI.into(),
            code_challenge: CHALLENGE.to_vec(),
            family_id: random.id().to_vec(),
            refresh_ttl_ms: 6_000 * MINUTE,
            access_ttl_ms: 10 * MINUTE,
            ..Default::default()
        }))
    }

    /// Presents the current token, the previous one (its reply was lost), or an older one (stolen).
    fn rotate(&self, random: &mut Random) -> Option<Body> {
        let families: Vec<(&Vec<u8>, &u64)> = self.families.iter().collect();
        let (family, held) = random.pick(&families)?;
        let back = match random.below(100) {
            0..65 => 0,
            65..96 => 1,
            _ => 2,
        };
        Some(Body::RotateRefresh(pb::RotateRefresh {
            family_id: (*family).clone(),
            client_id: CLIENT.into(),
            generation: held.saturating_sub(back).max(1),
            retry_window_ms: 30_000,
            access_ttl_ms: 10 * MINUTE,
            ..Default::default()
        }))
    }

    /// Records what users and clients learn from a reply.
    pub(super) fn learn(&mut self, command: &LoggedCommand, reply: &Reply, clock: Stamp) {
        if !command.repeated {
            self.recent.push_back((command.clone(), clock));
            if self.recent.len() > MAX_RETRIED {
                self.recent.pop_front();
            }
        }
        match &reply.body {
            Some(ReplyBody::SessionStarted(started)) => self.grants.push_back(started.grant_id.clone()),
            Some(ReplyBody::CodeRedeemed(redeemed)) => {
                self.families.insert(redeemed.family_id.clone(), 1);
            }
            Some(ReplyBody::RefreshRotated(rotated)) => {
                if let Body::RotateRefresh(rotate) = &command.body {
                    self.families.insert(rotate.family_id.clone(), rotated.generation);
                }
            }
            _ => {}
        }
        if self.grants.len() > MAX_KNOWN {
            self.grants.pop_front();
        }
        if self.families.len() > MAX_KNOWN {
            self.families.pop_first();
        }
    }

    /// A request whose reply was lost. `stamp_ms` is the time of its repetition.
    pub(super) fn retry(&self, random: &mut Random, stamp_ms: u64) -> Option<LoggedCommand> {
        let still_known = |(_, first): &&(LoggedCommand, Stamp)| {
            let last = self.recent.back().map_or(Stamp(stamp_ms), |(_, clock)| (*clock).max(Stamp(stamp_ms)));
            last < first.plus_ms(RETRIED_WITHIN_MS)
        };
        let candidates: Vec<&LoggedCommand> =
            self.recent.iter().filter(still_known).map(|(command, _)| command).collect();
        random.pick(&candidates).map(|command| (*command).clone())
    }
}

fn create_user(id: [u8; 16], number: u64) -> Body {
    Body::CreateUser(pb::CreateUser {
        user_id: id.to_vec(),
        username: format!("user{number}"),
        email: format!("user{number}@example.test"),
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".into(),
        ..Default::default()
    })
}

fn start_session(random: &mut Random, state: &State, user: &User) -> Body {
    let scopes = if random.percent(30) { vec!["openid", "offline_access"] } else { vec!["openid"] };
    let (session_id, stamp) = (random.id().to_vec(), state.meta().clock);
    let code = pb::IssueCode {
        grant_id: random.id().to_vec(),
        session_id: session_id.clone(),
        client_id: CLIENT.into(),
        redirect_uri: REDIRECT_URI.into(),
        scopes: scopes.into_iter().map(str::to_owned).collect(),
        code_challenge: CHALLENGE.to_vec(),
        secret_hash: CODE_SECRET.to_vec(),
        code_ttl_ms: MINUTE,
        ..Default::default()
    };
    Body::StartSession(pb::StartSession {
        session_id,
        user_id: user.id.to_vec(),
        secret_hash: vec![9; 32],
        ticket_id: random.id().to_vec(),
        ticket_expires_at_ms: stamp.plus_ms(10 * MINUTE).0,
        amr: vec!["pwd".into()],
        ttl_ms: 40 * MINUTE,
        credential_version: state.password(user.id).map_or(0, |password| password.version),
        code: Some(code),
        ..Default::default()
    })
}

fn revoke_session(random: &mut Random, state: &State) -> Body {
    let sessions: Vec<_> = state.sessions_after(None).map(|session| session.id).collect();
    let session_id = random.pick(&sessions).map_or_else(|| vec![0; 16], |id| id.to_vec());
    Body::RevokeSession(pb::RevokeSession { session_id })
}

fn administer(random: &mut Random, user: UserId) -> Body {
    let user_id = user.to_vec();
    match random.below(20) {
        0..4 => Body::RevokeUserSessions(pb::RevokeUserSessions { user_id, ..Default::default() }),
        4..10 => {
            let disabled = Some(random.percent(30));
            Body::UpdateUser(pb::UpdateUser { user_id, disabled, ..Default::default() })
        }
        10 => Body::DeleteUser(pb::DeleteUser { user_id }),
        11..13 => Body::SetPassword(pb::SetPassword {
            user_id,
            password_phc: "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3".into(),
            keep_sessions: random.percent(50),
        }),
        13..15 => Body::AddGroupMember(pb::AddGroupMember { group_id: vec![2; 16], user_id }),
        15..17 => Body::ReserveAttempt(pb::ReserveAttempt { user_id, limit: 2, window_ms: MINUTE }),
        17 => Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}),
        _ => Body::Sweep(pb::Sweep { limit: 8 }),
    }
}
