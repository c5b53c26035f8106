//! Asking for a password on the terminal.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use super::exit::Failure;

/// Asks for a password on the terminal, without showing it; from standard input if that is no terminal.
///
/// # Errors
/// Neither can be read.
///
/// # Blocking
/// Until a line was typed.
pub(crate) fn password(prompt: &str) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("cannot ask for the password: {error}"));
    let tty = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty");
    let Ok(mut tty) = tty else {
        if io::stdin().is_terminal() {
            return Err(Failure::failed("cannot ask for the password: no terminal"));
        }
        return line(&mut io::stdin().lock()).map_err(failed);
    };
    let _ = write!(tty, "{prompt}");
    let shown = rustix::termios::tcgetattr(&tty).ok();
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes &= !rustix::termios::LocalModes::ECHO;
        let _ = rustix::termios::tcsetattr(&tty, rustix::termios::OptionalActions::Flush, &hidden);
    }
    let password = line(&mut BufReader::new(&tty));
    if let Some(shown) = &shown {
        let _ = rustix::termios::tcsetattr(&tty, rustix::termios::OptionalActions::Now, shown);
        let _ = writeln!(tty);
    }
    password.map_err(failed)
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}
