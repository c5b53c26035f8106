//! HBMQTT's topic checks, `topic_acl` and `topic_taboo`, from the section `topic-check`.

use std::collections::HashMap;

use super::{Access, Action, Authorize, Verdict};
use crate::broker::config::{TopicAcl, TopicCheckConfig};
use crate::proto::TopicFilter;

/// `topic_acl`: for each user the filters that it may use. A list that is absent restricts nothing, a user that a list
/// leaves out may do nothing. Clients without a user name are the user `anonymous`.
#[derive(Debug)]
pub(super) struct TopicAclCheck {
    publish: Option<Lists>,
    subscribe: Option<Lists>,
    receive: Option<Lists>,
}

type Lists = HashMap<String, Vec<TopicFilter>>;

impl TopicAclCheck {
    pub(super) fn new(config: &TopicCheckConfig) -> Self {
        let lists = |acl: &Option<TopicAcl>| acl.as_ref().map(lists);
        let either = |own: &Option<TopicAcl>| lists(own).or_else(|| lists(&config.acl));
        Self {
            publish: either(&config.publish_acl),
            subscribe: either(&config.subscribe_acl),
            // What may not be subscribed to is not sent either: a subscription may be older than the rule.
            receive: lists(&config.receive_acl).or_else(|| either(&config.subscribe_acl)),
        }
    }

    fn lists(&self, action: Action) -> Option<&Lists> {
        match action {
            Action::Publish => self.publish.as_ref(),
            Action::Subscribe => self.subscribe.as_ref(),
            Action::Receive => self.receive.as_ref(),
        }
    }
}

/// Filters that are none were refused when the settings were read; here they match nothing.
fn lists(acl: &TopicAcl) -> Lists {
    let parse = |filters: &Vec<String>| {
        let parse = |filter: &String| TopicFilter::parse(filter.as_str()).ok();
        filters.iter().filter_map(parse).collect()
    };
    acl.iter()
        .map(|(user, filters)| (user.clone(), parse(filters)))
        .collect()
}

impl Authorize for TopicAclCheck {
    fn name(&self) -> &str {
        "topic_acl"
    }

    fn restricts(&self, action: Action) -> bool {
        self.lists(action).is_some()
    }

    fn authorize(&self, access: &Access<'_>) -> Verdict {
        let Some(lists) = self.lists(access.action) else {
            return Verdict::Allow;
        };
        let filters = lists.get(access.user.unwrap_or("anonymous"));
        if concerns_any(filters.into_iter().flatten(), access) {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}

/// `topic_taboo`: some topics are for the user `admin` only.
#[derive(Debug)]
pub(super) struct TopicTaboo {
    filters: Vec<TopicFilter>,
}

impl TopicTaboo {
    pub(super) fn new(config: &TopicCheckConfig) -> Self {
        let parse = |filter: &String| TopicFilter::parse(filter.as_str()).ok();
        Self {
            filters: config.taboo_topics.iter().filter_map(parse).collect(),
        }
    }
}

impl Authorize for TopicTaboo {
    fn name(&self) -> &str {
        "topic_taboo"
    }

    fn authorize(&self, access: &Access<'_>) -> Verdict {
        if access.user != Some("admin") && concerns_any(&self.filters, access) {
            Verdict::Deny
        } else {
            Verdict::Allow
        }
    }
}

/// One of the filters matches the topic, or covers all that a subscription asks for.
fn concerns_any<'f>(
    filters: impl IntoIterator<Item = &'f TopicFilter>,
    access: &Access<'_>,
) -> bool {
    let mut filters = filters.into_iter();
    if access.action != Action::Subscribe {
        return filters.any(|filter| filter.matches(access.topic));
    }
    TopicFilter::parse(access.topic)
        .is_ok_and(|subscription| filters.any(|filter| filter.covers(&subscription)))
}

#[cfg(test)]
mod tests {
    use super::Action::{Publish, Receive, Subscribe};
    use super::*;
    use crate::broker::config::Config;

