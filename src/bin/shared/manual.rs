//! Completion scripts and manual pages, written from what argh knows about a program's options.

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind};

use super::args::long_name;
use super::exit::Failure;

/// What the options do not say about a program.
#[derive(Debug)]
pub(crate) struct Page {
    /// One line: what the program does.
    pub(crate) summary: &'static str,
    /// Usage lines without the program's name.
    pub(crate) synopsis: &'static [&'static str],
    /// What each exit status means.
    pub(crate) statuses: &'static [(&'static str, &'static str)],
    /// Complete command lines with what they do.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Environment variables and files that it reads.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

/// The completion script of `program` for a shell.
///
/// # Errors
/// A usage error if the shell is none of bash, zsh and fish.
pub(crate) fn completions(
    program: &str,
    shell: &str,
    info: &CommandInfoWithArgs,
) -> Result<String, Failure> {
    let flags: Vec<&FlagInfo<'_>> = info.flags.iter().filter(|flag| !flag.hidden).collect();
    match shell {
        "bash" => Ok(bash(program, &flags)),
        "zsh" => Ok(zsh(program, &flags)),
        "fish" => Ok(fish(program, &flags)),
        _ => Err(Failure::usage(format!(
            "no completions for '{}'; there are bash, zsh and fish",
            shell.escape_debug()
        ))),
    }
}

fn bash(program: &str, flags: &[&FlagInfo<'_>]) -> String {
    let mut files = Vec::new();
    let mut others = Vec::new();
    let mut all = Vec::new();
    for flag in flags {
        let mut spellings = vec![format!("--{}", long_name(flag))];
        spellings.extend(flag.short.map(|short| format!("-{short}")));
        match value_kind(flag) {
            Some(ValueKind::Path) => files.append(&mut spellings.clone()),
            Some(_) => others.append(&mut spellings.clone()),
            None => {}
        }
        all.append(&mut spellings);
    }
    format!(
        "_{program}() {{\n\
        \x20   local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}\n\
        \x20   case $before in\n\
        \x20       {files}) mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;;\n\
        \x20       {others}) return ;;\n\
        \x20   esac\n\
        \x20   mapfile -t COMPREPLY < <(compgen -W '{all}' -- \"$word\")\n\
        }}\n\
        complete -o filenames -F _{program} {program}\n",
        files = or_nothing(&files),
        others = or_nothing(&others),
        all = all.join(" "),
    )
}

/// A pattern of a shell's `case`; one that matches nothing if there are no words.
fn or_nothing(words: &[String]) -> String {
    if words.is_empty() {
        "''".to_owned()
    } else {
        words.join("|")
    }
}

fn zsh(program: &str, flags: &[&FlagInfo<'_>]) -> String {
    let mut script = format!("#compdef {program}\n_arguments -s \\\n");
    for flag in flags {
        let text = flag
            .description
            .replace('\'', "'\\''")
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:");
        let value = match value_kind(flag) {
            None => String::new(),
            Some(ValueKind::Path) => format!(":{}:_files", argument(flag)),
            Some(ValueKind::Text) => format!(":{}:", argument(flag)),
        };
        let long = long_name(flag);
        for name in spellings(flag, long) {
            // Writing into a String cannot fail.
            let _ = writeln!(script, "  '*{name}[{text}]{value}' \\");
        }
    }
    script.push_str("  '*:: :'\n");
    script
}

fn fish(program: &str, flags: &[&FlagInfo<'_>]) -> String {
    let mut script = String::new();
    for flag in flags {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!(" -s {short}"));
        let value = match value_kind(flag) {
            None => " -f",
            Some(ValueKind::Path) => " -r -F",
            Some(ValueKind::Text) => " -x",
        };
        let text = flag.description.replace('\\', "\\\\").replace('\'', "\\'");
        let long = long_name(flag);
        let _ = writeln!(
            script,
            "complete -c {program} -l {long}{short}{value} -d '{text}'"
        );
    }
    script
}

fn spellings(flag: &FlagInfo<'_>, long: &str) -> Vec<String> {
    let mut names = vec![format!("--{long}")];
    names.extend(flag.short.map(|short| format!("-{short}")));
    names
}

enum ValueKind {
    Path,
    Text,
}

fn value_kind(flag: &FlagInfo<'_>) -> Option<ValueKind> {
    match flag.kind {
        FlagInfoKind::Switch => None,
        FlagInfoKind::Option {
            arg_name: "file" | "path" | "directory",
        } => Some(ValueKind::Path),
        FlagInfoKind::Option { .. } => Some(ValueKind::Text),
    }
}

fn argument<'a>(flag: &FlagInfo<'a>) -> &'a str {
    match flag.kind {
        FlagInfoKind::Switch => "",
        FlagInfoKind::Option { arg_name } => arg_name,
    }
}

