//! The argument normaliser: the spellings people use, rewritten into the ones that argh reads.
//!
//! argh takes `--name VALUE` and `-n VALUE` and nothing else. Users of HBMQTT (docopt) and mosquitto write `--name=VALUE`,
//! `-n1`, clusters such as `-rd`, unambiguous beginnings of long names, other names for the same option, `-h` anywhere, and
//! options of several words. All of it is resolved here against the flags that argh itself reports, so that this table and
//! the parsed struct cannot drift apart; the result contains only full long names.

use std::collections::HashSet;
use std::ffi::OsString;

use argh::{ArgsInfo, EarlyExit, FlagInfo, FlagInfoKind, FromArgs};

use super::exit::Failure;

/// Separates the words of an option that takes several, in the one value that argh sees.
pub(crate) const WORD_SEPARATOR: char = '\u{1f}';

/// The spellings of one program beyond the names that its argh struct declares.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Table {
    /// Other long names and the option each one means. Not shown in the help.
    pub(crate) aliases: &'static [&'static [(&'static str, &'static str)]],
    /// Letters and the option each one means; they come before the letters of the struct.
    pub(crate) letters: &'static [(char, &'static str)],
    /// Long names whose abbreviations win when an abbreviation fits several options.
    pub(crate) preferred: &'static [&'static str],
    /// What words without a dash are.
    pub(crate) words: Words,
    /// The option that takes `COMMAND NAME VALUE [VALUE]`; the fourth word follows the name `user-property`.
    pub(crate) property: Option<&'static str>,
    /// Long names that stand for that option with its first words. They cannot be abbreviated.
    pub(crate) shorthands: &'static [&'static [Shorthand]],
    /// Options that replace each other. One on the command line removes the others read from an options file.
    pub(crate) groups: &'static [&'static [&'static str]],
    /// The option that names a file with further options.
    pub(crate) options_file: Option<&'static str>,
    /// Variables of the environment and the option that each stands for: one that is set goes before an options file.
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

/// A long name for one property: `--content-type text/plain` is `--property publish content-type text/plain`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shorthand {
    /// Without the dashes.
    pub(crate) name: &'static str,
    /// The words that it stands for.
    pub(crate) words: &'static str,
    /// What follows the name.
    pub(crate) value: ShorthandValue,
}