    fn acl(lines: &str) -> TopicAclCheck {
        let config = Config::parse(&format!("topic-check: {{{lines}}}")).unwrap();
        TopicAclCheck::new(&config.topic_check)
    }

    fn allows(check: &dyn Authorize, user: Option<&str>, action: Action, topic: &str) -> bool {
        let access = Access {
            client_id: "c1",
            user,
            action,
            topic,
        };
        check.authorize(&access) == Verdict::Allow
    }

    /// BC-17.
    #[test]
    fn acl_holds_for_publishing_and_subscribing() {
        let check = acl("acl: {alice: ['a/+', b], anonymous: [free/#]}");
        assert!(
            allows(&check, Some("alice"), Publish, "a/x")
                && allows(&check, Some("alice"), Publish, "b")
        );
        assert!(!allows(&check, Some("alice"), Publish, "free/x"));
        assert!(allows(&check, None, Publish, "free/x") && !allows(&check, None, Publish, "b"));
        assert!(allows(&check, Some("alice"), Subscribe, "a/+"));
        assert!(
            !allows(&check, Some("alice"), Subscribe, "a/#")
                && !allows(&check, Some("alice"), Subscribe, "#")
        );
        assert!(
            !allows(&check, Some("bob"), Subscribe, "b")
                && !allows(&check, Some("bob"), Publish, "b")
        );
        assert!(
            [Publish, Subscribe, Receive]
                .iter()
                .all(|action| check.restricts(*action))
        );
    }

    /// BC-18.
    #[test]
    fn the_list_of_an_action_goes_before_acl() {
        let check = acl("acl: {a: [x]}, publish-acl: {a: [y]}, subscribe-acl: {a: [z]}");
        for (action, topic) in [(Publish, "y"), (Subscribe, "z"), (Receive, "z")] {
            for tried in ["x", "y", "z"] {
                assert_eq!(
                    allows(&check, Some("a"), action, tried),
                    tried == topic,
                    "{action:?} {tried}"
                );
            }
        }
        let check = acl("acl: {a: [x]}, receive-acl: {a: [y]}");
        assert!(
            allows(&check, Some("a"), Subscribe, "x") && !allows(&check, Some("a"), Receive, "x")
        );
        assert!(allows(&check, Some("a"), Receive, "y"));
    }

    #[test]
    fn an_absent_list_restricts_nothing_and_an_empty_one_everything() {
        let check = acl("publish-acl: {a: []}");
        assert!(!allows(&check, Some("a"), Publish, "x") && !allows(&check, None, Publish, "x"));
        assert!(!check.restricts(Subscribe) && !check.restricts(Receive));
        assert!(allows(&check, None, Subscribe, "#"));
        assert!(!allows(&acl("acl: {}"), Some("a"), Subscribe, "x"));
    }

    /// PLG-6.
    #[test]
    fn taboo_topics_are_for_admin_only() {
        let check = TopicTaboo::new(&TopicCheckConfig::default());
        for topic in ["prohibited", "top-secret", "data/classified"] {
            for action in [Publish, Subscribe, Receive] {
                assert!(!allows(&check, None, action, topic), "{action:?} {topic}");
                assert!(!allows(&check, Some("bob"), action, topic));
                assert!(allows(&check, Some("admin"), action, topic));
            }
        }
        assert!(allows(&check, None, Publish, "prohibited/not"));
        // The subscription is granted, but what is taboo is not delivered to it.
        assert!(allows(&check, None, Subscribe, "#"));
    }

    #[test]
    fn the_list_of_taboo_topics_can_be_set() {
        let config = Config::parse("topic-check: {taboo-topics: ['private/#']}").unwrap();
        let check = TopicTaboo::new(&config.topic_check);
        assert!(
            !allows(&check, None, Publish, "private/x")
                && allows(&check, None, Publish, "prohibited")
        );
        assert!(!allows(&check, None, Subscribe, "private/+"));
    }
}
