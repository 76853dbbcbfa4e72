//! One id type per entity. Ids are made at the edge and arrive in commands; no code here creates one.

use std::fmt;

use crate::reply::Refusal;

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 bytes made by the caller.
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The bytes for a message field.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }

            /// Parses a message field of exactly 16 bytes.
            ///
            /// # Errors
            /// `Malformed` naming the type.
            pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
                bytes.try_into().map(Self).map_err(|_| Refusal::malformed(concat!(stringify!($name), " must be 16 bytes")))
            }

            /// Parses the 32 hex digits that `Display` writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

id_types! {
    /// A user.
    UserId,
    /// A group of users.
    GroupId,
    /// An application that users open.
    ApplicationId,
    /// A browser's sign-in. Also the `sid` claim (OIDC Front-Channel Logout §3).
    SessionId,
    /// An app session: a session's cookie on an application's own host.
    AppSessionId,
    /// The authorization that a user gave a client; its code contains this id.
    GrantId,
    /// A family of refresh tokens, of which one is valid.
    FamilyId,
    /// An authorization request that a client pushed.
    PushedRequestId,
    /// A device that waits for a user's answer.
    DeviceId,
    /// The `jti` of an access token.
    AccessTokenId,
    /// An app password.
    AppPasswordId,
    /// The picture of a user.
    PictureId,
    /// An invitation for a new user to sign in by another provider, once.
    InvitationId,
    /// A bearer token of the admin API.
    TokenId,
    /// The id of a one-time login, consent or SSO ticket.
    TicketId,
    /// An attempt to restore a snapshot into a running cluster.
    RestoreId,
    /// A command's id, by which a retry is recognised.
    RequestId,
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let mut out = [0_u8; 16];
    // The number parser would accept a sign.
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(out)
}

/// SHA-256 of a secret that was issued. The secret itself never enters the rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Wraps a hash made at the edge.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses a message field of exactly 32 bytes.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        bytes.try_into().map(Self).map_err(|_| Refusal::malformed("a hash must be 32 bytes"))
    }

    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_slice(), other.0.as_slice()).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}
