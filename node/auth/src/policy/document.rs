//! A policy as operators write it: TOML or JSON, with names instead of ids. docs/policy.md describes it.

use std::time::Duration;

use conclave_policy::Policy;
use conclave_proto::command::v1::{self as pb, policy_condition::Kind};
use conclave_state::{
    State,
    ids::{GroupId, UserId},
};
use serde::{Deserialize, Serialize};

use super::translate;
use conclave_config::parse_duration;

/// Maximum length of a document.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// A whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    #[serde(default)]
    pub mode: DocumentMode,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public: Vec<DocumentRequests>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<DocumentHeader>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentMode {
    #[default]
    FirstMatch,
    Any,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentEffect {
    Allow,
    Deny,
}

macro_rules! conditions {
    ($(#[$meta:meta])* $name:ident { $($(#[$more_meta:meta])* $more:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$more_meta])* pub $more: $kind,)*
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub everyone: bool,
            #[serde(default, skip_serializing_if = "Names::is_empty")]
            pub user: Names,
            #[serde(default, skip_serializing_if = "Names::is_empty")]
            pub group: Names,
            #[serde(default, skip_serializing_if = "Names::is_empty")]
            pub network: Names,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub time: Option<DocumentWindow>,
            #[serde(default, skip_serializing_if = "Names::is_empty")]
            pub country: Names,
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub asn: Vec<u32>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub mfa_within: Option<String>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub request: Option<DocumentRequests>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub expression: Option<String>,
        }

        impl $name {
            fn kinds(&self, state: &State) -> Result<Vec<pb::PolicyCondition>, String> {
                Written {
                    everyone: self.everyone,
                    user: &self.user,
                    group: &self.group,
                    network: &self.network,
                    time: self.time.as_ref(),
                    country: &self.country,
                    asn: &self.asn,
                    mfa_within: self.mfa_within.as_deref(),
                    request: self.request.as_ref(),
                    expression: self.expression.as_deref(),
                }
                .kinds(state)
            }

            fn read(&mut self, conditions: &[pb::PolicyCondition], state: &State) {
                for kind in conditions.iter().filter_map(|condition| condition.kind.as_ref()) {
                    match kind {
                        Kind::Everyone(_) => self.everyone = true,
                        Kind::Users(users) => self.user = Names(users.ids.iter().map(|id| user_name(state, id)).collect()),
                        Kind::Groups(groups) => {
                            self.group = Names(groups.ids.iter().map(|id| group_name(state, id)).collect());
                        }
                        Kind::Networks(networks) => self.network = Names(networks.texts.clone()),
                        Kind::Window(window) => self.time = Some(DocumentWindow::of(window)),
                        Kind::Countries(countries) => self.country = Names(countries.texts.clone()),
                        Kind::Asns(asns) => self.asn.clone_from(&asns.numbers),
                        Kind::MfaWithinMs(0) => self.mfa_within = Some(IN_SESSION.into()),
                        Kind::MfaWithinMs(ms) => self.mfa_within = Some(format!("{}s", ms / 1_000)),
                        Kind::Requests(requests) => self.request = Some(DocumentRequests::of(requests)),
                        Kind::Expression(text) => self.expression = Some(text.clone()),
                    }
                }
            }
        }
    };
}

conditions!(
    /// One row: its effect, the conditions that must hold, and those that must not.
    Row {
        effect: DocumentEffect,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unless: Option<Box<Unless>>,
    }
);

conditions!(
    /// Conditions of which none may hold.
    Unless {}
);

/// One name, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Names(pub Vec<String>);

impl Names {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a name, or a list of names")]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::One(name) => Self(vec![name]),
            Either::Many(names) => Self(names),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentWindow {
    /// `mon` … `sun`; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// `08:00`
    pub from: String,
    /// `18:00`; before `from`: on the next day.
    pub to: String,
    /// `Europe/Berlin`
    pub zone: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentRequests {
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub method: Names,
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub path: Names,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentHeader {
    pub name: String,
    pub expression: String,
}

/// The value of `mfa_within` for a second factor of any age.
const IN_SESSION: &str = "session";
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Document {
    /// Parses JSON.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn from_json(text: &str) -> Result<Self, String> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(format!("a policy has at most {MAX_DOCUMENT_BYTES} bytes"));
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Parses TOML.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        use figment::{
            Figment,
            providers::{Format as _, Toml},
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(format!("a policy has at most {MAX_DOCUMENT_BYTES} bytes"));
        }
        Figment::from(Toml::string(text)).extract().map_err(|error| error.to_string())
    }

    /// The policy as it is replicated. It is compiled once first, so a policy that does not compile is refused here and
    /// nowhere later.
    ///
    /// # Errors
    /// A message for the operator that names the row.
    pub fn to_row(&self, state: &State) -> Result<pb::Policy, String> {
        let mode = match self.mode {
            DocumentMode::FirstMatch => pb::PolicyMode::FirstMatch,
            DocumentMode::Any => pb::PolicyMode::Any,
            DocumentMode::All => pb::PolicyMode::All,
        };
        let rows = self.row.iter().enumerate();
        let rows =
            rows.map(|(index, row)| row.to_row(state).map_err(|why| format!("row {}: {why}", index + 1)));
        let policy = pb::Policy {
            mode: mode.into(),
            rows: rows.collect::<Result<_, _>>()?,
            public: self.public.iter().map(DocumentRequests::to_row).collect(),
            headers: self
                .header
                .iter()
                .map(|header| pb::PolicyHeader {
                    name: header.name.to_ascii_lowercase(),
                    expression: header.expression.clone(),
                })
                .collect(),
        };
        let spec = translate::spec(&policy)?;
        Policy::compile(&spec).map_err(|error| error.to_string())?;
        Ok(policy)
    }

    /// The document of a replicated policy, with the current names.
    pub fn of_row(policy: &pb::Policy, state: &State) -> Self {
        let mode = match policy.mode() {
            pb::PolicyMode::Any => DocumentMode::Any,
            pb::PolicyMode::All => DocumentMode::All,
            pb::PolicyMode::FirstMatch | pb::PolicyMode::Unspecified => DocumentMode::FirstMatch,
        };
        let header = |header: &pb::PolicyHeader| DocumentHeader {
            name: header.name.clone(),
            expression: header.expression.clone(),
        };
        Self {
            mode,
            row: policy.rows.iter().map(|row| Row::of(row, state)).collect(),
            public: policy.public.iter().map(DocumentRequests::of).collect(),
            header: policy.headers.iter().map(header).collect(),
        }
    }
}

impl Row {
    fn to_row(&self, state: &State) -> Result<pb::PolicyRow, String> {
        let effect = match self.effect {
            DocumentEffect::Allow => pb::PolicyEffect::Allow,
            DocumentEffect::Deny => pb::PolicyEffect::Deny,
        };
        let unless = self.unless.as_ref().map_or_else(|| Ok(Vec::new()), |unless| unless.kinds(state))?;
        Ok(pb::PolicyRow { effect: effect.into(), when: self.kinds(state)?, unless })
    }

    fn of(row: &pb::PolicyRow, state: &State) -> Self {
        let effect = if row.effect() == pb::PolicyEffect::Allow {
            DocumentEffect::Allow
        } else {
            DocumentEffect::Deny
        };
        let mut shown = Self {
            effect,
            unless: None,
            everyone: false,
            user: Names::default(),
            group: Names::default(),
            network: Names::default(),
            time: None,
            country: Names::default(),
            asn: Vec::new(),
            mfa_within: None,
            request: None,
            expression: None,
        };
        shown.read(&row.when, state);
        if !row.unless.is_empty() {
            let mut unless = Unless {
                everyone: false,
                user: Names::default(),
                group: Names::default(),
                network: Names::default(),
                time: None,
                country: Names::default(),
                asn: Vec::new(),
                mfa_within: None,
                request: None,
                expression: None,
            };
            unless.read(&row.unless, state);
            shown.unless = Some(Box::new(unless));
        }
        shown
    }
}

/// The conditions of a [`Row`] or an [`Unless`].
struct Written<'a> {
    everyone: bool,
    user: &'a Names,
    group: &'a Names,
    network: &'a Names,
    time: Option<&'a DocumentWindow>,
    country: &'a Names,
    asn: &'a [u32],
    mfa_within: Option<&'a str>,
    request: Option<&'a DocumentRequests>,
    expression: Option<&'a str>,
}

impl Written<'_> {
    fn kinds(&self, state: &State) -> Result<Vec<pb::PolicyCondition>, String> {
        let texts = |names: &Names| pb::PolicyTexts { texts: names.0.clone() };
        let mut kinds = Vec::new();
        kinds.extend(self.everyone.then_some(Kind::Everyone(true)));
        if !self.user.is_empty() {
            let ids = self.user.0.iter().map(|name| user_id(state, name)).collect::<Result<_, _>>()?;
            kinds.push(Kind::Users(pb::PolicyIds { ids }));
        }
        if !self.group.is_empty() {
            let ids = self.group.0.iter().map(|name| group_id(state, name)).collect::<Result<_, _>>()?;
            kinds.push(Kind::Groups(pb::PolicyIds { ids }));
        }
        kinds.extend((!self.network.is_empty()).then(|| Kind::Networks(texts(self.network))));
        kinds.extend(self.time.map(DocumentWindow::to_row).transpose()?.map(Kind::Window));
        kinds.extend((!self.country.is_empty()).then(|| Kind::Countries(texts(self.country))));
        kinds.extend(
            (!self.asn.is_empty()).then(|| Kind::Asns(pb::PolicyNumbers { numbers: self.asn.to_vec() })),
        );
        kinds.extend(self.mfa_within.map(age).transpose()?.map(Kind::MfaWithinMs));
        kinds.extend(self.request.map(|requests| Kind::Requests(requests.to_row())));
        kinds.extend(self.expression.map(|text| Kind::Expression(text.to_owned())));
        Ok(kinds.into_iter().map(|kind| pb::PolicyCondition { kind: Some(kind) }).collect())
    }
}

fn user_id(state: &State, name: &str) -> Result<Vec<u8>, String> {
    let known = state.user_by_name(name).map(|user| user.id);
    let known = known.or_else(|| UserId::from_hex(name).filter(|id| state.user(*id).is_some()));
    known.map(UserId::to_vec).ok_or_else(|| format!("there is no user {name}"))
}

fn group_id(state: &State, name: &str) -> Result<Vec<u8>, String> {
    let known = state.group_named(name).map(|group| group.id);
    let known = known.or_else(|| GroupId::from_hex(name).filter(|id| state.group(*id).is_some()));
    known.map(GroupId::to_vec).ok_or_else(|| format!("there is no group {name}"))
}

fn user_name(state: &State, id: &[u8]) -> String {
    let Ok(id) = UserId::parse(id) else { return "(unreadable)".into() };
    state.user(id).map_or_else(|| id.to_string(), |user| user.username.to_string())
}

fn group_name(state: &State, id: &[u8]) -> String {
    let Ok(id) = GroupId::parse(id) else { return "(unreadable)".into() };
    state.group(id).map_or_else(|| id.to_string(), |group| group.name.to_string())
}

fn age(text: &str) -> Result<u64, String> {
    if text == IN_SESSION {
        return Ok(0);
    }
    let bad = || format!("mfa_within: {text:?} is not a duration; write for example 12h, or session");
    let ms =
        parse_duration(text).as_ref().map(Duration::as_millis).filter(|ms| *ms >= 1_000).ok_or_else(bad)?;
    u64::try_from(ms).map_err(|_| bad())
}

impl DocumentWindow {
    fn to_row(&self) -> Result<pb::PolicyWindow, String> {
        let day = |name: &String| {
            let known = DAYS.iter().position(|day| *day == name.as_str());
            known
                .map(|day| 1 << day)
                .ok_or_else(|| format!("{name:?} is not a day; write mon, tue, wed, thu, fri, sat or sun"))
        };
        let days = self.days.iter().map(day).collect::<Result<Vec<u32>, _>>()?;
        let days = if days.is_empty() { 0x7f } else { days.into_iter().fold(0, |all, day| all | day) };
        let (from_minute, to_minute) = (minute(&self.from)?, minute(&self.to)?);
        Ok(pb::PolicyWindow { days, from_minute, to_minute, zone: self.zone.clone() })
    }

    fn of(window: &pb::PolicyWindow) -> Self {
        let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let named = DAYS.iter().enumerate().filter(|(day, _)| window.days & (1 << day) != 0);
        Self {
            days: named.map(|(_, name)| (*name).to_owned()).collect(),
            from: clock(window.from_minute),
            to: clock(window.to_minute),
            zone: window.zone.clone(),
        }
    }
}

fn minute(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is not a time of day; write for example 08:00");
    let (hour, minute) =
        text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2).ok_or_else(bad)?;
    let (hour, minute): (u32, u32) = (hour.parse().map_err(|_| bad())?, minute.parse().map_err(|_| bad())?);
    let whole = hour * 60 + minute;
    if minute > 59 || whole > 24 * 60 { Err(bad()) } else { Ok(whole) }
}

impl DocumentRequests {
    fn to_row(&self) -> pb::PolicyRequests {
        let methods = self.method.0.iter().map(|method| method.to_ascii_uppercase()).collect();
        pb::PolicyRequests { methods, paths: self.path.0.clone() }
    }

    fn of(requests: &pb::PolicyRequests) -> Self {
        Self { method: Names(requests.methods.clone()), path: Names(requests.paths.clone()) }
    }
}
