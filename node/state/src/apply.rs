//! The only entry point that changes the state. Around every command: decode, stamp, look up the request memory,
//! dispatch, remember the reply.

use conclave_proto::command::v1::{self as pb, command::Body};
use prost::Message as _;

use crate::{
    access, app_password, application,
    class::{Class, class, class_of_answer},
    client, consent, device,
    draft::Draft,
    event::Event,
    grant, group,
    ids::RequestId,
    key, level, outbox, picture, policy, pushed,
    reply::{Refusal, Reply},
    restore, secret, session,
    stamp::Stamp,
    state::State,
    system, throttle, token, upstream, user,
};

/// A committed entry: its index in the log, and the bytes of a `LogEntry`.
#[derive(Clone, Copy, Debug)]
pub struct IndexedEntry<'a> {
    /// The Raft log index.
    pub index: u64,
    /// An encoded `conclave.command.v1.LogEntry`.
    pub bytes: &'a [u8],
}

/// The result of applying an entry.
#[derive(Clone, Debug)]
pub struct ApplyResult {
    /// The next version of the state.
    pub state: State,
    /// The reply to the proposer.
    pub reply: Reply,
    /// Events for metrics and the audit line.
    pub events: Vec<Event>,
    /// Decides when the caller gets the reply.
    pub class: Class,
}

/// The entry cannot be understood: the node stops, because skipping it would make the replicas diverge
/// (docs/design/README.md, P9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Written by a newer version, or damaged.
    #[error("log entry {index} holds a command this version does not know; upgrade this node")]
    UnknownCommand {
        /// The log index.
        index: u64,
    },
    /// The entry raises the feature level above the one that this build supports.
    #[error(
        "log entry {index} raises the feature level to {level}, this version supports {}; upgrade this node",
        level::SUPPORTED
    )]
    LevelTooNew {
        /// The log index.
        index: u64,
        /// The level that the entry requests.
        level: u32,
    },
}

/// Applies one committed entry.
///
/// # Errors
/// [`Halt`] when this build does not understand the entry.
pub fn apply(state: &State, entry: &IndexedEntry<'_>) -> Result<ApplyResult, Halt> {
    let unknown = || Halt::UnknownCommand { index: entry.index };
    let log_entry = pb::LogEntry::decode(entry.bytes).map_err(|_| unknown())?;
    let command = pb::Command::decode(log_entry.command.as_slice()).map_err(|_| unknown())?;
    let body = command.body.ok_or_else(unknown)?;
    let class = class(&body);

    let mut draft = Draft::begin(state, entry.index, Stamp(log_entry.at_ms));
    let request = match RequestId::parse(&command.request_id) {
        Ok(request) => request,
        Err(refusal) => return Ok(finished(draft, refusal.into_reply(), class)),
    };
    if let Some(reply) = draft.state.remembered(request) {
        return Ok(finished(draft, reply, class));
    }
    let untouched = draft.state.clone();
    let reply = match dispatch(&mut draft, body, entry.index)? {
        Ok(reply) => reply,
        Err(refusal) => {
            draft.state = untouched;
            refusal.into_reply()
        }
    };
    draft.state.remember(request, draft.at, reply.clone());
    Ok(finished(draft, reply, class))
}

fn finished(draft: Draft, reply: Reply, class: Class) -> ApplyResult {
    let class = if class == Class::Plain { class_of_answer(&reply) } else { class };
    let (state, events) = draft.into_parts();
    ApplyResult { state, reply, events, class }
}

