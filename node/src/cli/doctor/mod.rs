//! `conclave doctor …`: looks at a protected application from the outside, as a browser that nobody is signed in with,
//! and says what is wrong and what to change.
//!
//! | file | owns |
//! |---|---|
//! | `walk` | requests, cookies and redirects, as a browser has them |
//! | `findings` | what each kind of trouble is called and what to change |
//! | `examine` | what is tried, and what is concluded from the answers |
//! | `atmosphere` | the same for who this cluster is on the Atmosphere |
//!
//! It needs no token and no cluster: everything it knows, anybody can see.

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
    /// Look at an application behind forward-auth: loops, wrong addresses, cookies, clocks, headers that are believed
    #[command(after_help = "\
Examples:
  conclave doctor forward-auth https://wiki.example.org/
  conclave doctor forward-auth https://wiki.example.org/ -o json | jq -r .[].code

Ends with 1 when something is wrong.")]
    ForwardAuth {
        /// A page of the application, as people open it
        url: Url,
        /// How to print the result
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
    /// Look at who this cluster is on the Atmosphere, as account servers do; best from outside its network
    #[command(after_help = "\
Examples:
  conclave doctor atmosphere https://id.example.org

Ends with 1 when something is wrong.")]
    Atmosphere {
        /// The address at which people reach the cluster (http.public_url)
        url: Url,
        /// How to print the result
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub async fn run(command: &Command) -> ExitCode {
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
