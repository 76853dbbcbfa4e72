//! The state that results when an older state replaces the newest one.
//!
//! Taken from the older state: users, groups, applications, policies, clients, providers. Taken from the newest state,
//! because the older values would bring back what was revoked or spent since: passwords, secrets, keys, spent tickets,
//! throttles, the request memory. Kept only if both states have them: API tokens, app passwords, identities, consents.
//! Users who were disabled or deleted since come back disabled. No session survives.

use std::sync::Arc;

use crate::{
    app_password::AppPassword,
    client::{Client, RequestPolicy, TokenPolicy},
    consent::Consent,
    key::{KeyStage, SigningKey},
    level,
    snapshot::Row as _,
    stamp::Stamp,
    state::{Meta, State},
    upstream::{AllowList, LinkedIdentity, Rule, Upstream},
    user::{FormerName, User},
};

use super::staging::Staging;

/// The cluster in which the older state is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// A new cluster that is founded with it. Its keys sign nothing more, because it is unknown who has them.
    NewCluster,
    /// The running cluster. Its keys stay.
    Live,
}

/// Options of a restore.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// The log index of the result.
    pub index: u64,
    /// The time of the restore.
    pub at: Stamp,
    /// The target of the restore.
    pub target: RestoreTarget,
    /// The epoch of the lineage that the restore ends.
    pub former_epoch: Option<u64>,
    /// No member gets this node id or a lower one.
    pub last_node_id: u64,
    /// Sessions survive. Only if `older` is the newest state itself, and nothing can have been revoked after it.
    pub keep_sessions: bool,
    /// Re-enables users who were deleted since.
    pub enable_returning: bool,
    /// Sets log time to `at` although it was later in the states, because clocks had been wrong. Not together with
    /// `keep_sessions`.
    pub reset_log_time: bool,
}

/// The part of a state that a restore uses; the rest need not be sent.
#[must_use]
pub fn restorable_subset(older: &State) -> State {
    State {
        meta: older.meta.clone(),
        tokens: older.tokens.clone(),
        app_passwords: older.app_passwords.clone(),
        ..rows_made_by_users(older)
    }
}

/// The state after `older` has replaced `newest`.
#[must_use]
pub fn restored(older: &State, newest: &State, options: &MergeOptions) -> State {
    let meta = numbers(older, newest, options);
    let mut next = if options.keep_sessions {
        without_staging(newest)
    } else {
        let mut next = State { meta: meta.clone(), ..rows_made_by_users(older) };
        keep_what_was_spent(&mut next, newest);
        keep_people_as_restricted(&mut next, newest, options);
        keep_former_names(&mut next, newest);
        keep_clients_as_restricted(&mut next, newest, options);
        keep_providers_as_restricted(&mut next, newest);
        keep_credentials_in_both(&mut next, older, newest);
        next
    };
    next.meta = meta;
    keep_keys(&mut next, newest, options);
    let log_time = next.meta.clock;
    if older.meta.clock.max(newest.meta.clock) > log_time {
        next.forget_what_came_after(log_time);
    }
    next
}

/// Log time of the result. A running cluster keeps its own: a snapshot whose log time is ahead does not move it.
fn log_time(older: &State, newest: &State, options: &MergeOptions) -> Stamp {
    let keeps_own = options.target == RestoreTarget::Live && newest.meta.level >= level::BOUNDED_LOG_TIME;
    if options.reset_log_time {
        options.at
    } else if keeps_own {
        newest.meta.clock.max(options.at)
    } else {
        newest.meta.clock.max(older.meta.clock).max(options.at)
    }
}

fn without_staging(newest: &State) -> State {
    let mut next = newest.clone();
    if let Some((id, ..)) = newest.restore_on_its_way().map(Staging::progress) {
        next.forget_restore(id);
    }
    next
}

/// Most lineage epochs remembered: handles from an older one are unknown.
const MAX_FORMER_EPOCHS: usize = 64;

