//! Parsing of setting values: durations, addresses, lists, secrets.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use conclave_crypto::secret::ClusterSecret;

/// Units of a duration in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];

/// Parses `"90s"`, `"10m"`, `"1h30m"`, `"30d"`, `"250ms"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = text(deserializer, "a duration such as \"10m\"")?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!("{text:?} is not a duration; write for example 90s, 10m, 1h30m or 30d"))
    })
}

/// Parses a duration, also for callers outside this room.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total_ms: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let (unit_ms, after) =
            UNITS.iter().find_map(|(unit, ms)| after.strip_prefix(unit).map(|after| (*ms, after)))?;
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = after;
    }
    Some(Duration::from_millis(total_ms))
}

/// Writes a duration in the syntax in which it is parsed: `1h30m`, `0s`.
pub(super) fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*duration))
}

fn duration_text(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= unit_ms {
            text += &(left / unit_ms).to_string();
            text += unit;
            left %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Units of a size in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Parses `"4GiB"`, `"512MiB"`, `"100B"`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = text(deserializer, "a size such as \"4GiB\"")?;
    parse_size(&text)
        .ok_or_else(|| de::Error::custom(format!("{text:?} is not a size; write for example 512MiB or 4GiB")))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) =
        SIZES.iter().find_map(|(unit, bytes)| Some((text.trim().strip_suffix(unit)?, bytes)))?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(*unit)
}

/// Writes a size in the largest unit that divides it.
pub(super) fn write_size<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let unit = SIZES.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    let (name, unit) = unit.copied().unwrap_or(("B", 1));
    serializer.collect_str(&format_args!("{}{name}", bytes / unit))
}

/// Writes a list of values as texts.
pub(super) fn write_texts<S: Serializer, T: fmt::Display>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

/// The address of a listener: `ip:port`. With port 0 the system chooses the port, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr(pub SocketAddr);

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text(deserializer, "an address such as \"127.0.0.1:9000\"")?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is not ip:port; write for example 127.0.0.1:9000 or [::]:9000"
            ))
        })
    }
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A secret in a setting. Its debug and serialized forms hide the text.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Parses the text as a cluster secret.
    pub fn cluster_secret(&self) -> Result<ClusterSecret, conclave_crypto::secret::SecretError> {
        ClusterSecret::parse(&self.0)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Writes `(secret)` instead of the text.
impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("a secret in quotes")).map(Zeroizing::new).map(Self)
    }
}

/// Parses a list of texts: a TOML list, or one text with commas as in the environment. `entry` parses each entry; its
/// error is reported with the position.
pub(super) fn list<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    entry: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    let texts = deserializer.deserialize_any(ListVisitor)?;
    let read = |(position, text): (usize, &String)| {
        entry(text).map_err(|fault| de::Error::custom(format!("[{position}]: {fault}")))
    };
    texts.iter().enumerate().map(read).collect()
}

fn text<'de, D: Deserializer<'de>>(deserializer: D, expected: &'static str) -> Result<String, D::Error> {
    deserializer.deserialize_any(TextVisitor(expected))
}

struct TextVisitor(&'static str);

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(entries.map(str::to_owned).collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = entries.next_element()? {
            texts.push(text);
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::{duration_text, parse_duration, parse_size};

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "250ms", "1h30m", "30d", "1d1ms"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Some(text));
        }
        assert_eq!(duration_text(std::time::Duration::from_mins(90)), "1h30m");
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("4GiB"), Some(4 << 30));
        assert_eq!(parse_size("512 MiB"), Some(512 << 20));
        assert_eq!(parse_size("7B"), Some(7));
        for odd in ["", "4", "GiB", "-1KiB", "4GB", "99999999999GiB"] {
            assert_eq!(parse_size(odd), None, "{odd}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("60s"), Some(60_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("30d"), Some(2_592_000_000));
        for odd in ["", "10", "m", "10 m", "-1s", "1w", "99999999999999999999d", "1.5h"] {
            assert_eq!(ms(odd), None, "{odd}");
        }
    }
}
