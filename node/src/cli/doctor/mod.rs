//! `conclave doctor …`: checks a protected application from the outside, as a browser without a sign-in, and reports
//! faults and their remedies.
//!
//! | file | owns |
//! |---|---|
//! | `walk` | requests, cookies and redirects, as in a browser |
//! | `findings` | the code of each kind of finding, and its remedy |
//! | `examine` | the checks, and the conclusions from the responses |
//! | `atmosphere` | checks of this cluster's client metadata on the Atmosphere |
//!
//! It needs no token and no cluster: everything it uses is public.

mod atmosphere;
mod examine;
mod findings;
mod walk;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use serde_json::Value;
use url::Url;

use conclave_base::runtime::{Clock as _, SystemClock};

use super::output::{self, Format, Output};

use findings::{Finding, Weight};

const COLUMNS: &[&str] = &["weight", "code", "what", "change"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check an application behind forward-auth: loops, wrong addresses, cookies, clocks, trusted headers
    #[command(after_help = "\
Examples:
  conclave doctor forward-auth https://wiki.example.org/
  conclave doctor forward-auth https://wiki.example.org/ -o json | jq -r .[].code

The exit code is 1 if a fault was found.")]
    ForwardAuth {
        /// A page of the application, as users open it
        url: Url,
        /// The output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
    /// Check this cluster's client metadata as account servers of the Atmosphere do; best from outside its network
    #[command(after_help = "\
Examples:
  conclave doctor atmosphere https://id.example.org

The exit code is 1 if a fault was found.")]
    Atmosphere {
        /// The address at which users reach the cluster (http.public_url)
        url: Url,
        /// The output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub(super) async fn run(command: &Command) -> ExitCode {
    let (url, output, findings) = match command {
        Command::ForwardAuth { url, output } => {
            let now_ms = SystemClock::new().now_ms();
            (url, output, examine::application(url, now_ms).await)
        }
        Command::Atmosphere { url, output } => (url, output, atmosphere::cluster(url).await),
    };
    let printed = output::print(&shown(url, &findings, *output), *output);
    if findings.iter().any(|finding| finding.weight == Weight::Error) { ExitCode::FAILURE } else { printed }
}

fn shown(url: &Url, findings: &[Finding], format: Format) -> Output {
    let rows: Vec<Value> = findings.iter().map(Finding::value).collect();
    if rows.is_empty() && format == Format::Table {
        return Output::done(format!("nothing wrong with {url}"), Value::Array(rows));
    }
    Output::Many { columns: COLUMNS, rows }
}
