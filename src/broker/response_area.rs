//! Response Information: below a topic of the settings each client has an area of its own. Who may publish, publishes into
//! it; only the client is subscribed to it.
//!
//! ```text
//!   response-information: responses       client identifier: plant 1/pump
//!   CONNACK, Response Information: responses/plant 1%2Fpump/
//! ```
//!
//! Where a listener has a mount point, its clients have their areas behind it, like all their topics.
//!
//! Source: MQTT 5.0 §3.2.2.3.15, §4.10.

use std::fmt::Write as _;

use super::config::Config;
use crate::proto::{ShareName, TopicFilter};

/// Where the areas of the clients are. The default: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResponseAreas {
    /// What stands before the name of a client, each once: the mount point, the topic of the settings, `/`.
    prefixes: Box<[Box<str>]>,
}

impl ResponseAreas {
    pub(crate) fn of(config: &Config) -> Self {
        let Some(prefix) = &config.response_information else {
            return Self::default();
        };
        let mount_points = config
            .listeners
            .iter()
            .map(|one| one.mount_point.as_deref());
        let mut prefixes: Vec<Box<str>> = mount_points
            .map(|mount_point| {
                let mount_point = mount_point.unwrap_or_default();
                format!("{mount_point}{prefix}/").into_boxed_str()
            })
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Self {
            prefixes: prefixes.into_boxed_slice(),
        }
    }

    /// Whose area `topic` is in; for a filter, whose area it names.
    pub(crate) fn owner<'t>(&self, topic: &'t str) -> Option<AreaOwner<'t>> {
        let rest = self
            .prefixes
            .iter()
            .find_map(|prefix| topic.strip_prefix(&**prefix))?;
        Some(AreaOwner(rest.split('/').next().unwrap_or_default()))
    }

    /// Whether a client may have this subscription. One that reaches into the areas from above is allowed, and is given
    /// nothing of what is in the areas of others. Nobody shares an area.
    pub(crate) fn allow(
        &self,
        filter: &TopicFilter,
        share: Option<&ShareName>,
        client_id: &str,
    ) -> bool {
        self.owner(filter.as_str())
            .is_none_or(|owner| share.is_none() && owner.is(client_id))
    }
}

/// The level of a topic that names the client whose area it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AreaOwner<'t>(&'t str);

impl AreaOwner<'_> {
    /// Whether it is this client.
    pub(crate) fn is(self, client_id: &str) -> bool {
        if client_id.bytes().any(is_encoded) {
            encode(client_id) == self.0
        } else {
            client_id == self.0
        }
    }
}

/// The Response Information of a client: its area, with the `/` that its own levels follow.
pub(crate) fn response_information(prefix: &str, client_id: &str) -> String {
    format!("{prefix}/{}/", encode(client_id))
}

/// A Client Identifier as one level of a topic: what would end the level, make it a wildcard or be a control character
/// stands as `%` and two hexadecimal digits, as in URLs, and so does `%`. Different identifiers stay different.
fn encode(client_id: &str) -> String {
    let mut level = String::with_capacity(client_id.len());
    for character in client_id.chars() {
        match u8::try_from(character) {
            Ok(byte) if is_encoded(byte) => {
                // Writing into a String cannot fail.
                let _ = write!(level, "%{byte:02X}");
            }
            _ => level.push(character),
        }
    }
    level
}

/// Characters of a Client Identifier that cannot stand in a level. All are ASCII.
fn is_encoded(byte: u8) -> bool {
    matches!(byte, b'/' | b'+' | b'#' | b'%' | 0..=0x1f | 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(settings: &str) -> ResponseAreas {
        ResponseAreas::of(&Config::parse(settings).unwrap())
    }

    #[test]
    fn every_client_identifier_is_one_level() {
        for (client_id, level) in [
            ("plain", "plain"),
            ("größe", "größe"),
            ("a/b", "a%2Fb"),
            ("+", "%2B"),
            ("#", "%23"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            ("$SYS", "$SYS"),
            ("\u{1}\u{7f}\u{85}", "%01%7F\u{85}"),
        ] {
            assert_eq!(encode(client_id), level);
            assert!(AreaOwner(level).is(client_id));
            assert!(!AreaOwner("other").is(client_id));
            let information = response_information("r", client_id);
            assert!(crate::proto::topic::validate_name(&information).is_ok());
            assert_eq!(information.split('/').count(), 3);
        }
        assert!(!AreaOwner("a%2fb").is("a/b"));
        assert!(!AreaOwner("a%2Fb").is("a%2Fb"));
    }

    #[test]
    fn a_topic_is_in_the_area_that_its_levels_name() {
        let areas = areas("response-information: r/s\n");
        let owner = |topic| areas.owner(topic).map(|owner| owner.0);
        assert_eq!(owner("r/s/me/x/y"), Some("me"));
        assert_eq!(owner("r/s/me"), Some("me"));
        assert_eq!(owner("r/s/"), Some(""));
        assert_eq!(owner("r/s"), None);
        assert_eq!(owner("r/sx/me"), None);
        assert_eq!(owner("x/r/s/me"), None);
        assert_eq!(ResponseAreas::default().owner("r/s/me"), None);
    }

    #[test]
    fn only_the_client_itself_subscribes_below_the_prefix() {
        let areas = areas("response-information: r\n");
        let allows = |filter: &str| {
            let (share, filter) = crate::proto::topic::parse_subscription(&filter.into()).unwrap();
            areas.allow(&filter, share.as_ref(), "me")
        };
        for filter in [
            "r/me",
            "r/me/#",
            "r/me/x",
            "r",
            "+/me",
            "#",
            "+/+/x",
            "rx/#",
            "$share/g/#",
        ] {
            assert!(allows(filter), "{filter}");
        }
        for filter in [
            "r/#",
            "r/+",
            "r/+/x",
            "r/",
            "r/you/#",
            "$share/g/r/me/#",
            "$share/g/r/#",
        ] {
            assert!(!allows(filter), "{filter}");
        }
    }

    #[test]
    fn each_mount_point_has_areas_of_its_own() {
        let areas = areas(
            "response-information: r\nlisteners:\n  a: {bind: 127.0.0.1:0, mount-point: m/}\n  \
             b: {bind: 127.0.0.1:0, mount-point: m/}\n  c: {bind: 127.0.0.1:0}\n",
        );
        assert_eq!(areas.prefixes.len(), 2);
        assert!(areas.owner("m/r/me").is_some_and(|owner| owner.is("me")));
        assert!(areas.owner("r/me").is_some_and(|owner| owner.is("me")));
    }
}
