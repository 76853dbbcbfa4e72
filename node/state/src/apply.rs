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
pub struct Entry<'a> {
    /// The Raft log index.
    pub index: u64,
    /// An encoded `conclave.command.v1.LogEntry`.
    pub bytes: &'a [u8],
}

/// The result of applying an entry.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The next version of the state.
    pub state: State,
    /// The reply to the proposer.
    pub reply: Reply,
    /// Events for metrics and the audit line.
    pub events: Vec<Event>,
    /// Decides when the caller gets the reply.
    pub class: Class,
}

/// The entry cannot be understood: the node stops, because skipping it would make the replicas diverge (design.md P9).
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
pub fn apply(state: &State, entry: &Entry<'_>) -> Result<Applied, Halt> {
    let unknown = || Halt::UnknownCommand { index: entry.index };
    let log_entry = pb::LogEntry::decode(entry.bytes).map_err(|_| unknown())?;
    let command = pb::Command::decode(log_entry.command.as_slice()).map_err(|_| unknown())?;
    let order = command.body.ok_or_else(unknown)?;
    let class = class(&order);

    let mut draft = Draft::begin(state, entry.index, Stamp(log_entry.at_ms));
    let request = match RequestId::parse(&command.request_id) {
        Ok(request) => request,
        Err(refusal) => return Ok(finished(draft, refusal.into_reply(), class)),
    };
    if let Some(reply) = draft.state.remembered(request) {
        return Ok(finished(draft, reply, class));
    }
    let untouched = draft.state.clone();
    let reply = match dispatch(&mut draft, order, entry.index)? {
        Ok(reply) => reply,
        Err(refusal) => {
            draft.state = untouched;
            refusal.into_reply()
        }
    };
    draft.state.remember(request, draft.at, reply.clone());
    Ok(finished(draft, reply, class))
}

fn finished(draft: Draft, reply: Reply, class: Class) -> Applied {
    let class = if class == Class::Plain { class_of_answer(&reply) } else { class };
    let (state, events) = draft.into_parts();
    Applied { state, reply, events, class }
}

fn dispatch(draft: &mut Draft, order: Body, index: u64) -> Result<Result<Reply, Refusal>, Halt> {
    Ok(match order {
        Body::CreateUser(order) => user::create(draft, &order),
        Body::UpdateUser(order) => user::update(draft, &order),
        Body::DeleteUser(order) => user::delete(draft, &order),
        Body::SetPassword(order) => user::set_password(draft, &order),
        Body::SetPicture(order) => picture::set(draft, &order),
        Body::ResetPassword(order) => user::reset_password(draft, &order),
        Body::RenameUser(order) => user::rename(draft, &order),
        Body::CreateGroup(order) => group::create(draft, &order),
        Body::DeleteGroup(order) => group::delete(draft, &order),
        Body::RenameGroup(order) => group::rename(draft, &order),
        Body::AddGroupMember(order) => group::add_member(draft, &order),
        Body::RemoveGroupMember(order) => group::remove_member(draft, &order),
        Body::CreateApplication(order) => application::create(draft, &order),
        Body::UpdateApplication(order) => application::update(draft, &order),
        Body::DeleteApplication(order) => application::delete(draft, &order),
        Body::CreateClient(order) => client::create(draft, &order),
        Body::UpdateClient(order) => client::update(draft, &order),
        Body::DeleteClient(order) => client::delete(draft, &order),
        Body::StartSession(order) => session::start(draft, &order),
        Body::RevokeSession(order) => session::revoke(draft, &order),
        Body::RevokeUserSessions(order) => session::revoke_of_user(draft, &order),
        Body::RevokeUserAccess(order) => session::revoke_access_of_user(draft, &order),
        Body::OpenAppSession(order) => session::open_arm(draft, &order),
        Body::IssueCode(order) => grant::issue_code(draft, &order),
        Body::RedeemCode(order) => grant::redeem_code(draft, &order),
        Body::RotateRefresh(order) => grant::rotate_refresh(draft, &order),
        Body::RevokeGrant(order) => grant::revoke(draft, &order),
        Body::PushRequest(order) => pushed::push(draft, &order),
        Body::StartDevice(order) => device::start(draft, &order),
        Body::AnswerDevice(order) => device::answer(draft, &order),
        Body::RedeemDevice(order) => device::redeem(draft, &order),
        Body::RevokeConsent(order) => consent::revoke(draft, &order),
        Body::CreateUpstream(order) => upstream::create(draft, &order),
        Body::UpdateUpstream(order) => upstream::update(draft, &order),
        Body::DeleteUpstream(order) => upstream::delete(draft, &order),
        Body::LinkIdentity(order) => upstream::link(draft, &order),
        Body::UnlinkIdentity(order) => upstream::unlink(draft, &order),
        Body::SignInUpstream(order) => upstream::sign_in(draft, &order),
        Body::SignInByHandle(order) => upstream::sign_in_by_handle(draft, &order),
        Body::SignInAgain(order) => session::sign_in_again(draft, &order),
        Body::UnlockUser(order) => user::unlock(draft, &order),
        Body::InviteIdentity(order) => upstream::invite(draft, &order),
        Body::RevokeInvitation(order) => upstream::revoke_invitation(draft, &order),
        Body::CheckHandle(order) => upstream::check_handle(draft, &order),
        Body::CreateAppPassword(order) => app_password::create(draft, &order),
        Body::RevokeAppPassword(order) => app_password::revoke(draft, &order),
        Body::RehashAppPassword(order) => app_password::rehash(draft, &order),
        Body::ChangeSecret(order) => secret::change(draft, &order),
        Body::Reseal(order) => secret::reseal(draft, &order),
        Body::SetPolicy(order) => policy::set(draft, &order),
        Body::RemovePolicy(order) => policy::remove(draft, &order),
        Body::PromoteCandidate(order) => policy::promote(draft, &order),
        Body::AddSigningKey(order) => key::add(draft, &order),
        Body::RetireSigningKey(order) => key::retire(draft, &order),
        Body::ActivateSigningKey(order) => key::activate(draft, &order),
        Body::CreateApiToken(order) => token::create(draft, &order),
        Body::RevokeApiToken(order) => token::revoke(draft, &order),
        Body::SpendProofs(order) => system::spend_proofs(draft, &order),
        Body::RevokeAccessToken(order) => access::revoke(draft, &order),
        Body::ReserveAttempt(order) => throttle::reserve(draft, &order),
        Body::RaiseLevel(order) if order.level > level::SUPPORTED => {
            return Err(Halt::LevelTooNew { index, level: order.level });
        }
        Body::RaiseLevel(order) => system::raise_level(draft, &order),
        Body::RaiseRevocationEpoch(_) => system::raise_revocation_epoch(draft),
        Body::AcknowledgeOutbox(order) => outbox::acknowledge(draft, &order),
        Body::Sweep(order) => system::sweep(draft, &order),
        Body::ReserveNodeId(order) => system::reserve_node_id(draft, &order),
        Body::SetClock(order) => system::set_clock(draft, &order),
        Body::SetLeaseTerms(order) => system::set_lease_terms(draft, &order),
        Body::BeginRestore(order) => restore::begin(draft, &order),
        Body::StageRows(order) => restore::stage(draft, &order),
        Body::CommitRestore(order) => restore::commit(draft, &order),
        Body::AbortRestore(order) => restore::abort(draft, &order),
    })
}