fn numbers(older: &State, newest: &State, options: &MergeOptions) -> Meta {
    let mut former_epochs = newest.meta.former_epochs.clone();
    former_epochs.extend(options.former_epoch);
    let forgotten = former_epochs.len().saturating_sub(MAX_FORMER_EPOCHS);
    former_epochs.drain(..forgotten);
    let epoch = newest.meta.revocation_epoch.max(older.meta.revocation_epoch);
    Meta {
        index: options.index,
        clock: log_time(older, newest, options),
        level: newest.meta.level.max(older.meta.level),
        revocation_epoch: if options.keep_sessions { epoch } else { epoch + 1 },
        next_outbox: newest.meta.next_outbox.max(older.meta.next_outbox),
        lease_terms: newest.meta.lease_terms,
        last_node_id: newest.meta.last_node_id.max(older.meta.last_node_id).max(options.last_node_id),
        former_epochs,
        // The pairwise subjects that relying parties know are derived from the keys in there.
        secret: newest.meta.secret.clone().or_else(|| older.meta.secret.clone()),
    }
}

/// Takes over the maps that operators edit. They are shared, not copied, so a million rows cost nothing here.
fn rows_made_by_users(older: &State) -> State {
    let older = older.clone();
    State {
        users: older.users,
        usernames: older.usernames,
        users_by_address: older.users_by_address,
        former_names: older.former_names,
        former_names_by_time: older.former_names_by_time,
        passwords: older.passwords,
        subjects_by_user: older.subjects_by_user,
        groups: older.groups,
        group_names: older.group_names,
        groups_by_folded_name: older.groups_by_folded_name,
        members: older.members,
        applications: older.applications,
        slugs: older.slugs,
        hosts: older.hosts,
        policies: older.policies,
        clients: older.clients,
        consents: older.consents,
        upstreams: older.upstreams,
        identities: older.identities,
        pictures: older.pictures,
        pictures_by_id: older.pictures_by_id,
        ..State::default()
    }
}

fn keep_what_was_spent(next: &mut State, newest: &State) {
    for ticket in newest.tickets.values() {
        ticket.clone().put(next);
    }
    for throttle in newest.throttles.values() {
        (*throttle).put(next);
    }
    for revoked in newest.revoked_access.values() {
        (*revoked).put(next);
    }
    next.requests = newest.requests.clone();
    next.request_order = newest.request_order.clone();
    next.outbox = newest.outbox.clone();
}

fn keep_people_as_restricted(next: &mut State, newest: &State, options: &MergeOptions) {
    for (id, user) in next.users.clone() {
        let Some(known) = newest.users.get(&id) else {
            if !options.enable_returning && !user.disabled {
                next.users.insert(id, Arc::new(User { disabled: true, ..(*user).clone() }));
            }
            continue;
        };
        if known.disabled && !user.disabled {
            next.users.insert(id, Arc::new(User { disabled: true, ..(*user).clone() }));
        }
        match newest.passwords.get(&id) {
            Some(password) if next.passwords.get(&id) == Some(password) => {}
            Some(password) => drop(next.passwords.insert(id, Arc::clone(password))),
            None => drop(next.passwords.remove(&id)),
        }
    }
}

/// Keeps a name reserved that was given up since, or whose user is removed by the restore: no newcomer gets it. A user
/// who comes back keeps their name.
fn keep_former_names(next: &mut State, newest: &State) {
    if next.meta.level < level::NAMES {
        return;
    }
    for former in newest.former_names.values() {
        next.put_former_name((**former).clone());
    }
    let at = next.meta.clock;
    for user in newest.users.values() {
        next.put_former_name(FormerName { username: user.username.clone(), user: user.id, since: at });
    }
}

fn keep_clients_as_restricted(next: &mut State, newest: &State, options: &MergeOptions) {
    for (id, client) in next.clients.clone() {
        let merged = match newest.clients.get(&id) {
            // Its tokens ended when it was deleted.
            None => Client { disabled: true, own_tokens_since: options.index, ..(*client).clone() },
            Some(known) => Client {
                disabled: client.disabled || known.disabled,
                secret_hash: known.secret_hash,
                previous_secret: known.previous_secret,
                auth_method: known.auth_method,
                own_tokens_since: known.own_tokens_since.max(client.own_tokens_since),
                // The client authenticates by these as by a secret: a key that was replaced since is no longer valid.
                tokens: TokenPolicy {
                    jwks: known.tokens.jwks.clone(),
                    assertion_algorithm: known.tokens.assertion_algorithm,
                    certificate_name: known.tokens.certificate_name.clone(),
                    ..client.tokens.clone()
                },
                requests: RequestPolicy {
                    registration_token_hash: known.requests.registration_token_hash,
                    ..client.requests.clone()
                },
                ..(*client).clone()
            },
        };
        if merged != *client {
            next.clients.insert(id, Arc::new(merged));
        }
    }
}