/// What follows a [`Shorthand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every program has shorthands")]
pub(crate) enum ShorthandValue {
    /// A value.
    One,
    /// `NAME=VALUE`.
    Pair,
    /// Nothing; the value is this.
    Fixed(&'static str),
}

/// What words without a dash are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(dead_code, reason = "each program has one kind")]
pub(crate) enum Words {
    /// An error.
    #[default]
    Refused,
    /// Values of this option, which repeats.
    Of(&'static str),
    /// Arguments of the program.
    Positional,
}

/// One option as written, under its long name and without the dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// Empty for a word that is an argument of the program.
    name: String,
    value: Option<String>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<T> {
    /// Do what the program does, with these options.
    Run(T),
    /// Print this text on standard output and exit with success.
    Print(String),
}

/// Reads the command line of `program` into `T`.
///
/// `defaults` are lines of an options file that the command line and the file of `options_file` override.
///
/// # Errors
/// A usage error for anything that `T` does not declare; a failure if an options file cannot be read.
pub(crate) fn parse<T: FromArgs + ArgsInfo>(
    program: &str,
    table: &Table,
    args: impl IntoIterator<Item = OsString>,
    defaults: Option<&str>,
) -> Result<Request<T>, Failure> {
    let args = utf8(args)?;
    let info = T::get_args_info();
    let reader = Reader {
        flags: info.flags,
        table,
    };
    let Some(mut given) = reader.read(&args)? else {
        return Ok(Request::Print(help::<T>(program)));
    };
    if let Some(path) = table.options_file.and_then(|name| value_of(&given, name)) {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::failed(format!("options file {path}: {error}")))?;
        given = reader.merge(given, &text, &path)?;
    }
    if let Some(text) = defaults {
        given = reader.merge(given, text, "the defaults file")?;
    }
    let (words, options): (Vec<_>, Vec<_>) = given.into_iter().partition(|g| g.name.is_empty());
    let mut line = Vec::with_capacity(options.len() * 2 + words.len() + 1);
    for option in options {
        line.push(format!("--{}", option.name));
        line.extend(option.value);
    }
    if !words.is_empty() {
        line.push("--".to_owned());
        line.extend(words.into_iter().filter_map(|word| word.value));
    }
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    T::from_args(&[program], &line)
        .map(Request::Run)
        .map_err(|exit| usage_error(&exit))
}

/// The help text of `T` as argh lays it out.
fn help<T: FromArgs>(program: &str) -> String {
    match T::from_args(&[program], &["--help"]) {
        Err(exit) => exit.output,
        Ok(_) => String::new(),
    }
}

/// The words of `args`, all of which must be UTF-8 as MQTT's strings are.
fn utf8(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    args.into_iter()
        .map(|arg| {
            arg.into_string().map_err(|arg| {
                Failure::usage(format!(
                    "the argument {arg:?} is not UTF-8; send such a payload with --stdin or --payload-file"
                ))
            })
        })
        .collect()
}

/// argh's own complaint in the form of ours.
fn usage_error(exit: &EarlyExit) -> Failure {
    let first = exit.output.lines().next().unwrap_or("").trim();
    let text = first
        .strip_prefix("Error parsing option '")
        .and_then(|rest| rest.split_once("' with value '"))
        .and_then(|(option, rest)| {
            let (value, why) = rest.split_once("': ")?;
            Some(if why == "duplicate values provided" {
                format!("option '{option}' is given twice")
            } else {
                format!("option '{option}': '{value}': {why}")
            })
        });
    Failure::usage(text.unwrap_or_else(|| first.to_owned()))
}

/// The value of the last option called `name`.
fn value_of(given: &[Given], name: &str) -> Option<String> {
    let option = given.iter().rev().find(|option| option.name == name)?;
    option.value.clone()
}

/// One command line against one struct's flags.
struct Reader<'a> {
    flags: &'a [FlagInfo<'a>],
    table: &'a Table,
}

