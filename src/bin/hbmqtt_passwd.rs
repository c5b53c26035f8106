//! `hbmqtt_passwd`: keeps password files for the broker.

#[path = "shared"]
mod shared {
    pub(crate) mod args;
    pub(crate) mod exit;
    pub(crate) mod manual;
    pub(crate) mod program;
    pub(crate) mod prompt;
}
#[path = "hbmqtt_passwd/file.rs"]
mod file;
#[path = "hbmqtt_passwd/hash.rs"]
mod hash;

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use argh::{ArgsInfo, FromArgs};
use hbmqtt::broker::auth::{AuthChains, ConnectInfo, Extensions};
use hbmqtt::broker::config::Config;
use hbmqtt::proto::{ProtocolVersion, ReasonCode};
use hbmqtt::scram::Credentials;

use file::PasswordFile;
use hash::Scheme;
use shared::args::{Table, Words};
use shared::exit::{self, Failure};
use shared::program::Program;
use shared::{manual, prompt};

/// Sets, deletes and verifies the passwords in a password file of the broker.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "[-H sha512-crypt | sha512-pbkdf2] [-I ITERATIONS] [-c] [-b] FILE USER [PASSWORD]
       hbmqtt_passwd --scram [-I ITERATIONS] [-c] [-b] FILE USER [PASSWORD]
       hbmqtt_passwd -D FILE USER
       hbmqtt_passwd -U FILE
       hbmqtt_passwd --verify [-b] FILE USER [PASSWORD]"
)]
struct Args {
    /// the password file, the user name, and with -b the password
    #[argh(positional, arg_name = "file user password")]
    words: Vec<String>,
    /// take the password from the command line, where other users of the machine can see it
    #[argh(switch, short = 'b')]
    batch: bool,
    /// make a new file; one that exists is replaced
    #[argh(switch, short = 'c')]
    create: bool,
    /// delete the user
    #[argh(switch, short = 'D')]
    delete: bool,
    /// hash the passwords of a file that holds them in plain text
    #[argh(switch, short = 'U')]
    upgrade: bool,
    /// sha512-crypt, which mkpasswd and HBMQTT know, or sha512-pbkdf2, which mosquitto knows (sha512-crypt)
    #[argh(option, short = 'H', arg_name = "hash", from_str_fn(hash::scheme))]
    hash: Option<Scheme>,
    /// keep keys for SCRAM-SHA-256 instead of a hash: for the broker's scram-file
    #[argh(switch)]
    scram: bool,
    /// rounds of the hash, 1000 to 1000000 (5000; sha512-pbkdf2: 100000; --scram: 10000, at least 4096)
    #[argh(option, short = 'I', arg_name = "count", from_str_fn(hash::iterations))]
    iterations: Option<u32>,
    /// read the password from the first line of standard input
    #[argh(switch)]
    stdin: bool,
    /// only check whether the broker would take the password: status 0 if it would, 1 if not
    #[argh(switch)]
    verify: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
    /// print a completion script for bash, zsh or fish
    #[argh(option, arg_name = "shell")]
    completions: Option<String>,
    /// print the manual page, roff
    #[argh(switch)]
    man: bool,
}

const NAME: &str = "hbmqtt_passwd";

const TABLE: Table = Table {
    aliases: &[],
    letters: &[],
    preferred: &[],
    words: Words::Positional,
    property: None,
    shorthands: &[],
    groups: &[],
    options_file: None,
    environment: &[],
};

const PROGRAM: Program = Program {
    name: NAME,
    table: &TABLE,
    page: &PAGE,
};

const PAGE: manual::Page = manual::Page {
    summary: "keep password files for the hbmqtt broker",
    synopsis: &[
        "[-c] [-b] FILE USER [PASSWORD]",
        "-D FILE USER",
        "-U FILE",
        "--verify FILE USER",
        "--scram [-c] FILE USER [PASSWORD]",
    ],
    statuses: &[
        ("0", "Done; with --verify: the password is right."),
        (
            "1",
            "The file cannot be read or written; with --verify: the password is wrong.",
        ),
        ("2", "The command line cannot be understood."),
    ],
    examples: &[
        (
            "hbmqtt_passwd -c passwords alice",
            "Makes a file with one user and asks for the password.",
        ),
        (
            "pass show mqtt | hbmqtt_passwd --stdin passwords alice",
            "Takes the password from another program.",
        ),
    ],
    files: &[],
};

const WRONG: &str = "the password is wrong, or there is no such user";

/// The broker's own limit, unless its configuration says otherwise.
const LONGEST_PASSWORD: usize = 256;

fn main() -> ExitCode {
    PROGRAM.main(std::env::args_os().skip(1), None, run)
}

