//! The typed form of an expression.

use std::{collections::BTreeMap, fmt};

use crate::limits::{MAX_ATTRIBUTE_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES};

/// A type, with the bounds of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    /// A text of at most this many bytes.
    Text(usize),
    /// A list of at most this many elements of this type.
    List(Box<Self>, usize),
    /// A map with literal keys, for claims only: no operation reads it.
    Map,
    /// `user.attributes`, which is not a value by itself.
    Attributes,
    /// `user`, `request`, `session`, `geo`, which are not values by themselves.
    Room(&'static str),
}

impl Type {
    /// False for the names of which only the fields are values.
    pub(super) const fn is_value(&self) -> bool {
        !matches!(self, Self::Attributes | Self::Room(_))
    }

    /// True if values of both types can be compared.
    pub(super) const fn is_like(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Bool, Self::Bool) | (Self::Int, Self::Int) | (Self::Text(_), Self::Text(_))
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Text(_) => f.write_str("string"),
            Self::List(of, _) => write!(f, "list({of})"),
            Self::Map => f.write_str("map"),
            Self::Attributes => f.write_str("the attributes as a whole"),
            Self::Room(name) => write!(f, "{name} as a whole"),
        }
    }
}

/// The names of facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    UserId,
    Username,
    UserName,
    Email,
    EmailVerified,
    Groups,
    AtprotoDid,
    AtprotoHandle,
    Attribute(String),
    SessionAge,
    MfaAge,
    Amr,
    Method,
    Host,
    Path,
    Address,
    Country,
    Asn,
    Now,
}

impl Variable {
    /// True if it is about the user, their sign-in or the time: known wherever a token is made.
    pub(super) const fn is_of_the_person(&self) -> bool {
        !matches!(self, Self::Method | Self::Host | Self::Path | Self::Address | Self::Country | Self::Asn)
    }

    /// Most bytes of its text, or of each of its texts; a longer one is a fault.
    pub(super) const fn max_bytes(&self) -> usize {
        match self {
            Self::Path => MAX_TEXT_BYTES,
            Self::Attribute(_) => MAX_ATTRIBUTE_BYTES,
            _ => MAX_NAME_BYTES,
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserId => "user.id",
            Self::Username => "user.username",
            Self::UserName => "user.name",
            Self::Email => "user.email",
            Self::EmailVerified => "user.email_verified",
            Self::Groups => "user.groups",
            Self::AtprotoDid => "user.atproto.did",
            Self::AtprotoHandle => "user.atproto.handle",
            Self::Attribute(name) => return write!(f, "user.attributes.{name}"),
            Self::SessionAge => "session.age",
            Self::MfaAge => "session.mfa_age",
            Self::Amr => "session.amr",
            Self::Method => "request.method",
            Self::Host => "request.host",
            Self::Path => "request.path",
            Self::Address => "request.address",
            Self::Country => "geo.country",
            Self::Asn => "geo.asn",
            Self::Now => "now",
        })
    }
}

/// A comparison of two operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A checked integer operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A test of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// The result that a macro computes from the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
    Filter,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    Read(Variable),
    Has(Variable),
    /// A macro's variable, by its position from the outermost.
    Local(usize),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Not(Box<Node>),
    Choose(Box<(Node, Node, Node)>),
    Compare(Comparison, Box<(Node, Node)>),
    Compute(Arithmetic, Box<(Node, Node)>),
    Concat(Box<(Node, Node)>),
    TextTest(TextTest, Box<(Node, Node)>),
    /// An element and a list.
    In(Box<(Node, Node)>),
    Index(Box<(Node, Node)>),
    Size(Box<Node>),
    Lower(Box<Node>),
    Join(Box<(Node, Node)>),
    IntToText(Box<Node>),
    /// A list, and the expression that is evaluated for each element.
    Each(Each, Box<(Node, Node)>),
}
