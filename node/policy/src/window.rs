//! Hours of a week in a time zone, by the compiled-in time-zone database: identical on every node of a version.

use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::spec::TimeWindow;

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// All seven days.
const ALL_DAYS: u8 = 0x7f;

/// Compiled hours.
#[derive(Clone, Debug)]
pub(crate) struct Hours {
    days: u8,
    from: u16,
    to: u16,
    zone: TimeZone,
}

impl Hours {
    pub(crate) fn compile(window: &TimeWindow) -> Result<Self, String> {
        if window.days == 0 || window.days > ALL_DAYS {
            return Err("a time window must have at least one day, Monday to Sunday".into());
        }
        if window.from_minute >= DAY || window.to_minute > DAY || window.from_minute == window.to_minute {
            return Err("a time window must have two different times between 00:00 and 24:00".into());
        }
        let zone = TimeZoneDatabase::bundled()
            .get(&window.zone)
            .map_err(|_| format!("{:?} is not a time zone; write for example Europe/Berlin", window.zone))?;
        Ok(Self { days: window.days, from: window.from_minute, to: window.to_minute, zone })
    }

    /// True if the time lies within. None if it is outside this calendar.
    pub(crate) fn contains(&self, now_ms: u64) -> Option<bool> {
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let local = self.zone.to_datetime(now);
        let minute = u16::try_from(local.hour()).ok()? * 60 + u16::try_from(local.minute()).ok()?;
        let today = u8::try_from(local.weekday().to_monday_zero_offset()).ok()?;
        let begins_on = |day: u8| self.days & (1 << day) != 0;
        if self.from < self.to {
            return Some(begins_on(today) && (self.from..self.to).contains(&minute));
        }
        let yesterday = (today + 6) % 7;
        Some((begins_on(today) && minute >= self.from) || (begins_on(yesterday) && minute < self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY_TO_FRIDAY: u8 = 0b0001_1111;

    fn hours(days: u8, from: u16, to: u16, zone: &str) -> Hours {
        Hours::compile(&TimeWindow { days, from_minute: from, to_minute: to, zone: zone.into() }).unwrap()
    }

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond().unsigned_abs()
    }

    #[test]
    fn hours_are_those_of_the_zone_in_summer_and_in_winter() {
        let office = hours(MONDAY_TO_FRIDAY, 8 * 60, 18 * 60, "Europe/Berlin");
        for (moment, inside) in [
            ("2026-07-06T06:00:00Z", true), // Monday, 08:00 CEST
            ("2026-07-06T05:59:59Z", false),
            ("2026-01-05T06:59:00Z", false), // Monday, 07:59 CET
            ("2026-01-05T07:00:00Z", true),
            ("2026-01-05T16:59:59Z", true),
            ("2026-01-05T17:00:00Z", false),
            ("2026-01-04T12:00:00Z", false), // Sunday
        ] {
            assert_eq!(office.contains(at(moment)), Some(inside), "{moment}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday_night = hours(0b0001_0000, 22 * 60, 6 * 60, "UTC");
        for (moment, inside) in [
            ("2026-01-02T22:00:00Z", true), // Friday
            ("2026-01-03T05:59:00Z", true),
            ("2026-01-03T06:00:00Z", false),
            ("2026-01-03T23:00:00Z", false),
            ("2026-01-02T05:00:00Z", false),
        ] {
            assert_eq!(friday_night.contains(at(moment)), Some(inside), "{moment}");
        }
        assert_eq!(friday_night.contains(u64::MAX), None);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        let bad = |days, from, to, zone: &str| {
            Hours::compile(&TimeWindow { days, from_minute: from, to_minute: to, zone: zone.into() }).is_err()
        };
        assert!(bad(0, 0, 10, "UTC") && bad(0x80, 0, 10, "UTC") && bad(1, 10, 10, "UTC"));
        assert!(bad(1, 1440, 10, "UTC") && bad(1, 0, 1441, "UTC") && bad(1, 0, 10, "Mars/Olympus"));
    }
}
