//! The facts of a decision besides the user.

use std::net::IpAddr;

use conclave_policy::{AddressFacts, CanonicalPath, Facts, Id, Lookup, PolicyUser, Request, SignIn};
use conclave_state::{State, grant::Grant, ids::GroupId, session::Session, user::User};

use super::geo::GeoLocation;

/// Methods of RFC 8176 that are a second factor, or prove one. Their use is dated by the sign-in, until the session
/// records its own time for it.
const SECOND_FACTORS: [&str; 11] =
    ["mfa", "otp", "hwk", "swk", "fpt", "face", "iris", "retina", "vbm", "sms", "tel"];

/// The facts of one decision, besides the user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances<'a> {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The request; `None` if the decision is not about one request (OIDC).
    pub request: Option<AppRequest<'a>>,
    /// The time of the sign-in, Unix milliseconds, and its methods.
    pub sign_in: Option<(u64, &'a [String])>,
}

/// One request to an application.
#[derive(Clone, Copy, Debug)]
pub struct AppRequest<'a> {
    /// `None` if the proxy does not send the method; a condition on it then denies.
    pub method: Option<&'a str>,
    /// Lower case, without port.
    pub host: &'a str,
    /// Path and query as they were sent.
    pub target: &'a str,
}

impl<'a> Circumstances<'a> {
    /// The circumstances of a signed-in user at this address.
    pub fn of_session(session: &'a Session, address: Option<IpAddr>) -> Self {
        Self { address, request: None, sign_in: Some((session.auth_time.0, &session.amr)) }
    }

    /// The circumstances of a grant that a client uses from its own machine: the user's address is that of the sign-in.
    pub fn of_grant(state: &State, grant: &'a Grant) -> Self {
        let address = state.session_address(grant.session).and_then(|address| address.parse().ok());
        Self { address, request: None, sign_in: Some((grant.auth_time.0, &grant.amr)) }
    }

    /// The facts about the user and the sign-in alone, without a request.
    pub(crate) fn facts_without_request(&self, user_facts: &'a UserFacts<'a>, now_ms: u64) -> Facts<'a> {
        self.facts(user_facts, None, None, now_ms)
    }

    pub(super) fn facts(
        &self,
        user_facts: &'a UserFacts<'a>,
        path: Option<&'a CanonicalPath>,
        place: Option<&'a GeoLocation>,
        now_ms: u64,
    ) -> Facts<'a> {
        let is_second = |method: &String| SECOND_FACTORS.contains(&method.as_str());
        let sign_in = self.sign_in.map(|(at_ms, methods)| SignIn {
            at_ms,
            mfa_at_ms: methods.iter().any(is_second).then_some(at_ms),
            methods,
        });
        let place = place.map_or_else(AddressFacts::default, |place| AddressFacts {
            country: match &place.country {
                Lookup::Known(country) => Lookup::Known(country.as_str()),
                Lookup::Absent => Lookup::Absent,
                Lookup::Unavailable => Lookup::Unavailable,
            },
            asn: place.asn,
        });
        let request =
            self.request.map(|request| Request { method: request.method, host: request.host, path });
        Facts { person: user_facts, address: self.address, request, sign_in, place, now_ms }
    }
}

/// The user as of this version of the state.
pub(crate) const fn user_facts<'a>(state: &'a State, user: &'a User) -> UserFacts<'a> {
    UserFacts { state, user }
}

/// A replicated user as a [`Person`] for policies.
pub(crate) struct UserFacts<'a> {
    pub(super) state: &'a State,
    pub(super) user: &'a User,
}

impl PolicyUser for UserFacts<'_> {
    fn is_disabled(&self) -> bool {
        self.user.disabled
    }

    fn id(&self) -> Id {
        *self.user.id.bytes()
    }

    fn is_in(&self, group: &Id) -> bool {
        self.user.groups.contains(&GroupId::new(*group))
    }

    fn username(&self) -> &str {
        &self.user.username
    }

    fn display_name(&self) -> &str {
        &self.user.display_name
    }

    fn email(&self) -> &str {
        &self.user.email
    }

    fn email_verified(&self) -> bool {
        self.user.email_verified
    }

    fn group_names(&self) -> Vec<&str> {
        self.state.group_names_of(self.user).collect()
    }

    fn atproto_did(&self) -> Option<&str> {
        Some(&self.state.atmosphere_of(self.user.id)?.subject)
    }

    fn atproto_handle(&self) -> Option<&str> {
        Some(&self.state.atmosphere_of(self.user.id)?.handle.as_ref()?.0)
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.user.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}
