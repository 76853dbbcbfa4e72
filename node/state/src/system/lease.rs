//! The duration of serve leases (docs/design/serve-leases.md): equal on every node, so it is part of the state.
//!
//! A lease granted under earlier terms may outlive their change. So leaders wait for the longer of the present and the
//! former terms, and the next change is refused until every lease of the former terms has expired.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    draft::Draft,
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
    state::State,
};

/// Length and margin of serve leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Milliseconds from the lease request.
    pub length_ms: u32,
    /// Additional time that a leader waits, in thousandths.
    pub margin_permille: u32,
}

/// The terms in force, and those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedTerms {
    now: LeaseTerms,
    before: LeaseTerms,
    changed_at: Stamp,
}

/// Two seconds, and a tenth as margin (docs/design/serve-leases.md).
const DEFAULT: LeaseTerms = LeaseTerms { length_ms: 2_000, margin_permille: 100 };
/// Shorter leases would expire between two renewals; longer ones hold up revocations for as long when a node dies.
const LENGTH_MS: std::ops::RangeInclusive<u32> = 1_000..=10_000;
/// Clocks of two machines drift apart by far less than the smallest; more than the largest only costs time.
const MARGIN_PERMILLE: std::ops::RangeInclusive<u32> = 50..=500;
/// Far longer than the longest lease, even if the log clock was set forward.
const BETWEEN_CHANGES_MS: u64 = 60_000;

impl LeaseTerms {
    const fn longer(self, other: Self) -> Self {
        let length_ms = if self.length_ms > other.length_ms { self.length_ms } else { other.length_ms };
        let margin_permille = if self.margin_permille > other.margin_permille {
            self.margin_permille
        } else {
            other.margin_permille
        };
        Self { length_ms, margin_permille }
    }
}

impl State {
    /// The terms of a lease that is granted now.
    pub const fn lease_terms(&self) -> LeaseTerms {
        match self.meta.lease_terms {
            Some(terms) => terms.now,
            None => DEFAULT,
        }
    }

    /// The terms that a leader must wait for: the longer of the present and the former terms.
    pub const fn longest_lease_terms(&self) -> LeaseTerms {
        match self.meta.lease_terms {
            Some(terms) => terms.now.longer(terms.before),
            None => DEFAULT,
        }
    }
}

pub(crate) fn set_lease_terms(draft: &mut Draft, command: &pb::SetLeaseTerms) -> Result<Reply, Refusal> {
    let terms = LeaseTerms { length_ms: command.length_ms, margin_permille: command.margin_permille };
    if !LENGTH_MS.contains(&terms.length_ms) || !MARGIN_PERMILLE.contains(&terms.margin_permille) {
        return Err(Refusal::malformed(format!(
            "a lease lasts {} to {} ms, with a margin of {} to {} thousandths",
            LENGTH_MS.start(),
            LENGTH_MS.end(),
            MARGIN_PERMILLE.start(),
            MARGIN_PERMILLE.end()
        )));
    }
    let next = draft.state.meta.lease_terms.map(|terms| terms.changed_at.plus_ms(BETWEEN_CHANGES_MS));
    if let Some(next) = next.filter(|next| !next.is_over_at(draft.at)) {
        let refusal = Refusal::new(Reason::TooSoon, "the lease terms were changed a moment ago");
        return Err(refusal.until(next));
    }
    let before = draft.state.lease_terms();
    draft.state.meta.lease_terms = Some(ChangedTerms { now: terms, before, changed_at: draft.at });
    Ok(done())
}

impl ChangedTerms {
    /// These terms with their change no later than `at`: log time was set back.
    pub(super) fn changed_before(self, at: Stamp) -> Self {
        Self { changed_at: self.changed_at.min(at), ..self }
    }

    pub(crate) const fn to_wire(self) -> rows::LeaseTermsRow {
        rows::LeaseTermsRow {
            length_ms: self.now.length_ms,
            margin_permille: self.now.margin_permille,
            before_length_ms: self.before.length_ms,
            before_margin_permille: self.before.margin_permille,
            changed_at_ms: self.changed_at.0,
        }
    }

    pub(crate) const fn from_wire(row: &rows::LeaseTermsRow) -> Self {
        Self {
            now: LeaseTerms { length_ms: row.length_ms, margin_permille: row.margin_permille },
            before: LeaseTerms {
                length_ms: row.before_length_ms,
                margin_permille: row.before_margin_permille,
            },
            changed_at: Stamp(row.changed_at_ms),
        }
    }
}
