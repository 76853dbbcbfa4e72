//! Loads the cluster secret: from the environment, from a file, or, for a single node, from a file created now.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Config, ConfigError};
use conclave_base::runtime::Entropy;
use conclave_crypto::secret::{ClusterSecret, SecretRing};

/// Mode bits that give access to users other than the file's owner and group.
const OPEN_TO_OTHERS: u32 = 0o007;

/// Maximum length of a secret file: the secret and generous white space.
const MAX_FILE_LEN: u64 = 4096;

/// The cluster secret of this configuration, and those that are also accepted. A node without peers and without a
/// secret creates one, readable by its owner alone. A node with peers must be given the secret that they share.
pub fn load_secret(config: &Config, entropy: &dyn Entropy) -> Result<SecretRing, ConfigError> {
    let current = match find_current(config)? {
        Some(secret) => secret,
        None => absent(config, &secret_path(config), entropy)?,
    };
    Ok(SecretRing { current, accepted: accepted(config)? })
}

/// The cluster secrets of this configuration, if there are any. Creates nothing, for read-only tools.
pub fn find_secret(config: &Config) -> Result<Option<SecretRing>, ConfigError> {
    let Some(current) = find_current(config)? else { return Ok(None) };
    Ok(Some(SecretRing { current, accepted: accepted(config)? }))
}

/// The additional secrets. A named file must exist: a node that silently accepted fewer secrets than configured would
/// refuse its peers.
fn accepted(config: &Config) -> Result<Vec<ClusterSecret>, ConfigError> {
    let read = |path: &PathBuf| {
        read_private(path)?.ok_or_else(|| {
            secret_error(format!(
                "cluster.accept_secret_files: {} does not exist; copy the secret there (mode 600), or take the name out",
                path.display()
            ))
        })
    };
    config.cluster.accept_secret_files.iter().map(read).collect()
}

fn find_current(config: &Config) -> Result<Option<ClusterSecret>, ConfigError> {
    if let Some(text) = &config.cluster.secret {
        let secret = text.cluster_secret();
        return secret.map(Some).map_err(|fault| secret_error(format!("cluster.secret: {fault}")));
    }
    read_private(&secret_path(config))
}

/// The secret in a file that only its owner and group may read; `None` if the file does not exist.
fn read_private(path: &Path) -> Result<Option<ClusterSecret>, ConfigError> {
    match fs::metadata(path) {
        Ok(found) if found.mode() & OPEN_TO_OTHERS != 0 => Err(secret_error(format!(
            "{}: every user of this machine can read the cluster secret; run `chmod 600` on it",
            path.display()
        ))),
        Ok(found) if found.len() > MAX_FILE_LEN => {
            Err(secret_error(format!("{}: too long to be a cluster secret", path.display())))
        }
        Ok(_) => read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Writes the secret into a new file that only its owner can read. An existing file is not changed: another secret in
/// its place would make a cluster's own data unreadable.
///
/// # Errors
/// Fails if the file exists or cannot be written.
pub fn write_new_secret(path: &Path, secret: &ClusterSecret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", *secret.to_text())?;
    file.sync_all()
}

fn secret_path(config: &Config) -> PathBuf {
    config.cluster.secret_file.clone().unwrap_or_else(|| config.node.data_dir.join("cluster.secret"))
}

fn read(path: &Path) -> Result<ClusterSecret, ConfigError> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| unreadable(path, &error))?;
    ClusterSecret::parse(&text).map_err(|fault| secret_error(format!("{}: {fault}", path.display())))
}

fn absent(config: &Config, path: &Path, entropy: &dyn Entropy) -> Result<ClusterSecret, ConfigError> {
    if !config.cluster.peers.is_empty() {
        return Err(secret_error(format!(
            "no cluster secret at {}, and a node with peers must share theirs; run `conclave secret new` once and give every node the same file (cluster.secret_file) or CONCLAVE_CLUSTER__SECRET",
            path.display()
        )));
    }
    if config.cluster.secret_file.is_some() {
        return Err(secret_error(format!(
            "cluster.secret_file: {} does not exist; run `conclave secret new` to make one",
            path.display()
        )));
    }
    let secret = ClusterSecret::generate(entropy);
    write(path, &secret).map_err(|error| {
        secret_error(format!("cannot write the cluster secret to {}: {error}", path.display()))
    })?;
    Ok(secret)
}

/// Written to a temporary file and renamed: a node killed in between must not find a partial secret at its next start.
fn write(path: &Path, secret: &ClusterSecret) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension("secret.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    writeln!(file, "{}", *secret.to_text())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    fs::File::open(folder)?.sync_all()
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    secret_error(format!("cannot read the cluster secret at {}: {error}", path.display()))
}

fn secret_error(text: String) -> ConfigError {
    ConfigError::Secret(text)
}
