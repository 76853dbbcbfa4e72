//! Users and passwords on the wire.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use super::{MAX_ATTRIBUTES, MAX_PHC_BYTES, PasswordHash, User, parse_username};
use crate::{
    ids::{GroupId, UserId},
    reply::Refusal,
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Parses an address of the form `a@b`, or an empty one. Ownership of the address is a matter of verification, not of
/// form.
pub(super) fn parse_email(email: &str) -> Result<String, Refusal> {
    let email = text::line("email", email.trim(), text::MAX_EMAIL_BYTES)?;
    let shaped =
        |e: &str| e.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains('@'));
    if email.is_empty() || (shaped(&email) && !email.contains(char::is_whitespace)) {
        return Ok(email);
    }
    Err(Refusal::malformed("the e-mail address must look like name@domain"))
}

/// Parses attributes and sorts them by name, so that equal attributes give equal rows.
pub(super) fn parse_attributes(
    attributes: Option<&pb::Attributes>,
) -> Result<Vec<(String, String)>, Refusal> {
    let entries = attributes.map_or(&[][..], |a| &a.entries);
    if entries.len() > MAX_ATTRIBUTES {
        return Err(Refusal::malformed(format!("a user has at most {MAX_ATTRIBUTES} attributes")));
    }
    let mut parsed = entries
        .iter()
        .map(|e| {
            let name = text::slug("attribute name", &e.name, text::MAX_TEXT_BYTES)?;
            Ok((name, text::line("attribute value", &e.value, text::MAX_TEXT_BYTES)?))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    parsed.sort();
    if parsed.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
        return Err(Refusal::malformed("an attribute is given twice"));
    }
    Ok(parsed)
}

pub(super) fn parse_phc(phc: &str) -> Result<String, Refusal> {
    if !phc.starts_with("$argon2id$") {
        return Err(Refusal::malformed("the password must arrive as an argon2id PHC string"));
    }
    text::line("password_phc", phc, MAX_PHC_BYTES)
}

impl Row for User {
    const TABLE: u32 = 2;
    type Wire = rows::UserRow;

    fn to_wire(&self) -> rows::UserRow {
        let attribute =
            |(name, value): &(String, String)| pb::Attribute { name: name.clone(), value: value.clone() };
        rows::UserRow {
            user_id: self.id.to_vec(),
            username: self.username.to_string(),
            display_name: self.display_name.clone(),
            email: self.email.clone(),
            email_verified: self.email_verified,
            attributes: self.attributes.iter().map(attribute).collect(),
            disabled: self.disabled,
            group_ids: self.groups.iter().map(|g| g.to_vec()).collect(),
            created_at_ms: self.created_at.0,
            updated_at_ms: self.updated_at.0,
            unlock_version: self.unlock_version,
        }
    }

    fn from_wire(wire: rows::UserRow) -> Result<Self, Refusal> {
        Ok(Self {
            id: UserId::parse(&wire.user_id)?,
            username: parse_username(&wire.username)?,
            display_name: wire.display_name,
            email: wire.email,
            email_verified: wire.email_verified,
            attributes: wire.attributes.into_iter().map(|a| (a.name, a.value)).collect(),
            disabled: wire.disabled,
            groups: wire.group_ids.iter().map(|g| GroupId::parse(g)).collect::<Result<_, _>>()?,
            created_at: Stamp(wire.created_at_ms),
            updated_at: Stamp(wire.updated_at_ms),
            unlock_version: wire.unlock_version,
        })
    }

    fn put(self, state: &mut State) {
        state.put_user(self);
    }
}

impl Row for PasswordHash {
    const TABLE: u32 = 3;
    type Wire = rows::PasswordRow;

    fn to_wire(&self) -> rows::PasswordRow {
        rows::PasswordRow {
            user_id: self.user.to_vec(),
            phc: self.phc.clone(),
            version: self.version,
            changed_at_ms: self.changed_at.0,
        }
    }

    fn from_wire(wire: rows::PasswordRow) -> Result<Self, Refusal> {
        Ok(Self {
            user: UserId::parse(&wire.user_id)?,
            phc: wire.phc,
            version: wire.version,
            changed_at: Stamp(wire.changed_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_password(self);
    }
}
