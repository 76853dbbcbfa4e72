//! One request repeated on a kept connection. The bytes are made once and the response is read only as far as needed:
//! the load must cost less than the server, or it would measure itself.

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};

use super::{
    browser::encoded,
    measure::{Load, Measurement},
};

/// Longest response read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    authority: String,
    bytes: Vec<u8>,
}

impl Shot {
    /// GET of this `http://host:port/path` with these headers.
    pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::made("GET", url, headers, "")
    }

    /// POST of this form to this URL.
    pub(crate) fn post(url: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> anyhow::Result<Self> {
        let body = encoded(form);
        let length = body.len().to_string();
        let own = [("content-type", "application/x-www-form-urlencoded"), ("content-length", &length)];
        Self::made("POST", url, &[headers, &own].concat(), &body)
    }

    fn made(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").context("the URL must begin with http://")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut text = format!("{method} /{path} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.extend(["\r\n", body]);
        Ok(Self { authority: authority.to_owned(), bytes: text.into_bytes() })
    }
}

/// Workers take the shots in turn; each keeps one connection, and makes a new one after an error.
pub(crate) async fn run(load: Load, shots: &[Shot]) -> Measurement {
    let here = async {
        let mut workers = JoinSet::new();
        for shot in shots.iter().cycle().take(load.workers) {
            workers.spawn_local(fire(load, shot.clone()));
        }
        let mut all = Measurement::default();
        for outcome in workers.join_all().await {
            all.add(outcome);
        }
        all
    };
    LocalSet::new().run_until(here).await
}

async fn fire(load: Load, shot: Shot) -> Measurement {
    let mut connection: Option<Connection> = None;
    Measurement::of(load, async || {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(&shot.authority).await?,
        };
        open.exchange(&shot.bytes).await?;
        connection = Some(open);
        anyhow::Ok(())
    })
    .await
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(authority: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(MAX_ANSWER_BYTES) })
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.answer.clear();
        self.stream.write_all(request).await?;
        loop {
            anyhow::ensure!(self.answer.len() < MAX_ANSWER_BYTES, "the response is too long");
            anyhow::ensure!(self.stream.read_buf(&mut self.answer).await? != 0, "the connection was closed");
            if let Some(length) = whole_length(&self.answer)?
                && self.answer.len() >= length
            {
                break;
            }
        }
        anyhow::ensure!(self.answer.starts_with(b"HTTP/1.1 200 "), "not 200: {}", status_line(&self.answer));
        Ok(())
    }
}

/// The length of head and body, once the head is there.
fn whole_length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = answer.get(..end).unwrap_or_default();
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| String::from_utf8_lossy(value).trim().parse())
    });
    let body: usize = length.context("the answer has no length")??;
    Ok(Some(end + 4 + body))
}

fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::whole_length;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nok";
        assert_eq!(whole_length(answer).unwrap(), Some(answer.len()));
        assert_eq!(whole_length(b"HTTP/1.1 200 OK\r\ncontent-len").unwrap(), None);
        assert!(whole_length(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").is_err());
    }
}