fn keep_providers_as_restricted(next: &mut State, newest: &State) {
    for (name, upstream) in next.upstreams.clone() {
        let merged = match newest.upstreams.get(&name) {
            None => Upstream { disabled: true, ..(*upstream).clone() },
            Some(known) => Upstream {
                // The provider's endpoints changed since: disable it, because its secret and its subject ids no longer
                // match.
                disabled: upstream.disabled || known.disabled || upstream.location != known.location,
                sealed_secret: known.sealed_secret.clone(),
                rule: Rule {
                    listed: AllowList {
                        // A first token that was used since stays used.
                        first: upstream
                            .rule
                            .listed
                            .first
                            .filter(|first| known.rule.listed.first == Some(*first)),
                        ..upstream.rule.listed.clone()
                    },
                    ..upstream.rule.clone()
                },
                ..(*upstream).clone()
            },
        };
        if merged != *upstream {
            next.upstreams.insert(name, Arc::new(merged));
        }
    }
}

/// Keeps the credentials of the older state that were not revoked since.
fn keep_credentials_in_both(next: &mut State, older: &State, newest: &State) {
    for token in older.tokens.values().filter(|token| newest.tokens.contains_key(&token.id)) {
        next.put_token((**token).clone());
    }
    // Programs cannot sign in again by themselves: app passwords that were valid stay valid in the new epoch.
    let epoch = next.meta.revocation_epoch;
    for id in older.app_passwords.keys() {
        let known = newest.app_passwords.get(id);
        // Take the newest row: it may have been rehashed since, under another cluster secret.
        if let Some(known) = known.filter(|known| known.epoch == newest.meta.revocation_epoch) {
            next.put_app_password(AppPassword { epoch, ..(**known).clone() });
        }
    }
    next.consents = older.consents.clone();
    for (key, consent) in &older.consents {
        match newest.consents.get(key) {
            None => drop(next.consents.remove(key)),
            Some(known) if known == consent => {}
            // The consent was revoked in between and given again for less.
            Some(known) => drop(next.consents.insert(key.clone(), Arc::new(in_both(consent, known)))),
        }
    }
    for (key, identity) in &older.identities {
        let known = newest.identities.get(key);
        let same = known.is_some_and(|known| known.user == identity.user);
        // Keep the identities of users that come back disabled.
        if !same && (known.is_some() || newest.users.contains_key(&identity.user)) {
            next.identities.remove(key);
        } else if let Some(known) = known.filter(|known| known.is_held_out()) {
            let held = LinkedIdentity { let_in: known.let_in.clone(), ..(**identity).clone() };
            next.identities.insert(key.clone(), Arc::new(held));
        }
    }
}

fn in_both(then: &Consent, known: &Consent) -> Consent {
    let both = |then: &[String], known: &[String]| {
        then.iter().filter(|one| known.contains(one)).cloned().collect::<Vec<_>>()
    };
    Consent {
        scopes: both(&then.scopes, &known.scopes),
        claims: both(&then.claims, &known.claims),
        resources: both(&then.resources, &known.resources),
        ..then.clone()
    }
}

fn keep_keys(next: &mut State, newest: &State, options: &MergeOptions) {
    next.keys = newest.keys.clone();
    if options.target == RestoreTarget::Live {
        return;
    }
    for (kid, key) in &newest.keys {
        match key.stage {
            KeyStage::Next => drop(next.keys.remove(kid)),
            KeyStage::Active(active_since) => {
                let stage = KeyStage::Retired { active_since, at: next.meta.clock };
                next.put_key(SigningKey { stage, ..(**key).clone() });
            }
            KeyStage::Retired { .. } => {}
        }
    }
}
