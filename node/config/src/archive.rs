//! `[archive]`: the target, schedule and retention of the archive of log and snapshots.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::parse::{self, SecretText, duration, size};

const DAY: Duration = Duration::from_hours(24);
const MINUTE_MS: u64 = 60_000;
/// Upper bound for the difference between nodes' clocks.
const CLOCKS_APART_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Minimum and maximum time between two snapshots.
const LEAST_EVERY: Duration = Duration::from_mins(10);
const MOST_EVERY: Duration = Duration::from_hours(24 * 31);
/// Maximum number of times of day in a schedule.
const MAX_TIMES: usize = 24;

/// `[archive]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveConfig {
    /// `file:///directory` or `s3://bucket/prefix`. Default none: nothing is archived.
    pub target: Option<String>,
    /// URL of an S3-compatible service. Default: Amazon's service in the region.
    pub endpoint: Option<Url>,
    /// Default `us-east-1`, which other services ignore.
    pub region: String,
    /// Access key id for S3.
    pub access_key_id: Option<SecretText>,
    /// The secret access key. Meant for `CONCLAVE_ARCHIVE__SECRET_ACCESS_KEY`; a file is better.
    pub secret_access_key: Option<SecretText>,
    /// A file with the secret access key.
    pub secret_access_key_file: Option<PathBuf>,
    /// Extra log that a node keeps for an unreachable archive; never more than a tenth of the free disk. Default 4GiB.
    #[serde(deserialize_with = "size", serialize_with = "super::parse::write_size")]
    pub hold_back: u64,
    /// Times of snapshots: `"03:00"`, `"03:00, 15:00"` (UTC) or `"every 6h"`. Default `"03:00"`. The first snapshot is
    /// taken at once.
    pub schedule: ScheduleConfig,
    pub keep: Keep,
    /// Interval at which one node test-restores the archive, in a separate process. Default 24h; 0s = never.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub drill_every: Duration,
}

/// `[archive.keep]`: retention of snapshots, and of the log for point-in-time restores.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Number of hours of which the last snapshot is kept. Default 24.
    pub hourly: u32,
    /// Number of days of which the last snapshot is kept. Default 7.
    pub daily: u32,
    /// Number of weeks of which the last snapshot is kept. Default 5.
    pub weekly: u32,
    /// Number of months of which the last snapshot is kept. Default 12.
    pub monthly: u32,
    /// Time back to which every point in time can be restored. Default 7d.
    #[serde(deserialize_with = "duration", serialize_with = "super::parse::write_duration")]
    pub log: Duration,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            target: None,
            endpoint: None,
            region: "us-east-1".into(),
            access_key_id: None,
            secret_access_key: None,
            secret_access_key_file: None,
            hold_back: 4 << 30,
            schedule: ScheduleConfig::default(),
            keep: Keep::default(),
            drill_every: DAY,
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { hourly: 24, daily: 7, weekly: 5, monthly: 12, log: 7 * DAY }
    }
}

/// The schedule of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleConfig {
    /// This long after the last one, in milliseconds.
    Every(u64),
    /// At these times of each day, milliseconds after midnight UTC, in order.
    At(Vec<u64>),
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::At(vec![3 * 60 * MINUTE_MS])
    }
}

impl ScheduleConfig {
    /// True if a snapshot is due at `now_ms`, when the last one was taken at `last_ms`. Unix milliseconds.
    pub fn is_due(&self, last_ms: u64, now_ms: u64) -> bool {
        // The last one was taken with a wrong clock; otherwise none would be due until the clock reaches that time.
        if last_ms > now_ms.saturating_add(CLOCKS_APART_MS) {
            return true;
        }
        match self {
            Self::Every(period) => now_ms >= last_ms.saturating_add(*period),
            Self::At(times) => {
                let midnight = now_ms - now_ms % DAY_MS;
                // The latest time that has passed: today's, or yesterday's last.
                let today = times.iter().rev().map(|at| midnight + at).find(|at| *at <= now_ms);
                let yesterday = || times.last().map(|at| (midnight + at).saturating_sub(DAY_MS));
                today.or_else(yesterday).is_some_and(|due| last_ms < due)
            }
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let hint = "write \"03:00\", \"03:00, 15:00\" (UTC) or \"every 6h\"";
        let wrong = || format!("{text:?} is not a schedule; {hint}");
        if let Some(period) = text.trim().strip_prefix("every ") {
            let period = parse::parse_duration(period).ok_or_else(wrong)?;
            if !(LEAST_EVERY..=MOST_EVERY).contains(&period) {
                return Err(format!("{text:?}: at least 10m and at most 31d between snapshots"));
            }
            return Ok(Self::Every(u64::try_from(period.as_millis()).unwrap_or(u64::MAX)));
        }
        let mut times = text
            .split(',')
            .map(|at| time_of_day(at.trim()).ok_or_else(wrong))
            .collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable();
        times.dedup();
        if times.len() > MAX_TIMES {
            Err(format!("{text:?}: at most {MAX_TIMES} times a day"))
        } else {
            Ok(Self::At(times))
        }
    }
}

fn time_of_day(text: &str) -> Option<u64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str, below: u64| {
        let is_plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|number| is_plain && *number < below)
    };
    Some((number(hour, 24)? * 60 + number(minute, 60)?) * MINUTE_MS)
}

