//! The facts that a policy may read. All of them are passed in explicitly; an unknown fact is marked as unknown and
//! never guessed.

use std::net::IpAddr;

use crate::{path::CanonicalPath, spec::Id};

/// The user of the request. A trait, so that a row about a group reads the replicated row in place.
pub trait PolicyUser {
    /// True if the account is disabled: then no rule is evaluated.
    fn is_disabled(&self) -> bool;
    /// The user's id.
    fn id(&self) -> Id;
    /// True if the user is a member.
    fn is_in(&self, group: &Id) -> bool;
    /// The name for signing in.
    fn username(&self) -> &str;
    /// The display name.
    fn display_name(&self) -> &str;
    /// The e-mail address; empty = none.
    fn email(&self) -> &str;
    /// True if the address was verified.
    fn email_verified(&self) -> bool;
    /// Names of the user's groups.
    fn group_names(&self) -> Vec<&str>;
    /// The user's DID, if they have an Atmosphere identity (atproto).
    fn atproto_did(&self) -> Option<&str>;
    /// The user's Atmosphere handle, while it is verified.
    fn atproto_handle(&self) -> Option<&str>;
    /// The value of an attribute that an operator set.
    fn attribute(&self, name: &str) -> Option<&str>;
}

/// The input of one decision.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The user.
    pub person: &'a dyn PolicyUser,
    /// The client address; none if it is unknown.
    pub address: Option<IpAddr>,
    /// The request; none if the decision is not about a single request (an OIDC client).
    pub request: Option<Request<'a>>,
    /// The session.
    pub sign_in: Option<SignIn<'a>>,
    /// The location of the address.
    pub place: AddressFacts<'a>,
    /// The time in Unix milliseconds.
    pub now_ms: u64,
}

/// The request to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method as the client wrote it; none if the proxy does not forward it.
    pub method: Option<&'a str>,
    /// The host in lower case, without port.
    pub host: &'a str,
    /// The path; none if it is ambiguous.
    pub path: Option<&'a CanonicalPath>,
}

/// The session.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// The time at which the user authenticated, Unix milliseconds.
    pub at_ms: u64,
    /// The time of the last second factor, Unix milliseconds; none if there was none in this session.
    pub mfa_at_ms: Option<u64>,
    /// The authentication methods (RFC 8176).
    pub methods: &'a [String],
}

/// The result of a database lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The database has this value.
    Known(T),
    /// The database has no value for this address.
    Absent,
    /// The database could not be queried.
    #[default]
    Unavailable,
}

/// The location of an address.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressFacts<'a> {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Lookup<&'a str>,
    /// The autonomous system's number.
    pub asn: Lookup<u32>,
}
