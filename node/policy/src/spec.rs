//! What people write, before anybody knows whether it can be decided.

/// A user's or a group's id.
pub type Id = [u8; 16];

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// How the rows together make a decision.
    pub mode: Mode,
    /// In order.
    pub rows: Vec<Row>,
    /// Paths that need no sign-in.
    pub public: Vec<Protected>,
    /// Headers that an admitted request carries besides the identity's.
    pub headers: Vec<Header>,
}

/// How the rows together make a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The first row that matches decides.
    #[default]
    FirstMatch,
    /// One allow row is enough; a deny row is a veto.
    Any,
    /// Every allow row must match; a deny row is a veto.
    All,
}

/// What a matching row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// One row: it matches when all of `when` hold and none of `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it says when it matches.
    pub effect: Effect,
    /// All must hold; there is at least one.
    pub when: Vec<Condition>,
    /// None may hold.
    pub unless: Vec<Condition>,
}

/// What a row asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whoever is signed in.
    Everyone,
    /// One of these people.
    User(Vec<Id>),
    /// A member of one of these groups.
    Group(Vec<Id>),
    /// The client's address lies in one of these networks.
    Network(Vec<String>),
    /// It is one of these hours.
    Time(Window),
    /// The address is in one of these countries (ISO 3166-1 alpha-2).
    Country(Vec<String>),
    /// The address belongs to one of these autonomous systems.
    Asn(Vec<u32>),
    /// The session had a second factor at most so long ago, milliseconds; 0 = at all.
    MfaWithin(u64),
    /// The request has one of these methods (none given: any) and one of these paths (none given: any).
    Request(Protected),
    /// A CEL expression of type bool.
    Expression(String),
}

/// Hours of a week in one time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bit 0 = Monday … bit 6 = Sunday: the days on which a window begins.
    pub days: u8,
    /// Minute of the day at which it begins.
    pub from_minute: u16,
    /// Minute of the day at which it ends, 1440 = midnight; before `from_minute`: on the next day.
    pub to_minute: u16,
    /// IANA name, such as `Europe/Berlin`.
    pub zone: String,
}

/// Requests by method and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Empty = any.
    pub methods: Vec<String>,
    /// `/exact` or `/below/*`; empty = any.
    pub paths: Vec<String>,
}

/// An extra header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    /// A CEL expression of type string.
    pub expression: String,
}
