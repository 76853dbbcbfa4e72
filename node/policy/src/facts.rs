//! What a policy may know. Everything comes in explicitly; what is not known is said to be so, and never guessed at.

use std::net::IpAddr;

use crate::{path::CanonicalPath, spec::Id};

/// Who asks. A trait, so that a row about a group reads the replicated row where it lies.
pub trait Person {
    /// Whether the account is switched off: then nothing else counts.
    fn is_disabled(&self) -> bool;
    /// The user's id.
    fn id(&self) -> Id;
    /// Whether the user is a member.
    fn is_in(&self, group: &Id) -> bool;
    /// For signing in.
    fn username(&self) -> &str;
    /// For people.
    fn display_name(&self) -> &str;
    /// Empty = none.
    fn email(&self) -> &str;
    /// Whether the address was proved.
    fn email_verified(&self) -> bool;
    /// Names of the user's groups.
    fn group_names(&self) -> Vec<&str>;
    /// Their DID, where they are known on the Atmosphere (atproto).
    fn atproto_did(&self) -> Option<&str>;
    /// Their handle there, while it is verified.
    fn atproto_handle(&self) -> Option<&str>;
    /// What an operator attached.
    fn attribute(&self, name: &str) -> Option<&str>;
}

/// Everything one decision is made from.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Who.
    pub person: &'a dyn Person,
    /// From where; none: nobody knows.
    pub address: Option<IpAddr>,
    /// What for; none: not for one request (an OIDC client).
    pub request: Option<Request<'a>>,
    /// How they signed in.
    pub sign_in: Option<SignIn<'a>>,
    /// Where that address is.
    pub place: Place<'a>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// The request that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As the client wrote it. None: the proxy does not tell.
    pub method: Option<&'a str>,
    /// Lower case, without port.
    pub host: &'a str,
    /// None: the path has more than one reading.
    pub path: Option<&'a CanonicalPath>,
}

/// The session.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// When the person proved who they are, Unix milliseconds.
    pub at_ms: u64,
    /// When they last used a second factor, Unix milliseconds; none: not in this session.
    pub mfa_at_ms: Option<u64>,
    /// How (RFC 8176).
    pub methods: &'a [String],
}

/// An answer of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It says this.
    Known(T),
    /// It says nothing about this address.
    Absent,
    /// It could not be asked.
    #[default]
    Unavailable,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Lookup<&'a str>,
    /// The autonomous system's number.
    pub asn: Lookup<u32>,
}