impl fmt::Display for ScheduleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(period) => write!(f, "every {} min", period / MINUTE_MS),
            Self::At(times) => {
                let minutes = times.iter().map(|at| at / MINUTE_MS);
                let shown = minutes.map(|at| format!("{:02}:{:02}", at / 60, at % 60)).collect::<Vec<_>>();
                write!(f, "{} UTC", shown.join(", "))
            }
        }
    }
}

impl Serialize for ScheduleConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScheduleConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl ArchiveConfig {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let Some(target) = &self.target else { return };
        let has_secret = self.secret_access_key.is_some() || self.secret_access_key_file.is_some();
        match Url::parse(target) {
            Ok(url) if url.scheme() == "file" => {
                if url.to_file_path().is_err() {
                    problems.push("archive.target: write file:///directory, with three slashes".into());
                }
            }
            Ok(url) if url.scheme() == "s3" => {
                if url.host_str().is_none() || url.query().is_some() || !url.username().is_empty() {
                    problems.push("archive.target: write s3://bucket/prefix".into());
                }
                if self.access_key_id.is_none() || !has_secret {
                    problems.push(
                        "archive.access_key_id: an S3 target needs this and archive.secret_access_key_file (or \
                         CONCLAVE_ARCHIVE__SECRET_ACCESS_KEY)"
                            .into(),
                    );
                }
            }
            _ => problems.push("archive.target: write file:///directory or s3://bucket/prefix".into()),
        }
        if self.secret_access_key.is_some() && self.secret_access_key_file.is_some() {
            problems
                .push("archive.secret_access_key: set either this or archive.secret_access_key_file".into());
        }
        if self.endpoint.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            problems.push("archive.endpoint: write https://host or http://host:port".into());
        }
        super::login::within(problems, "archive.keep.log", self.keep.log, Duration::ZERO, 400 * DAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn schedules_read_as_people_write_them() {
        assert_eq!(ScheduleConfig::parse("every 6h"), Ok(ScheduleConfig::Every(6 * HOUR_MS)));
        assert_eq!(
            ScheduleConfig::parse("15:00, 03:00"),
            Ok(ScheduleConfig::At(vec![3 * HOUR_MS, 15 * HOUR_MS]))
        );
        for odd in
            ["", "every", "every 5m", "every 40d", "3:00", "24:00", "03:60", "03:00,", "0 3 * * *", "+3:00"]
        {
            assert!(ScheduleConfig::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_snapshot_is_due_once_after_each_time_of_day() {
        let at = ScheduleConfig::parse("03:00, 15:00").unwrap();
        let day = 20_000 * DAY_MS;
        let (before, night, later, noon) =
            (day + 2 * HOUR_MS, day + 3 * HOUR_MS, day + 4 * HOUR_MS, day + 15 * HOUR_MS);
        assert!(!at.is_due(day - 9 * HOUR_MS, before), "yesterday's last one was taken");
        assert!(at.is_due(day - 10 * HOUR_MS, before), "yesterday's last one was missed");
        assert!(at.is_due(before, night));
        assert!(!at.is_due(night, later));
        assert!(at.is_due(later, noon));
        let every = ScheduleConfig::parse("every 6h").unwrap();
        assert!(!every.is_due(day, day + 6 * HOUR_MS - 1));
        assert!(every.is_due(day, day + 6 * HOUR_MS));
        for schedule in [at, every] {
            assert!(!schedule.is_due(day + HOUR_MS / 2, day), "another node's clock is ahead");
            assert!(
                schedule.is_due(day + 400 * DAY_MS, day),
                "a clock was a year ahead when the last one was taken"
            );
        }
    }
}
