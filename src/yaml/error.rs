//! What can be wrong with a settings file.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

/// Settings that cannot be used. Everything that was found is in it, so that one look repairs the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that the settings are in, or name, cannot be read. The operator's to mend: path or permissions.
    Read {
        /// The file.
        path: Box<Path>,
        /// Why not.
        source: io::Error,
    },
    /// The text is not what it should be. The problems stand in the order of the file; there is at least one.
    Invalid(Vec<Problem>),
}

impl ConfigError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.into(),
            source,
        }
    }

    /// Says in which file the problems are, where they do not say so yet.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        if let Self::Invalid(problems) = &mut self {
            for problem in problems {
                problem.file.get_or_insert_with(|| path.to_owned());
            }
        }
        self
    }

    /// The problems with the text, in the order of the file; empty if the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Invalid(problems) => {
                for (index, problem) in problems.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    problem.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid(_) => None,
        }
    }
}

/// One thing that is wrong, or that deserves a warning, and its place.
///
/// Shown as `FILE:LINE:COLUMN: KEY: MESSAGE`, without the parts that are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, unless the text came from elsewhere.
    pub file: Option<PathBuf>,
    /// Line and column, both from 1.
    pub place: Option<(usize, usize)>,
    /// The path of the key from the top, as `listeners.default.bind`; empty for the document as a whole.
    pub key: String,
    /// What is wrong and, where that can be told, what would be right.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: None,
            place: None,
            key: key.into(),
            message: message.into(),
        }
    }

    pub(crate) fn at(mut self, place: Option<(usize, usize)>) -> Self {
        self.place = place;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.place) {
            (Some(file), Some((line, column))) => {
                write!(f, "{}:{line}:{column}: ", file.display())?
            }
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some((line, column))) => write!(f, "line {line}, column {column}: ")?,
            (None, None) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
