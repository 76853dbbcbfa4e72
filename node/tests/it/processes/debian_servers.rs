//! Apache and Dovecot of Debian, each with a separate configuration in a separate directory, started without root.

use std::{os::unix::fs::PermissionsExt as _, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::party::{Party, directory, write};

/// Apache with the module and these settings. Every path shows a page.
pub(super) async fn apache(port: u16, module: &str, settings: &str) -> Party {
    let dir = directory();
    let page = write(dir.path(), "index.html", "the application");
    let folder = dir.path().display();
    let modules = ["mpm_event", "authn_core", "authz_core", "authz_user", "alias", "headers", module];
    let modules =
        modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let config = format!(
        r#"ServerRoot "{folder}"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile "{folder}/pid"
ErrorLog "{folder}/errors"
DocumentRoot "{folder}"
{}User www-data
Group www-data
AliasMatch "^/" "{page}"
{settings}
"#,
        modules.concat()
    );
    let config = write(dir.path(), "apache.conf", &config);
    let mut command = Command::new("/usr/sbin/apache2");
    command.args(["-f", &config, "-DFOREGROUND"]);
    Party::start(&mut command, dir, port).await
}

/// The settings that Dovecot needs to run without root: one user for everything, and other directories.
fn as_user(name: &str, group: &str) -> String {
    format!(
        "default_internal_user = {name}\ndefault_internal_group = {group}\ndefault_login_user = {name}\n\
         service anvil {{\n  chroot =\n}}\nservice imap-login {{\n  chroot =\n}}\n"
    )
}

fn id(option: &str) -> String {
    let output = Command::new("id").arg(option).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Dovecot's IMAP server, whose passwords are access tokens that it checks by these settings of its OAuth 2.0 database.
pub(super) async fn dovecot(port: u16, oauth2: &str) -> Party {
    let dir = directory();
    let folder = dir.path().display();
    let database = write(dir.path(), "oauth2.conf.ext", oauth2);
    let mail = dir.path().join("mail");
    std::fs::create_dir(&mail).unwrap();
    std::fs::set_permissions(&mail, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (user, group) = (id("-un"), id("-gn"));
    let is_root = user == "root";
    let (around, owner) = if is_root {
        (String::new(), "uid=www-data gid=www-data".to_owned())
    } else {
        (as_user(&user, &group), format!("uid={user} gid={group}"))
    };
    let config = format!(
        r"base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
mail_location = maildir:{folder}/mail/%u
first_valid_uid = 1
{around}service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {database}
}}
userdb {{
  driver = static
  args = {owner} home={folder}/mail/%u
}}
"
    );
    let config = write(dir.path(), "dovecot.conf", &config);
    let mut command = Command::new("/usr/sbin/dovecot");
    command.args(["-F", "-c", &config]);
    Party::start(&mut command, dir, port).await
}

/// A mail client's connection.
pub(super) struct Imap {
    lines: BufReader<TcpStream>,
}

impl Imap {
    pub(super) async fn open(port: u16) -> Self {
        let mut imap = Self { lines: BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap()) };
        let greeting = imap.line().await;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        imap
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).await.unwrap();
        line
    }

    /// Signs in with an access token and returns the server's answer.
    pub(super) async fn authenticate(&mut self, mechanism: &str, user: &str, token: &str) -> String {
        let first = if mechanism == "XOAUTH2" {
            format!("user={user}\x01auth=Bearer {token}\x01\x01")
        } else {
            format!("n,a={user},\x01host=localhost\x01port=143\x01auth=Bearer {token}\x01\x01")
        };
        let command = format!("a AUTHENTICATE {mechanism} {}\r\n", STANDARD.encode(first));
        self.lines.get_mut().write_all(command.as_bytes()).await.unwrap();
        self.line().await
    }
}
