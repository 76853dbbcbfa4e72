//! The location of an address, from local files in the MaxMind format. No network request is made.
//!
//! Such files are replaced about once a week. Each is checked periodically and read again when it has changed. If a
//! file is missing or cannot be read, the data read before stays in force.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use conclave_policy::Lookup;
use maxminddb::{PathElement, Reader};

use conclave_config as config;

/// Maximum size of a file; the usual ones have 10 MB.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The interval at which files are checked. A check is two file system calls; a change comes about once a week.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The databases.
pub(super) struct Geo {
    countries: Database,
    numbers: Database,
    /// The lookup result when there is no database or it fails.
    missing: Missing,
}

#[derive(Clone, Copy)]
enum Missing {
    Denies,
    IsNowhere,
}

/// The country and autonomous system of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GeoLocation {
    pub(super) country: Lookup<String>,
    pub(super) asn: Lookup<u32>,
}

impl Geo {
    /// Opens the configured files. A file that cannot be read counts as missing; it is logged once, and shown in the
    /// explanation of a denial.
    pub(super) fn open(settings: &config::GeoIp) -> Self {
        Self {
            countries: Database::open(settings.country_file.clone()),
            numbers: Database::open(settings.asn_file.clone()),
            missing: if settings.fail_open { Missing::IsNowhere } else { Missing::Denies },
        }
    }

    /// Reads a file again if it has changed. Blocks on the disk.
    fn look_again(&self) {
        self.countries.look_again();
        self.numbers.look_again();
    }

    pub(super) fn place(&self, address: IpAddr) -> GeoLocation {
        let country = [PathElement::Key("country"), PathElement::Key("iso_code")];
        let asn = [PathElement::Key("autonomous_system_number")];
        GeoLocation {
            country: self.look(&self.countries, address, &country),
            asn: self.look(&self.numbers, address, &asn),
        }
    }

    fn look<T: serde::de::DeserializeOwned>(
        &self,
        database: &Database,
        address: IpAddr,
        path: &[PathElement<'_>],
    ) -> Lookup<T> {
        let reader = database.reader.load();
        let found = reader.as_ref().map(|reader| reader.lookup(address.to_canonical())?.decode_path(path));
        match (found, self.missing) {
            (Some(Ok(Some(value))), _) => Lookup::Known(value),
            (Some(Ok(None)), _) | (_, Missing::IsNowhere) => Lookup::Absent,
            (_, Missing::Denies) => Lookup::Unavailable,
        }
    }
}

/// Checks the files periodically, for as long as the node runs.
pub(super) async fn keep_fresh(geo: Arc<Geo>) {
    if geo.countries.file.is_none() && geo.numbers.file.is_none() {
        return;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looking = Arc::clone(&geo);
        // Reading ten megabytes would block a thread that serves requests.
        if let Err(error) = tokio::task::spawn_blocking(move || looking.look_again()).await {
            tracing::error!(%error, "the files of policy.geoip could not be checked");
        }
    }
}

/// One file, and the data read from it.
struct Database {
    file: Option<PathBuf>,
    reader: ArcSwapOption<Reader<Vec<u8>>>,
    /// The file's length and time at the last check, valid or not; `None` if it could not be checked.
    seen: Mutex<Option<Seen>>,
}

/// Length and modification time: they distinguish a file from its replacement.
type Seen = (u64, Option<SystemTime>);

impl Database {
    fn open(file: Option<PathBuf>) -> Self {
        let database = Self { file, reader: ArcSwapOption::empty(), seen: Mutex::default() };
        if let Some(file) = &database.file {
            let now = seen(file);
            *database.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
            database.take_in(file);
        }
        database
    }

    /// Reads the file again if it has changed.
    fn look_again(&self) {
        let Some(file) = &self.file else { return };
        let now = seen(file);
        let mut before = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *before != now {
            // Recorded before the file is read: a replacement during the read is then noticed at the next check.
            *before = now;
            self.take_in(file);
        }
    }

