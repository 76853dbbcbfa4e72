//! Where an address is, by local files in the MaxMind format. Nothing is asked of the network.

use std::{net::IpAddr, path::Path};

use conclave_policy::Lookup;
use maxminddb::{PathElement, Reader};

use crate::config;

/// Largest file that is read: the usual ones have 10 MB.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The databases.
pub(super) struct Geo {
    countries: Option<Reader<Vec<u8>>>,
    numbers: Option<Reader<Vec<u8>>>,
    /// What is said when there is no database or it fails.
    missing: Missing,
}

#[derive(Clone, Copy)]
enum Missing {
    Denies,
    IsNowhere,
}

/// Where an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) country: Lookup<String>,
    pub(super) asn: Lookup<u32>,
}

impl Geo {
    /// A file that cannot be read is as none: told once, here, and to whoever asks why they were denied.
    pub(super) fn open(settings: &config::GeoIp) -> Self {
        let open = |file: &Option<std::path::PathBuf>| file.as_deref().and_then(read);
        Self {
            countries: open(&settings.country_file),
            numbers: open(&settings.asn_file),
            missing: if settings.fail_open { Missing::IsNowhere } else { Missing::Denies },
        }
    }

    pub(super) fn place(&self, address: IpAddr) -> Located {
        let country = [PathElement::Key("country"), PathElement::Key("iso_code")];
        let asn = [PathElement::Key("autonomous_system_number")];
        Located {
            country: self.look(self.countries.as_ref(), address, &country),
            asn: self.look(self.numbers.as_ref(), address, &asn),
        }
    }

    fn look<T: serde::de::DeserializeOwned>(
        &self,
        reader: Option<&Reader<Vec<u8>>>,
        address: IpAddr,
        path: &[PathElement<'_>],
    ) -> Lookup<T> {
        let found = reader.map(|reader| reader.lookup(address.to_canonical())?.decode_path(path));
        match (found, self.missing) {
            (Some(Ok(Some(value))), _) => Lookup::Known(value),
            (Some(Ok(None)), _) | (_, Missing::IsNowhere) => Lookup::Absent,
            (_, Missing::Denies) => Lookup::Unavailable,
        }
    }
}

fn read(path: &Path) -> Option<Reader<Vec<u8>>> {
    let refused = |why: String| {
        tracing::error!(file = %path.display(), "policies that ask where an address is deny: {why}");
    };
    match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE_BYTES => {
            refused(format!("the file is larger than {MAX_FILE_BYTES} bytes"));
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            refused(error.to_string());
            return None;
        }
    }
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string())).ok()?;
    Reader::from_source(bytes).map_err(|error| refused(error.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of the format: type 2, up to 28 bytes long.
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

    /// A database of one bit: addresses from 128.0.0.0 on have this row, others none.
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
        let known = Located { country: Lookup::Known("DE".into()), asn: Lookup::Known(64_512) };
        assert_eq!(at("203.0.113.9"), known);
        assert_eq!(at("::ffff:203.0.113.9"), known);
        assert_eq!(at("10.0.0.1"), Located { country: Lookup::Absent, asn: Lookup::Absent });
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
}
