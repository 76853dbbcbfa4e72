//! Passwords are read from a terminal, without echo and twice, or from standard input. They are never arguments,
//! because those appear in the process list and the shell's history.

use std::io::{IsTerminal as _, Read as _};

use super::failure::Failure;

/// The most input that is read: more than any password may have.
const MAX_INPUT_BYTES: u64 = 4 * 1024;

/// Reads the first line of standard input.
pub(super) fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("cannot read the password from standard input: {error}")))?;
    first_line(&text)
}

/// Reads a password that the user types twice.
pub(super) fn from_terminal() -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "standard input is not a terminal; pass the password with --password-stdin",
        ));
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map_err(|error| Failure::usage(format!("cannot read the password from the terminal: {error}")))
    };
    let password = ask("Password: ")?;
    if password != ask("Again: ")? {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(password)
}

fn first_line(text: &str) -> Result<String, Failure> {
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::usage("the first line of standard input contains no password")),
    }
}

#[cfg(test)]
mod tests {
    use super::first_line;

    #[test]
    fn the_first_line_is_the_password_with_its_spaces() {
        assert_eq!(first_line(" correct horse \n").as_deref(), Ok(" correct horse "));
        assert_eq!(first_line("a\r\nb").as_deref(), Ok("a"));
        assert!(first_line("").is_err() && first_line("\nb").is_err());
    }
}