    fn take_in(&self, file: &Path) {
        match read(file) {
            Ok(reader) => {
                let built = reader.metadata().build_epoch;
                tracing::info!(file = %file.display(), built, "read {}", file.display());
                self.reader.store(Some(Arc::new(reader)));
            }
            Err(why) if self.reader.load().is_some() => {
                tracing::error!(file = %file.display(), "the data read before stays in force: {why}");
            }
            Err(why) => {
                tracing::error!(file = %file.display(), "policies that depend on this file deny: {why}");
            }
        }
    }
}

fn seen(file: &Path) -> Option<Seen> {
    let found = std::fs::metadata(file).ok()?;
    Some((found.len(), found.modified().ok()))
}

fn read(file: &Path) -> Result<Reader<Vec<u8>>, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("the file is larger than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    Reader::from_source(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A string of the format: type 2, up to 28 bytes long.
    fn text(text: &str) -> Vec<u8> {
        let mut out = vec![0x40 | u8::try_from(text.len()).unwrap()];
        out.extend(text.as_bytes());
        out
    }

    fn number(value: u16) -> Vec<u8> {
        let mut out = vec![0xa2];
        out.extend(value.to_be_bytes());
        out
    }

    fn long(value: u32) -> Vec<u8> {
        let mut out = vec![0xc4];
        out.extend(value.to_be_bytes());
        out
    }

    fn map(pairs: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
        let mut out = vec![0xe0 | u8::try_from(pairs.len()).unwrap()];
        for (key, value) in pairs {
            out.extend(text(key));
            out.extend(value);
        }
        out
    }

    /// A database of one bit: addresses from 128.0.0.0 on have this row, others have none.
    fn database(row: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 1, 0, 0, 17];
        out.extend([0; 16]);
        out.extend(row);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        out.extend(map(vec![
            ("node_count", long(1)),
            ("record_size", number(24)),
            ("ip_version", number(4)),
            ("database_type", text("Test")),
            ("languages", vec![0x00, 0x04]),
            ("binary_format_major_version", number(2)),
            ("binary_format_minor_version", number(0)),
            ("build_epoch", vec![0x04, 0x02, 0x60, 0, 0, 0]),
            ("description", map(vec![])),
        ]));
        out
    }

    #[test]
    fn an_address_is_where_the_file_says_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, row: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, database(row)).unwrap();
            Some(path)
        };
        let settings = config::GeoIp {
            country_file: file("country", &map(vec![("country", map(vec![("iso_code", text("DE"))]))])),
            asn_file: file("asn", &map(vec![("autonomous_system_number", long(64_512))])),
            fail_open: false,
        };
        let geo = Geo::open(&settings);
        let at = |address: &str| geo.place(address.parse().unwrap());
        let known = GeoLocation { country: Lookup::Known("DE".into()), asn: Lookup::Known(64_512) };
        assert_eq!(at("203.0.113.9"), known);
        assert_eq!(at("::ffff:203.0.113.9"), known);
        assert_eq!(at("10.0.0.1"), GeoLocation { country: Lookup::Absent, asn: Lookup::Absent });
        // IPv6 cannot be looked up in a file for IPv4.
        assert_eq!(at("2001:db8::1").country, Lookup::Unavailable);
    }

    #[test]
    fn without_a_file_nobody_can_tell_unless_that_was_chosen() {
        let address = "203.0.113.9".parse().unwrap();
        let place = |settings: &config::GeoIp| Geo::open(settings).place(address).country;
        assert_eq!(place(&config::GeoIp::default()), Lookup::Unavailable);
        let missing = config::GeoIp { country_file: Some("/nowhere.mmdb".into()), ..Default::default() };
        assert_eq!(place(&missing), Lookup::Unavailable);
        assert_eq!(place(&config::GeoIp { fail_open: true, ..missing }), Lookup::Absent);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad"), b"not a database").unwrap();
        let bad = config::GeoIp { country_file: Some(dir.path().join("bad")), ..Default::default() };
        assert_eq!(place(&bad), Lookup::Unavailable);
    }

    /// Replaces the file with a database of that country. Each country name used here has another length, so the file's
    /// length changes too.
    fn in_country(path: &Path, country: &str) {
        let row = map(vec![("country", map(vec![("iso_code", text(country))]))]);
        let next = path.with_extension("new");
        std::fs::write(&next, database(&row)).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("country");
        let settings = config::GeoIp { country_file: Some(path.clone()), ..Default::default() };
        let geo = Geo::open(&settings);
        let at = || geo.place("203.0.113.9".parse().unwrap()).country;
        assert_eq!(at(), Lookup::Unavailable);
        in_country(&path, "DE");
        geo.look_again();
        assert_eq!(at(), Lookup::Known("DE".into()), "one that comes later is found");
        in_country(&path, "FRA");
        assert_eq!(at(), Lookup::Known("DE".into()), "not before it is looked at");
        geo.look_again();
        assert_eq!(at(), Lookup::Known("FRA".into()));
        std::fs::write(&path, b"half a file").unwrap();
        geo.look_again();
        assert_eq!(at(), Lookup::Known("FRA".into()), "a bad file keeps the old one");
        std::fs::remove_file(&path).unwrap();
        geo.look_again();
        assert_eq!(at(), Lookup::Known("FRA".into()), "as does none");
        in_country(&path, "NO");
        geo.look_again();
        assert_eq!(at(), Lookup::Known("NO".into()));
    }

    #[test]
    fn of_a_file_that_did_not_change_nothing_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("country");
        in_country(&path, "DE");
        let geo = Geo::open(&config::GeoIp { country_file: Some(path), ..Default::default() });
        let before = geo.countries.reader.load_full().unwrap();
        geo.look_again();
        assert!(Arc::ptr_eq(&before, &geo.countries.reader.load_full().unwrap()));
    }
}
