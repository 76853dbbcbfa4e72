//! `conclave cluster join`: joins a running cluster, writes the membership into an empty data directory, and writes the
//! settings for the start.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use conclave_base::runtime::Runtime;
use conclave_cluster::join::{JoinOptions, Joined, join};
use conclave_config::{Config, find_secret};
use conclave_crypto::keys::ClusterKeys;

use super::{failure::Failure, output::Output};

/// The default ports of a node.
const CLUSTER_PORT: u16 = 9300;
const HTTP_PORT: u16 = 9000;
const API_PORT: u16 = 9200;

#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// `host:port` of any member's cluster plane
    address: String,
    /// File with the cluster's secret
    #[arg(long, value_name = "FILE", default_value = "cluster.secret")]
    secret_file: PathBuf,
    /// An empty directory, or one of a join that was interrupted
    #[arg(long, value_name = "DIR", default_value = "./conclave-data")]
    data_dir: PathBuf,
    /// Keep existing contents of the data directory beside it: of an earlier lineage of the cluster, or of a removed
    /// node
    #[arg(long)]
    set_aside: bool,
    /// The file for the settings of this node; an existing file is not changed
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    out: PathBuf,
    /// `host:port` of this node's cluster plane, for the other nodes [default: this machine's address towards ADDRESS,
    /// port 9300]
    #[arg(long, value_name = "ADDR")]
    cluster: Option<SocketAddr>,
    /// The address at which users and proxies reach this node [default: the same address, port 9000]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// The address on which this node's admin API listens [default: 127.0.0.1:9200]
    #[arg(long, value_name = "ADDR")]
    admin_api: Option<SocketAddr>,
}

/// Joins. If settings are given, the node is to start with those: only its data directory is written.
pub(super) async fn run(args: &JoinArgs, named: Option<(Config, &Path)>) -> Result<Output, Failure> {
    match named {
        Some((config, file)) => run_as_configured(args, &config, file).await,
        None => run_anew(args).await,
    }
}

async fn run_as_configured(args: &JoinArgs, config: &Config, file: &Path) -> Result<Output, Failure> {
    let secret = find_secret(config).map_err(|error| Failure::usage(error.to_string()))?;
    let secret =
        secret.ok_or_else(|| Failure::usage(format!("{}: it names no cluster secret", file.display())))?;
    let options = JoinOptions {
        address: args.address.clone(),
        data_dir: config.node.data_dir.clone(),
        set_aside: args.set_aside,
        advertise: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        keys: Arc::new(ClusterKeys::ring(&secret)),
        runtime: Runtime::system(),
    };
    let joined = join(options).await.map_err(|error| Failure::other(error.to_string()))?;
    Ok(Output::done(
        format!("this machine is node {}; start it: conclave serve --config {}", joined.node, file.display()),
        json!({ "node_id": joined.node, "public_url": joined.public_url, "config": file }),
    ))
}

async fn run_anew(args: &JoinArgs) -> Result<Output, Failure> {
    if args.out.exists() {
        return Err(Failure::usage(format!("{} exists; name another file with --out", args.out.display())));
    }
    let here = address_towards(&args.address)?;
    let cluster = args.cluster.unwrap_or_else(|| SocketAddr::new(here, CLUSTER_PORT));
    let http = args.http.unwrap_or_else(|| SocketAddr::new(here, HTTP_PORT));
    let api = args.admin_api.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], API_PORT)));
    let options = JoinOptions {
        address: args.address.clone(),
        data_dir: args.data_dir.clone(),
        set_aside: args.set_aside,
        advertise: cluster.to_string(),
        api_url: format!("http://{api}"),
        keys: keys(&args.secret_file)?,
        runtime: Runtime::system(),
    };
    let joined = join(options).await.map_err(|error| Failure::other(error.to_string()))?;
    write(args, &joined, cluster, http, api)?;
    let out = args.out.display();
    Ok(Output::done(
        format!("this machine is node {}; start it: conclave serve --config {out}", joined.node),
        json!({ "node_id": joined.node, "public_url": joined.public_url, "config": args.out }),
    ))
}

fn keys(secret_file: &Path) -> Result<Arc<ClusterKeys>, Failure> {
    let mut config = Config::default();
    config.cluster.secret_file = Some(secret_file.to_owned());
    let secret = find_secret(&config).map_err(|error| Failure::usage(error.to_string()))?;
    let secret = secret.ok_or_else(|| {
        let shown = secret_file.display();
        Failure::usage(format!(
            "{shown}: there is no such file; copy the secret of the cluster there (mode 600)"
        ))
    })?;
    Ok(Arc::new(ClusterKeys::ring(&secret)))
}

/// The address of this machine from which it would connect to the cluster. Nothing is sent.
fn address_towards(address: &str) -> Result<IpAddr, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("{address}: {e}; write host:port"));
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.local_addr().map(|local| local.ip()).map_err(failed)
}

fn write(
    args: &JoinArgs,
    joined: &Joined,
    cluster: SocketAddr,
    http: SocketAddr,
    api: SocketAddr,
) -> Result<(), Failure> {
    // The settings contain absolute paths: they may be read from another directory.
    let absolute = |path: &Path| {
        toml_text(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy())
    };
    let text = format!(
        "# Written by `conclave cluster join`.\n[node]\nid = {}\ndata_dir = {}\n\n[cluster]\nlisten = \"{cluster}\"\njoined = true\n\
         secret_file = {}\n\n[http]\nlisten = \"{http}\"\npublic_url = {}\n\n[api]\nlisten = \"{api}\"\n",
        joined.node,
        absolute(&args.data_dir),
        absolute(&args.secret_file),
        toml_text(&joined.public_url),
    );
    let failed = |e: std::io::Error| Failure::other(format!("cannot write {}: {e}", args.out.display()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Formats a TOML string; its escapes are those of JSON.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