/// The manual page of `program` in section 1, as roff.
pub(crate) fn page(program: &str, info: &CommandInfoWithArgs, page: &Page) -> String {
    let title = program.to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".TH {title} 1 \"\" \"hbmqtt {version}\" \"hbmqtt\"\n\
        .SH NAME\n{program} \\- {}\n.SH SYNOPSIS\n",
        roff(page.summary)
    );
    for line in page.synopsis {
        let _ = writeln!(text, ".B {program}\n{}\n.br", roff(line));
    }
    let _ = writeln!(text, ".SH DESCRIPTION\n{}", roff(info.description));
    text.push_str(".SH OPTIONS\n");
    for flag in info.flags.iter().filter(|flag| !flag.hidden) {
        let short = match (flag.short, long_name(flag)) {
            (Some(short), _) => format!("\\-{short}, "),
            (None, "help") => "\\-h, ".to_owned(),
            (None, _) => String::new(),
        };
        let _ = write!(text, ".TP\n.B {short}\\-\\-{}", roff(long_name(flag)));
        let argument = argument(flag);
        if !argument.is_empty() {
            let _ = write!(text, " \\fI{}\\fR", roff(argument));
        }
        let _ = writeln!(text, "\n{}", roff(flag.description));
    }
    section(&mut text, "EXIT STATUS", page.statuses);
    section(&mut text, "ENVIRONMENT AND FILES", page.files);
    section(&mut text, "EXAMPLES", page.examples);
    text
}

fn section(text: &mut String, title: &str, entries: &[(&str, &str)]) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(text, ".SH {title}");
    for (term, meaning) in entries {
        let _ = writeln!(text, ".TP\n.B {}\n{}", roff(term), roff(meaning));
    }
}

/// Text as roff shows it unchanged.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A line that begins with one of these would be a command.
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argh::{ArgsInfo, FromArgs};

    /// does something
    #[derive(FromArgs, ArgsInfo)]
    #[argh(help_triggers("-h", "--help"))]
    #[expect(dead_code, reason = "only its description is used")]
    struct Sample {
        /// a file, it's [here]
        #[argh(option, short = 'f', arg_name = "file")]
        file: Option<String>,
        /// say less
        #[argh(switch)]
        quiet: bool,
        /// secret
        #[argh(option, hidden_help)]
        psk: Option<String>,
    }

    #[test]
    fn scripts_know_which_options_take_files() {
        let info = Sample::get_args_info();
        let bash = completions("sample", "bash", &info).unwrap();
        assert!(bash.contains("--file|-f) mapfile"), "{bash}");
        assert!(bash.contains("-W '--help --file -f --quiet'"), "{bash}");
        let fish = completions("sample", "fish", &info).unwrap();
        assert!(
            fish.contains("complete -c sample -l file -s f -r -F -d 'a file, it\\'s [here]'"),
            "{fish}"
        );
        let zsh = completions("sample", "zsh", &info).unwrap();
        assert!(
            zsh.contains("'*-f[a file, it'\\''s \\[here\\]]:file:_files'"),
            "{zsh}"
        );
        for script in [bash, fish, zsh] {
            assert!(!script.contains("psk"));
        }
        assert!(completions("sample", "tcsh", &info).is_err());
    }

    #[test]
    fn a_page_has_all_sections() {
        let about = Page {
            summary: "does something",
            synopsis: &["[--file FILE]"],
            statuses: &[("0", "done")],
            examples: &[("sample -f x", "does x")],
            files: &[("HOME", "where to look")],
        };
        let text = page("sample", &Sample::get_args_info(), &about);
        for part in [
            ".TH SAMPLE 1",
            ".SH NAME\nsample \\- does something",
            ".B \\-f, \\-\\-file \\fIfile\\fR\na file",
            ".SH EXIT STATUS\n.TP\n.B 0\ndone",
            ".B sample \\-f x",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("psk"));
    }
}