impl Reader<'_> {
    /// The options of `args` in order; `None` if the help was asked for.
    fn read(&self, args: &[String]) -> Result<Option<Vec<Given>>, Failure> {
        let mut given = Vec::new();
        let mut rest = args.iter();
        let mut options_ended = false;
        while let Some(arg) = rest.next() {
            if options_ended || arg == "-" || !arg.starts_with('-') {
                given.push(self.word(arg)?);
            } else if arg == "--" {
                options_ended = true;
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, attached) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if let Some(shorthand) = self.shorthand(name) {
                    given.push(self.expand(shorthand, attached, &mut rest)?);
                    continue;
                }
                let name = self.resolve(name)?;
                if name == "help" {
                    return Ok(None);
                }
                let value = self.value(name, &format!("--{name}"), attached, &mut rest)?;
                given.push(Given {
                    name: name.to_owned(),
                    value,
                });
            } else if !self.cluster(&arg[1..], &mut rest, &mut given)? {
                return Ok(None);
            }
        }
        Ok(Some(given))
    }

    /// The letters after one dash: switches, then at most one option whose value is the rest or the next argument.
    ///
    /// False: the help was asked for.
    fn cluster<'b>(
        &self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'b String>,
        given: &mut Vec<Given>,
    ) -> Result<bool, Failure> {
        let mut chars = letters.chars();
        while let Some(letter) = chars.next() {
            let name = self.letter(letter)?;
            if name == "help" {
                return Ok(false);
            }
            let tail = chars.as_str();
            let spelling = format!("-{letter}");
            if self.takes_value(name) && !tail.is_empty() {
                let attached = tail.strip_prefix('=').unwrap_or(tail).to_owned();
                let value = self.value(name, &spelling, Some(attached), rest)?;
                given.push(Given {
                    name: name.to_owned(),
                    value,
                });
                return Ok(true);
            }
            if tail.starts_with('=') {
                return Err(Failure::usage(format!(
                    "option '{spelling}' takes no value"
                )));
            }
            let value = self.value(name, &spelling, None, rest)?;
            given.push(Given {
                name: name.to_owned(),
                value,
            });
        }
        Ok(true)
    }

    /// A word that is no option.
    fn word(&self, word: &str) -> Result<Given, Failure> {
        let name = match self.table.words {
            Words::Refused => {
                return Err(Failure::usage(format!("unexpected argument '{word}'")));
            }
            Words::Of(name) => name,
            Words::Positional => "",
        };
        Ok(Given {
            name: name.to_owned(),
            value: Some(word.to_owned()),
        })
    }

    /// The value of the option `name`: what is attached to it, or the next argument, whatever that looks like.
    fn value<'b>(
        &self,
        name: &str,
        spelling: &str,
        attached: Option<String>,
        rest: &mut impl Iterator<Item = &'b String>,
    ) -> Result<Option<String>, Failure> {
        if !self.takes_value(name) {
            return match attached {
                Some(_) => Err(Failure::usage(format!(
                    "option '{spelling}' takes no value"
                ))),
                None => Ok(None),
            };
        }
        let missing = || Failure::usage(format!("option '{spelling}' needs a value"));
        let first = match attached {
            Some(value) => value,
            None => rest.next().ok_or_else(missing)?.clone(),
        };
        if self.table.property != Some(name) {
            return Ok(Some(first));
        }
        let incomplete = || {
            Failure::usage(format!(
                "option '{spelling}' needs COMMAND PROPERTY VALUE, or COMMAND user-property NAME VALUE"
            ))
        };
        let mut words = vec![first];
        let property = rest.next().ok_or_else(incomplete)?;
        words.push(property.clone());
        for _ in 0..property_values(property) {
            words.push(rest.next().ok_or_else(incomplete)?.clone());
        }
        Ok(Some(join(&words)))
    }

    fn shorthand(&self, name: &str) -> Option<Shorthand> {
        let all = self.table.shorthands.iter().copied().flatten();
        all.copied().find(|shorthand| shorthand.name == name)
    }

    /// The option that a shorthand stands for.
    fn expand<'b>(
        &self,
        shorthand: Shorthand,
        attached: Option<String>,
        rest: &mut impl Iterator<Item = &'b String>,
    ) -> Result<Given, Failure> {
        let name = shorthand.name;
        let mut words: Vec<String> = shorthand.words.split(' ').map(str::to_owned).collect();
        if let ShorthandValue::Fixed(value) = shorthand.value {
            if attached.is_some() {
                return Err(Failure::usage(format!("option '--{name}' takes no value")));
            }
            words.push(value.to_owned());
        } else {
            let value = attached
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| Failure::usage(format!("option '--{name}' needs a value")))?;
            if shorthand.value == ShorthandValue::Pair {
                let (key, value) = value
                    .split_once('=')
                    .ok_or_else(|| Failure::usage(format!("option '--{name}': use NAME=VALUE")))?;
                words.extend([key.to_owned(), value.to_owned()]);
            } else {
                words.push(value);
            }
        }
        Ok(Given {
            name: self.table.property.unwrap_or_default().to_owned(),
            value: Some(join(&words)),
        })
    }

    /// The options of an options file before those of `given`, which win: a name, or another name of its group, that stands
    /// in `given` or for which the environment has a value is left out of the file's.
    fn merge(&self, given: Vec<Given>, text: &str, origin: &str) -> Result<Vec<Given>, Failure> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let environment = self.table.environment.iter();
        let environment = environment.filter(|(variable, _)| set(variable));
        let here: HashSet<&str> = given
            .iter()
            .map(|option| option.name.as_str())
            .chain(environment.map(|(_, option)| *option))
            .collect();
        let overridden = |name: &str| {
            here.contains(name)
                || self.table.groups.iter().any(|group| {
                    group.contains(&name) && group.iter().any(|other| here.contains(other))
                })
        };
        let mut merged = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let options = self
                .file_line(line)
                .map_err(|failure| {
                    Failure::usage(format!("{origin}, line {}: {failure}", index + 1))
                })?
                .unwrap_or_default();
            merged.extend(options.into_iter().filter(|o| !overridden(&o.name)));
        }
        merged.extend(given);
        Ok(merged)
    }

    /// One line of an options file: an option, and after it everything else as its value.
    fn file_line(&self, line: &str) -> Result<Option<Vec<Given>>, Failure> {
        let (option, value) = match line.split_once(char::is_whitespace) {
            Some((option, value)) => (option, value.trim()),
            None => (line, ""),
        };
        let mut words = vec![option.to_owned()];
        if let Some(long) = option.strip_prefix("--")
            && let Some(shorthand) = self.shorthand(long)
        {
            let value = (!value.is_empty()).then(|| value.to_owned());
            let given = self.expand(shorthand, value, &mut std::iter::empty())?;
            return Ok(Some(vec![given]));
        }
        let several = option.strip_prefix("--").map_or_else(
            || option.chars().nth(1).and_then(|c| self.letter(c).ok()),
            |long| self.resolve(long).ok(),
        );
        if several.is_some() && several == self.table.property {
            words.extend(value.split_whitespace().map(str::to_owned));
        } else if !value.is_empty() {
            words.push(value.to_owned());
        }
        self.read(&words)
    }

    fn takes_value(&self, name: &str) -> bool {
        self.flags
            .iter()
            .any(|flag| long_name(flag) == name && matches!(flag.kind, FlagInfoKind::Option { .. }))
    }

    /// The option that a letter stands for.
    fn letter(&self, letter: char) -> Result<&str, Failure> {
        let ours = self.table.letters.iter().find(|(l, _)| *l == letter);
        if let Some((_, name)) = ours {
            return Ok(name);
        }
        if letter == 'h' {
            return Ok("help");
        }
        self.flags
            .iter()
            .find(|flag| flag.short == Some(letter))
            .map(long_name)
            .ok_or_else(|| Failure::usage(format!("unknown option '-{letter}'")))
    }

    /// The option that `name` means: itself, another spelling, or a beginning that fits only one option.
    fn resolve(&self, name: &str) -> Result<&str, Failure> {
        let exact = self.names().find(|(spelling, _)| *spelling == name);
        if let Some((_, option)) = exact {
            return Ok(option);
        }
        let starts = |(spelling, _): &(&str, &str)| !name.is_empty() && spelling.starts_with(name);
        let preferred = self
            .names()
            .filter(|(spelling, _)| self.table.preferred.contains(spelling))
            .filter(starts);
        if let [only] = distinct(preferred)[..] {
            return Ok(only);
        }
        match distinct(self.names().filter(starts))[..] {
            [only] => Ok(only),
            [] => Err(self.unknown(name)),
            ref several => Err(Failure::usage(format!(
                "option '--{name}' could be {}",
                enumerate(several)
            ))),
        }
    }

    fn unknown(&self, name: &str) -> Failure {
        let shorthands = self.table.shorthands.iter().copied().flatten();
        let nearest = self
            .names()
            .chain(shorthands.map(|shorthand| (shorthand.name, shorthand.name)))
            .map(|(spelling, option)| (edit_distance(name, spelling), option))
            .min();
        match nearest {
            Some((distance, option)) if distance <= 2 => Failure::usage(format!(
                "unknown option '--{name}', did you mean '--{option}'?"
            )),
            _ => Failure::usage(format!("unknown option '--{name}'")),
        }
    }

    /// Every long spelling and the option it means.
    fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.flags.iter().map(|flag| {
            let name = long_name(flag);
            (name, name)
        });
        let known = |name: &str| self.flags.iter().any(|flag| long_name(flag) == name);
        let aliases = self.table.aliases.iter().copied().flatten().copied();
        own.chain(aliases.filter(move |(_, option)| known(option)))
    }
}

/// How many words follow the name of a property given with the option that takes several words.
fn property_values(property: &str) -> usize {
    if property.eq_ignore_ascii_case("user-property") {
        2
    } else {
        1
    }
}

/// Several words as the one value that argh sees.
fn join(words: &[String]) -> String {
    words.join(&WORD_SEPARATOR.to_string())
}

/// The long name without its dashes.
pub(crate) fn long_name<'a>(flag: &FlagInfo<'a>) -> &'a str {
    flag.long.trim_start_matches("--")
}

fn distinct<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<&'a str> {
    let mut options = Vec::new();
    for (_, option) in names {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

fn enumerate(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The number of single-letter changes between two names.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
