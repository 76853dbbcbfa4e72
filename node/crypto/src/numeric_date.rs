//! Times in received tokens: NumericDate (RFC 7519 §2), seconds since 1970, which may have a fraction.

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// The end of the accepted range in seconds: some 31,000 years. A later time is a mistaken unit, above all milliseconds
/// for seconds.
const END_SECS: f64 = 1e12;

/// A time in whole seconds since 1970; a fraction is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericDate(pub u64);

impl NumericDate {
    /// Reads a JSON number. `None` for anything else, for a negative number, and for a number of 10^12 or more that has
    /// a fraction.
    pub fn of(value: &Value) -> Option<Self> {
        if let Some(whole) = value.as_u64() {
            return Some(Self(whole));
        }
        let time = value.as_f64().filter(|time| (0.0..END_SECS).contains(time))?;
        Some(Self(whole_seconds(time)))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "judged to be within bounds first"
)]
const fn whole_seconds(time: f64) -> u64 {
    time as u64
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::of(&value).ok_or_else(|| D::Error::custom("a time must be a number of seconds since 1970"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_and_broken_seconds_are_read_and_nothing_else() {
        for (value, read) in [
            (json!(1_700_000_000), Some(1_700_000_000)),
            (json!(1_700_000_000.25), Some(1_700_000_000)),
            (json!(1.7e9), Some(1_700_000_000)),
            (json!(0), Some(0)),
            (json!(-1), None),
            (json!(-0.5), None),
            (json!(1e300), None),
            (json!("1700000000"), None),
            (json!(null), None),
        ] {
            assert_eq!(NumericDate::of(&value), read.map(NumericDate), "{value}");
        }
    }
}