#[expect(clippy::needless_pass_by_value, reason = "the form of every program")]
fn run(args: Args) -> Result<u8, Failure> {
    let args = &args;
    let answer = PROGRAM.answer::<Args>(args.version, args.completions.as_deref(), args.man);
    if let Some(answer) = answer {
        return answer;
    }
    if args.scram && args.hash.is_some() {
        return Err(Failure::usage("use one of -H and --scram"));
    }
    let actions = [args.create, args.delete, args.upgrade, args.verify];
    if actions.iter().filter(|given| **given).count() > 1 {
        return Err(Failure::usage("use one of -c, -D, -U and --verify"));
    }
    let (path, user, password) = match &args.words[..] {
        [] => return Err(Failure::usage("the password file is missing")),
        [path] if args.upgrade => return upgrade(args, path),
        _ if args.upgrade => return Err(Failure::usage("-U takes the file only")),
        [_] => return Err(Failure::usage("the user name is missing")),
        [path, user] => (path, user, None),
        [_, _, _] if args.delete => return Err(Failure::usage("-D takes no password")),
        [path, user, password] => (path, user, Some(password)),
        [_, _, _, more, ..] => {
            return Err(Failure::usage(format!("unexpected argument '{more}'")));
        }
    };
    file::check_user(user)?;
    if args.delete {
        return delete(path, user);
    }
    let password = choose_password(args, password)?;
    if args.verify {
        return if args.scram {
            verify_scram(path, user, &password)
        } else {
            verify(path, user, &password)
        };
    }
    let mut file = if args.create {
        PasswordFile::new()
    } else {
        PasswordFile::read(path)?
    };
    file.set(user, &hashed(args, &password)?);
    file.write(path)?;
    Ok(exit::OK)
}

fn delete(path: &str, user: &str) -> Result<u8, Failure> {
    let mut file = PasswordFile::read(path)?;
    if !file.remove(user) {
        return Err(Failure::failed(format!(
            "{path}: there is no user '{user}'"
        )));
    }
    file.write(path)?;
    Ok(exit::OK)
}

/// Hashes what is not hashed yet.
fn upgrade(args: &Args, path: &str) -> Result<u8, Failure> {
    let mut file = PasswordFile::read(path)?;
    file.replace_plain(|password| hashed(args, password.as_bytes()))?;
    file.write(path)?;
    Ok(exit::OK)
}

fn hashed(args: &Args, password: &[u8]) -> Result<String, Failure> {
    if args.scram {
        hash::scram(password, args.iterations)
    } else {
        hash::make(args.hash.unwrap_or_default(), password, args.iterations)
    }
}

/// From the command line, standard input or the terminal, where a new one is asked for twice.
fn choose_password(args: &Args, given: Option<&String>) -> Result<Vec<u8>, Failure> {
    let password = match (given, args.batch, args.stdin) {
        (Some(_), _, true) | (None, true, true) => {
            return Err(Failure::usage("use one of -b and --stdin"));
        }
        (Some(password), true, false) => password.clone().into_bytes(),
        (None, true, false) => {
            return Err(Failure::usage("-b needs the password after the user name"));
        }
        (Some(_), false, false) => {
            return Err(Failure::usage("a password on the command line needs -b"));
        }
        (None, false, true) => first_line(&mut io::stdin().lock())?,
        (None, false, false) => ask(args.verify)?,
    };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    if password.len() > LONGEST_PASSWORD {
        return Err(Failure::usage(format!(
            "the password is longer than {LONGEST_PASSWORD} bytes, which the broker refuses"
        )));
    }
    Ok(password)
}

fn ask(once: bool) -> Result<Vec<u8>, Failure> {
    let password = prompt::password("Password: ")?;
    if !once && prompt::password("Reenter password: ")? != password {
        return Err(Failure::failed("the passwords differ"));
    }
    Ok(password.into_bytes())
}

fn first_line(input: &mut impl BufRead) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    // One more than allowed is enough to see that it is too long.
    input
        .take(LONGEST_PASSWORD as u64 + 3)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// Asks the broker's own authenticator, so that the answer is the broker's.
fn verify(path: &str, user: &str, password: &[u8]) -> Result<u8, Failure> {
    let mut config = Config::default();
    config.auth.allow_anonymous = false;
    config.auth.password_file = Some(Path::new(path).to_owned());
    let chains = AuthChains::load(&config, Extensions::default())
        .map_err(|error| Failure::failed(error.to_string()))?;
    let mut client = ConnectInfo::new(NAME, "default", ProtocolVersion::V311);
    client.user_name = Some(user);
    client.password = Some(password);
    #[expect(clippy::disallowed_methods, reason = "the time of this one question")]
    let judgement = chains
        .listener("default")
        .authenticate(&client, Instant::now());
    match judgement.result {
        Ok(()) => Ok(exit::OK),
        Err(ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized) => {
            Err(Failure::failed(WRONG))
        }
        Err(reason) => Err(Failure::failed(reason.to_string())),
    }
}

fn verify_scram(path: &str, user: &str, password: &[u8]) -> Result<u8, Failure> {
    let file = PasswordFile::read(path)?;
    let credentials = file.find(user).ok_or_else(|| Failure::failed(WRONG))?;
    let credentials: Credentials = credentials
        .parse()
        .map_err(|error| Failure::failed(format!("{path}: user '{user}': {error}")))?;
    if credentials.verify(password) {
        Ok(exit::OK)
    } else {
        Err(Failure::failed(WRONG))
    }
}
