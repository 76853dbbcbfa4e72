//! The written form of a policy, before it is compiled.

/// A user's or a group's id.
pub type Id = [u8; 16];

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The way in which the rows are combined.
    pub mode: MatchMode,
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Paths that need no sign-in.
    pub public: Vec<Protected>,
    /// Headers that an admitted request carries besides the identity headers.
    pub headers: Vec<HeaderRule>,
}

/// The way in which the rows are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatchMode {
    /// The first row that matches decides.
    #[default]
    FirstMatch,
    /// One allow row is enough; a deny row is a veto.
    Any,
    /// Every allow row must match; a deny row is a veto.
    All,
}

/// The effect of a matching row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowEffect {
    /// Admit.
    Allow,
    /// Refuse.
    Deny,
}

/// One row: it matches when all of `when` hold and none of `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The effect of the row when it matches.
    pub effect: RowEffect,
    /// All must hold; there is at least one.
    pub when: Vec<Condition>,
    /// None may hold.
    pub unless: Vec<Condition>,
}

/// A condition of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Every user who is signed in.
    Everyone,
    /// One of these users.
    User(Vec<Id>),
    /// A member of one of these groups.
    Group(Vec<Id>),
    /// The client's address lies in one of these networks.
    Network(Vec<String>),
    /// The time lies in this window.
    Time(TimeWindow),
    /// The address is in one of these countries (ISO 3166-1 alpha-2).
    Country(Vec<String>),
    /// The address belongs to one of these autonomous systems.
    Asn(Vec<u32>),
    /// The session had a second factor at most this many milliseconds ago; 0 = at any time.
    MfaWithin(u64),
    /// The request has one of these methods (none given: any) and one of these paths (none given: any).
    Request(Protected),
    /// A CEL expression of type bool.
    Expression(String),
}

/// Hours of a week in one time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeWindow {
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
    /// Methods; empty = any.
    pub methods: Vec<String>,
    /// Paths, `/exact` or `/below/*`; empty = any.
    pub paths: Vec<String>,
}

/// An extra header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Name in lower case.
    pub name: String,
    /// A CEL expression of type string.
    pub expression: String,
}
