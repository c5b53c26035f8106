//! A password file: `user:hash` lines, with comments and blank lines kept as they are.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::shared::exit::Failure;

/// The lines of a password file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PasswordFile {
    lines: Vec<String>,
}

impl PasswordFile {
    /// A file without users.
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub(crate) fn read(path: &str) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::NotFound {
                "; -c makes a new file"
            } else {
                ""
            };
            Failure::failed(format!("cannot read {path}: {error}{hint}"))
        })?;
        Ok(Self {
            lines: text.lines().map(str::to_owned).collect(),
        })
    }

    /// Sets a user's hash: in the user's own line, or in a new one at the end.
    pub(crate) fn set(&mut self, user: &str, hash: &str) {
        let line = format!("{user}:{hash}");
        let mut own = self
            .lines
            .iter_mut()
            .filter(|line| user_of(line) == Some(user));
        match own.next() {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
    }

    /// What stands behind a user's name, in the last line that has it, as the broker reads it.
    pub(crate) fn find(&self, user: &str) -> Option<&str> {
        let mut lines = self.lines.iter().rev();
        let line = lines.find(|line| user_of(line) == Some(user))?;
        line.get(user.len() + 1..).map(str::trim)
    }

    /// Removes a user; false if there is none of that name.
    pub(crate) fn remove(&mut self, user: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| user_of(line) != Some(user));
        self.lines.len() < before
    }

    /// Puts hashes in the place of passwords in plain text.
    ///
    /// # Errors
    /// Those of `hash`; nothing is changed then in the file itself.
    pub(crate) fn replace_plain(
        &mut self,
        mut hash: impl FnMut(&str) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        for line in &mut self.lines {
            let Some(user) = user_of(line) else { continue };
            let password = &line[user.len() + 1..];
            if !password.starts_with('$') && !password.starts_with("SCRAM-SHA-256$") {
                *line = format!("{user}:{}", hash(password)?);
            }
        }
        Ok(())
    }

    /// Replaces the file as a whole, so that a broker which reads it meanwhile sees the old one or the new one. The
    /// permissions stay; a new file can be read by its owner only.
    ///
    /// # Errors
    /// Those of the file system; the old file is still there then.
    pub(crate) fn write(&self, path: &str) -> Result<(), Failure> {
        // A link stays a link: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        let failed =
            |error: io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
        let written = self.write_new(&temporary, &path);
        if written.is_err() {
            // The first error says what is wrong.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(failed)
    }

    fn write_new(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(fs::Permissions::from_mode(old.permissions().mode()))?;
        }
        for line in &self.lines {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        fs::rename(temporary, path)
    }
}

/// The user of a line; `None` for comments, blank lines and lines without a colon.
fn user_of(line: &str) -> Option<&str> {
    if line.starts_with('#') {
        return None;
    }
    line.split_once(':').map(|(user, _)| user)
}

/// A name that the file can hold and the broker will read again.
///
/// # Errors
/// A usage error that says what is wrong.
pub(crate) fn check_user(user: &str) -> Result<(), Failure> {
    let wrong = if user.is_empty() {
        "is empty"
    } else if user.len() > 1_024 {
        "is longer than 1024 bytes"
    } else if user.contains(':') {
        "contains a colon"
    } else if user.starts_with('#') {
        "begins with '#', which makes its line a comment"
    } else if user.chars().any(char::is_control) {
        "contains a control character"
    } else if user.trim() != user {
        "begins or ends with a space"
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!("the user name {wrong}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> PasswordFile {
        PasswordFile {
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn a_user_is_replaced_in_place_and_everything_else_stays() {
        let mut users = file("# users\n\nann:$6$a$b\nbob:$6$c$d\n");
        users.set("ann", "$6$new$hash");
        users.set("eve", "$6$e$f");
        assert_eq!(
            users,
            file("# users\n\nann:$6$new$hash\nbob:$6$c$d\neve:$6$e$f")
        );
    }

    #[test]
    fn a_user_is_removed_with_all_lines() {
        let mut users = file("#ann:x\nann:1\nbob:2\nann:3");
        assert!(users.remove("ann"));
        assert!(!users.remove("ann"));
        assert_eq!(users, file("#ann:x\nbob:2"));
    }

    #[test]
    fn the_last_line_of_a_user_counts() {
        let users = file("#ann:x\nann:1\nbob:2\nann: 3 ");
        assert_eq!(users.find("ann"), Some("3"));
        assert_eq!(users.find("eve"), None);
    }

    #[test]
    fn plain_passwords_are_hashed_and_hashes_stay() {
        let mut users = file("# x:y\nann:secret:with colon\nbob:$6$a$b");
        users
            .replace_plain(|password| Ok(format!("<{password}>")))
            .unwrap();
        assert_eq!(users, file("# x:y\nann:<secret:with colon>\nbob:$6$a$b"));
    }

    #[test]
    fn a_new_file_belongs_to_its_owner_and_an_old_one_keeps_its_mode() {
        let directory = std::env::temp_dir().join(format!("hbmqtt-passwd-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("passwords");
        let text = path.to_str().unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        file("ann:x").write(text).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        file("ann:y").write(text).unwrap();
        assert_eq!(mode(), 0o640);
        assert_eq!(fs::read_to_string(&path).unwrap(), "ann:y\n");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn names_that_the_file_cannot_hold_are_refused() {
        for name in ["", "a:b", "#a", "a\nb", " a"] {
            assert!(check_user(name).is_err(), "{name}");
        }
        assert!(check_user("Ännchen O'Hara").is_ok());
    }
}