fn dispatch(draft: &mut Draft, body: Body, index: u64) -> Result<Result<Reply, Refusal>, Halt> {
    Ok(match body {
        Body::CreateUser(command) => user::create(draft, &command),
        Body::UpdateUser(command) => user::update(draft, &command),
        Body::DeleteUser(command) => user::delete(draft, &command),
        Body::SetPassword(command) => user::set_password(draft, &command),
        Body::SetPicture(command) => picture::set(draft, &command),
        Body::ResetPassword(command) => user::reset_password(draft, &command),
        Body::RenameUser(command) => user::rename(draft, &command),
        Body::CreateGroup(command) => group::create(draft, &command),
        Body::DeleteGroup(command) => group::delete(draft, &command),
        Body::RenameGroup(command) => group::rename(draft, &command),
        Body::AddGroupMember(command) => group::add_member(draft, &command),
        Body::RemoveGroupMember(command) => group::remove_member(draft, &command),
        Body::CreateApplication(command) => application::create(draft, &command),
        Body::UpdateApplication(command) => application::update(draft, &command),
        Body::DeleteApplication(command) => application::delete(draft, &command),
        Body::CreateClient(command) => client::create(draft, &command),
        Body::UpdateClient(command) => client::update(draft, &command),
        Body::DeleteClient(command) => client::delete(draft, &command),
        Body::StartSession(command) => session::start(draft, &command),
        Body::RevokeSession(command) => session::revoke(draft, &command),
        Body::RevokeUserSessions(command) => session::revoke_of_user(draft, &command),
        Body::RevokeUserAccess(command) => session::revoke_access_of_user(draft, &command),
        Body::OpenAppSession(command) => session::open_app_session(draft, &command),
        Body::IssueCode(command) => grant::issue_code(draft, &command),
        Body::RedeemCode(command) => grant::redeem_code(draft, &command),
        Body::RotateRefresh(command) => grant::rotate_refresh(draft, &command),
        Body::RevokeGrant(command) => grant::revoke(draft, &command),
        Body::PushRequest(command) => pushed::push(draft, &command),
        Body::StartDevice(command) => device::start(draft, &command),
        Body::AnswerDevice(command) => device::answer(draft, &command),
        Body::RedeemDevice(command) => device::redeem(draft, &command),
        Body::RevokeConsent(command) => consent::revoke(draft, &command),
        Body::CreateUpstream(command) => upstream::create(draft, &command),
        Body::UpdateUpstream(command) => upstream::update(draft, &command),
        Body::DeleteUpstream(command) => upstream::delete(draft, &command),
        Body::LinkIdentity(command) => upstream::link(draft, &command),
        Body::UnlinkIdentity(command) => upstream::unlink(draft, &command),
        Body::SignInUpstream(command) => upstream::sign_in(draft, &command),
        Body::SignInByHandle(command) => upstream::sign_in_by_handle(draft, &command),
        Body::SignInAgain(command) => session::sign_in_again(draft, &command),
        Body::UnlockUser(command) => user::unlock(draft, &command),
        Body::InviteIdentity(command) => upstream::invite(draft, &command),
        Body::RevokeInvitation(command) => upstream::revoke_invitation(draft, &command),
        Body::CheckHandle(command) => upstream::check_handle(draft, &command),
        Body::CreateAppPassword(command) => app_password::create(draft, &command),
        Body::RevokeAppPassword(command) => app_password::revoke(draft, &command),
        Body::RehashAppPassword(command) => app_password::rehash(draft, &command),
        Body::ChangeSecret(command) => secret::change(draft, &command),
        Body::Reseal(command) => secret::reseal(draft, &command),
        Body::SetPolicy(command) => policy::set(draft, &command),
        Body::RemovePolicy(command) => policy::remove(draft, &command),
        Body::PromoteCandidate(command) => policy::promote(draft, &command),
        Body::AddSigningKey(command) => key::add(draft, &command),
        Body::RetireSigningKey(command) => key::retire(draft, &command),
        Body::ActivateSigningKey(command) => key::activate(draft, &command),
        Body::CreateApiToken(command) => token::create(draft, &command),
        Body::RevokeApiToken(command) => token::revoke(draft, &command),
        Body::SpendProofs(command) => system::spend_proofs(draft, &command),
        Body::RevokeAccessToken(command) => access::revoke(draft, &command),
        Body::ReserveAttempt(command) => throttle::reserve(draft, &command),
        Body::RaiseLevel(command) if command.level > level::SUPPORTED => {
            return Err(Halt::LevelTooNew { index, level: command.level });
        }
        Body::RaiseLevel(command) => system::raise_level(draft, &command),
        Body::RaiseRevocationEpoch(_) => system::raise_revocation_epoch(draft),
        Body::AcknowledgeOutbox(command) => outbox::acknowledge(draft, &command),
        Body::Sweep(command) => system::sweep(draft, &command),
        Body::ReserveNodeId(command) => system::reserve_node_id(draft, &command),
        Body::SetClock(command) => system::set_clock(draft, &command),
        Body::SetLeaseTerms(command) => system::set_lease_terms(draft, &command),
        Body::BeginRestore(command) => restore::begin(draft, &command),
        Body::StageRows(command) => restore::stage(draft, &command),
        Body::CommitRestore(command) => restore::commit(draft, &command),
        Body::AbortRestore(command) => restore::abort(draft, &command),
    })
}
