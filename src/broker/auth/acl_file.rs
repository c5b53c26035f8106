//! mosquitto's `acl_file`: who may publish and subscribe where.
//!
//! ```text
//! topic read news/#            # before any user line: clients without a user name
//! user alice
//! topic readwrite home/#
//! topic deny home/safe/#
//! pattern write devices/%u/%c/state     # everybody, with their user name and client id put in
//! ```
//!
//! What no line allows is denied, and a denial goes before everything else.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::{Access, Action, Authorize, Verdict};
use crate::broker::config::{ConfigError, Problem};
use crate::proto::TopicFilter;

/// The rules of an ACL file.
#[derive(Debug, Default)]
pub(super) struct AclFile {
    anonymous: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Rule {
    right: Right,
    filter: TopicFilter,
}

#[derive(Debug)]
struct Pattern {
    right: Right,
    /// A topic filter with `%c` and `%u` in it.
    filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Read,
    Write,
    ReadWrite,
    Deny,
}

impl AclFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`]: it cannot be read, or a line in it cannot be understood. A rule that was left out would be a hole.
    pub(super) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::read(path, error))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut file = Self::default();
        let mut problems = Vec::new();
        let mut user: Option<String> = None;
        for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(message) = file.add_line(line, &mut user) {
                problems.push(Problem::new("", message).at(Some((number, 1))));
            }
        }
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    fn add_line(&mut self, line: &str, user: &mut Option<String>) -> Result<(), String> {
        let (word, rest) = split_word(line);
        match word {
            "user" if rest.is_empty() => Err("expected a user name after 'user'".to_owned()),
            "user" => {
                self.users.entry(rest.to_owned()).or_default();
                *user = Some(rest.to_owned());
                Ok(())
            }
            "topic" => {
                let (right, filter) = right_and_filter(rest)?;
                let filter =
                    TopicFilter::parse(filter).map_err(|error| no_filter(filter, &error))?;
                let rules = match user {
                    None => &mut self.anonymous,
                    Some(user) => self.users.entry(user.clone()).or_default(),
                };
                rules.push(Rule { right, filter });
                Ok(())
            }
            "pattern" => {
                let (right, filter) = right_and_filter(rest)?;
                TopicFilter::parse(filter).map_err(|error| no_filter(filter, &error))?;
                let filter = filter.to_owned();
                self.patterns.push(Pattern { right, filter });
                Ok(())
            }
            _ => Err(format!(
                "expected 'user', 'topic' or 'pattern', found '{}'",
                word.escape_debug()
            )),
        }
    }

    fn judge(&self, access: &Access<'_>) -> Verdict {
        let question = Question::new(access);
        let own = match access.user {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        let mut allowed = false;
        for rule in own.into_iter().flatten() {
            match question.answer(rule.right, &rule.filter) {
                Verdict::Deny => return Verdict::Deny,
                Verdict::Allow => allowed = true,
                _ => {}
            }
        }
        for pattern in &self.patterns {
            let Some(filter) = pattern.filter_for(access) else {
                continue;
            };
            match question.answer(pattern.right, &filter) {
                Verdict::Deny => return Verdict::Deny,
                Verdict::Allow => allowed = true,
                _ => {}
            }
        }
        if allowed {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}

impl Authorize for AclFile {
    fn name(&self) -> &str {
        "acl_file"
    }

    fn authorize(&self, access: &Access<'_>) -> Verdict {
        self.judge(access)
    }
}

impl Pattern {
    /// The filter with the client's values. `None` if it has none, or one that would mean more than itself in a filter.
    fn filter_for(&self, access: &Access<'_>) -> Option<TopicFilter> {
        let mut filter = String::with_capacity(self.filter.len() + access.client_id.len());
        let mut rest = self.filter.as_str();
        while let Some(at) = rest.find('%') {
            filter.push_str(&rest[..at]);
            let value = match rest.as_bytes().get(at + 1) {
                Some(b'c') => Some(access.client_id),
                Some(b'u') => Some(access.user?),
                _ => None,
            };
            let Some(value) = value else {
                filter.push('%');
                rest = &rest[at + 1..];
                continue;
            };
            if value.is_empty() || value.contains(['+', '#', '/', '\0']) {
                return None;
            }
            filter.push_str(value);
            rest = &rest[at + 2..];
        }
        filter.push_str(rest);
        TopicFilter::parse(filter).ok()
    }
}

/// What is asked, with the filter of a SUBSCRIBE parsed once.
struct Question<'a> {
    topic: &'a str,
    reads: bool,
    subscription: Option<TopicFilter>,
}

impl<'a> Question<'a> {
    fn new(access: &Access<'a>) -> Self {
        let subscribes = access.action == Action::Subscribe;
        Self {
            topic: access.topic,
            reads: access.action != Action::Publish,
            subscription: subscribes
                .then(|| TopicFilter::parse(access.topic).ok())
                .flatten(),
        }
    }

    fn answer(&self, right: Right, filter: &TopicFilter) -> Verdict {
        let concerned = match &self.subscription {
            Some(subscription) => filter.covers(subscription),
            None => filter.matches(self.topic),
        };
        match right {
            _ if !concerned => Verdict::Abstain,
            Right::Deny => Verdict::Deny,
            Right::Write if self.reads => Verdict::Abstain,
            Right::Read if !self.reads => Verdict::Abstain,
            _ => Verdict::Allow,
        }
    }
}

/// `[read|write|readwrite|deny] FILTER`; the filter may contain spaces if the right is given.
fn right_and_filter(text: &str) -> Result<(Right, &str), String> {
    let (word, rest) = split_word(text);
    let right = match word {
        "read" => Right::Read,
        "write" => Right::Write,
        "readwrite" => Right::ReadWrite,
        "deny" => Right::Deny,
        "" => return Err("the topic filter is missing".to_owned()),
        _ if rest.is_empty() => return Ok((Right::ReadWrite, word)),
        _ => {
            return Err(format!(
                "expected read, write, readwrite or deny before the topic filter, found '{}'",
                word.escape_debug()
            ));
        }
    };
    // A filter may be called `read`.
    Ok(if rest.is_empty() {
        (Right::ReadWrite, word)
    } else {
        (right, rest)
    })
}

fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

fn no_filter(filter: &str, error: &dyn std::fmt::Display) -> String {
    format!("'{}' is no topic filter: {error}", filter.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::Action::{Publish, Receive, Subscribe};
    use super::*;

    fn allows(file: &AclFile, user: Option<&str>, action: Action, topic: &str) -> bool {
        let access = Access {
            client_id: "c1",
            user,
            action,
            topic,
        };
        file.authorize(&access) == Verdict::Allow
    }

    const EXAMPLE: &str = "\u{feff}# a comment\r\n\
        topic read news/#\r\n\
        topic $SYS/#\n\
        \n\
        user alice\n\
        topic home/#\n\
        topic deny home/safe/#\n\
        topic write out/+\n\
        topic read in/with a space/+\n\
        user bob\n\
        topic readwrite #\n\
        pattern write devices/%u/%c/state\n\
        pattern read devices/%c/cmd\n";

    #[test]
    fn each_user_has_its_own_rules() {
        let file = AclFile::parse(EXAMPLE).unwrap();
        let alice = |action, topic| allows(&file, Some("alice"), action, topic);
        assert!(alice(Publish, "home/light") && alice(Receive, "home/light"));
        assert!(alice(Publish, "out/a") && !alice(Receive, "out/a"));
        assert!(alice(Receive, "in/with a space/x") && !alice(Publish, "in/with a space/x"));
        assert!(!alice(Receive, "news/today"));
        let nobody = |action, topic| allows(&file, None, action, topic);
        assert!(nobody(Receive, "news/today") && !nobody(Publish, "news/today"));
        assert!(nobody(Receive, "$SYS/broker/uptime"));
        assert!(!nobody(Receive, "home/light"));
        assert!(!allows(&file, Some("mallory"), Receive, "news/today"));
    }

    #[test]
    fn a_denial_goes_before_what_is_allowed_wherever_it_stands() {
        let file = AclFile::parse(EXAMPLE).unwrap();
        for action in [Publish, Receive, Subscribe] {
            assert!(!allows(&file, Some("alice"), action, "home/safe/code"));
        }
        let file = AclFile::parse("user a\ntopic deny x\ntopic x\n").unwrap();
        assert!(!allows(&file, Some("a"), Publish, "x"));
        let file = AclFile::parse("pattern deny %u/x\nuser a\ntopic #\n").unwrap();
        assert!(
            !allows(&file, Some("a"), Publish, "a/x") && allows(&file, Some("a"), Publish, "b/x")
        );
    }

    #[test]
    fn a_subscription_must_be_covered_by_a_rule_that_lets_read() {
        let file = AclFile::parse(EXAMPLE).unwrap();
        let alice = |filter| allows(&file, Some("alice"), Subscribe, filter);
        assert!(alice("home/#") && alice("home/+/state") && alice("home"));
        assert!(!alice("#") && !alice("+/light") && !alice("out/a"));
        // It is granted, and the messages of the part that is denied are not delivered.
        assert!(alice("home/+/code") && !allows(&file, Some("alice"), Receive, "home/safe/code"));
    }

    #[test]
    fn a_rule_that_begins_with_a_wildcard_says_nothing_about_sys() {
        let file = AclFile::parse(EXAMPLE).unwrap();
        assert!(allows(&file, Some("bob"), Subscribe, "#"));
        assert!(!allows(&file, Some("bob"), Receive, "$SYS/broker/uptime"));
        assert!(!allows(&file, Some("bob"), Subscribe, "$SYS/#"));
    }

    #[test]
    fn patterns_hold_for_everybody_with_their_own_values() {
        let file = AclFile::parse(EXAMPLE).unwrap();
        assert!(allows(
            &file,
            Some("mallory"),
            Publish,
            "devices/mallory/c1/state"
        ));
        assert!(!allows(
            &file,
            Some("mallory"),
            Publish,
            "devices/alice/c1/state"
        ));
        assert!(!allows(
            &file,
            Some("mallory"),
            Publish,
            "devices/mallory/c2/state"
        ));
        assert!(allows(&file, None, Receive, "devices/c1/cmd"));
        // No user name, nothing to put in.
        assert!(!allows(&file, None, Publish, "devices//c1/state"));
    }

    #[test]
    fn a_value_that_means_more_in_a_filter_opens_nothing() {
        let file = AclFile::parse("pattern devices/%u/state\npattern p/%c\n").unwrap();
        for user in ["+", "#", "a/b", "a+", ""] {
            let topic = format!("devices/{user}/state");
            assert!(!allows(&file, Some(user), Publish, &topic), "{user}");
            assert!(
                !allows(&file, Some(user), Receive, "devices/x/state"),
                "{user}"
            );
        }
        for client_id in ["+", "#", "a/b"] {
            let access = Access {
                client_id,
                user: None,
                action: Subscribe,
                topic: "p/+",
            };
            assert_eq!(file.authorize(&access), Verdict::Deny);
        }
        // A value is put in as it is: what looks like a placeholder in it stays.
        assert!(allows(&file, Some("%c"), Publish, "devices/%c/state"));
    }

    #[test]
    fn other_percent_signs_stay() {
        let file = AclFile::parse("pattern 100%/%x/%c%\n").unwrap();
        assert!(allows(&file, None, Publish, "100%/%x/c1%"));
    }

    #[test]
    fn rights_are_optional_and_a_filter_may_be_called_like_one() {
        let file = AclFile::parse("topic a/b\ntopic read\ntopic\tread\t x y\n").unwrap();
        assert!(allows(&file, None, Publish, "a/b") && allows(&file, None, Publish, "read"));
        assert!(allows(&file, None, Receive, "x y") && !allows(&file, None, Publish, "x y"));
    }

    #[test]
    fn sections_of_one_user_are_one() {
        let file = AclFile::parse("user a b\ntopic x\nuser c\nuser a b\ntopic y\n").unwrap();
        assert!(
            allows(&file, Some("a b"), Publish, "x") && allows(&file, Some("a b"), Publish, "y")
        );
        assert!(!allows(&file, Some("c"), Publish, "x"));
    }

    #[test]
    fn a_line_that_cannot_be_understood_refuses_the_file() {
        let text = "user\ntopic\ntopic a b\ntopic read a/#/b\npattern a%cb#\nallow x\n";
        assert_eq!(
            AclFile::parse(text).unwrap_err().to_string(),
            "line 1, column 1: expected a user name after 'user'\n\
             line 2, column 1: the topic filter is missing\n\
             line 3, column 1: expected read, write, readwrite or deny before the topic filter, found 'a'\n\
             line 4, column 1: 'a/#/b' is no topic filter: a wildcard must fill its level, and '#' must be the last level\n\
             line 5, column 1: 'a%cb#' is no topic filter: a wildcard must fill its level, and '#' must be the last level\n\
             line 6, column 1: expected 'user', 'topic' or 'pattern', found 'allow'"
        );
    }
}
