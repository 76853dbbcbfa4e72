//! `conclave-load`: measures the logins, checks or userinfo responses a second of a running cluster, and the rate of a
//! bare server or of argon2 alone on this machine.
//!
//! | file | owns |
//! |---|---|
//! | `target` | the demo's line of JSON, users to sign in as |
//! | `browser` | a user's browser: cookies, forms, redirects |
//! | `flows` | a login, a forward-auth cookie, an access token |
//! | `tokens` | the token side of the provider |
//! | `raw` | one request over and over on a kept connection, cheaper than any server that answers it |
//! | `baseline` | the bare server and the bare hash |
//! | `measure` | workers, the clock, percentiles |

mod baseline;
mod browser;
mod flows;
mod measure;
mod raw;
mod target;
mod tokens;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use measure::Load;
use target::LoadTarget;

#[derive(Parser)]
#[command(version, about = "Load on a running Conclave, and on the baselines of its promises")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Complete sign-ins by username and password: the page, the form, the session
    Login {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        load: LoadArgs,
        /// Number of users who sign in, in turn
        #[arg(long, default_value_t = 16)]
        users: usize,
    },
    /// Forward-auth checks with a valid session
    Check {
        #[command(flatten)]
        at: At,
        /// Target of the checks instead of the nodes: an `http://host:port`, such as a bare server
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Userinfo with a valid access token
    Userinfo {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Access tokens that a client gets for itself
    ClientCredentials {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Refresh tokens, each exchanged for the next
    Refresh {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Introspection of a valid access token
    Introspect {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// GET of any URL that returns 200, such as the bare server's
    Get {
        #[arg(long)]
        url: String,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// argon2id verifications in threads of this process, with the parameters of the product
    Argon2 {
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Serves a fixed 200 by axum on hyper until stopped
    ServeBare {
        #[arg(long, default_value_t = 9_950)]
        port: u16,
        /// Bytes of its body
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
        bytes: u32,
    },
    /// Serves by hyper alone, until stopped, a recorded response of a node to a forward-auth check
    ServeAnswer {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 9_951)]
        port: u16,
    },
    /// POST of a form of this many bytes to any URL that returns 200, such as the bare server's
    Post {
        #[arg(long)]
        url: String,
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
        bytes: u32,
        #[command(flatten)]
        load: LoadArgs,
    },
}

#[derive(Args)]
struct At {
    /// File with the line that `conclave demo --json` prints
    #[arg(long)]
    demo: PathBuf,
    /// Only this node; by default workers use the nodes in turn
    #[arg(long)]
    node: Option<u64>,
}

#[derive(Args)]
struct LoadArgs {
    /// Duration
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Number of concurrent requests
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
}

impl LoadArgs {
    fn load(&self) -> Load {
        Load { time: Duration::from_secs(self.seconds), workers: usize::from(self.concurrency) }
    }
}

/// On one thread, so that it can be pinned to one core, and a bare server to another.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (load, outcome) = match Command::parse().what {
        What::ServeBare { port, bytes } => return baseline::serve(port, usize::try_from(bytes)?).await,
        What::ServeAnswer { at, port } => {
            let check = flows::checks(&LoadTarget::read(&at.demo, at.node)?).await?;
            let (headers, body) = check.answer().await?;
            return baseline::serve_answer(port, headers, body).await;
        }
        What::Post { url, bytes, load } => {
            let form = "x".repeat(usize::try_from(bytes)?);
            (load.load(), raw::run(load.load(), &[raw::Shot::post(&url, &[], &[("x", &form)])?]).await)
        }
        What::ClientCredentials { at, load } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            (load.load(), raw::run(load.load(), &tokens::of_its_own(&target).await?).await)
        }
        What::Introspect { at, load } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            (load.load(), raw::run(load.load(), &tokens::introspections(&target).await?).await)
        }
        What::Refresh { at, load } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            (load.load(), tokens::refreshes(load.load(), &target).await?)
        }
        What::Argon2 { load } => (load.load(), baseline::argon2(load.load()).await?),
        What::Get { url, load } => (load.load(), raw::run(load.load(), &[raw::Shot::get(&url, &[])?]).await),
        What::Login { at, load, users } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            let people = target.people(users).await?;
            (load.load(), flows::logins(load.load(), &target, &people).await)
        }
        What::Check { at, to, load } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            let check = flows::checks(&target).await?;
            let nodes: Vec<String> = target.nodes.iter().map(|node| node.http.clone()).collect();
            let shots = check.shots(to.map_or(nodes, |to| vec![to]).as_slice())?;
            (load.load(), raw::run(load.load(), &shots).await)
        }
        What::Userinfo { at, load } => {
            let target = LoadTarget::read(&at.demo, at.node)?;
            (load.load(), raw::run(load.load(), &flows::userinfos(&target).await?).await)
        }
    };
    println!("{}", outcome.line(load));
    Ok(())
}
