//! Who receives what: Topic Filters, their subscribers and shared groups, and the receivers of a topic.
//!
//! ```text
//!   topic ─► cache ─hit─────────────────────────────────────────────► receivers
//!              └─miss or stale─► by_text (exact filter) ┐
//!                                tree (wildcard filters)┴► filters ─► merged per session ─► cache
//! ```
//!
//! A change of an exact filter makes the cached entry of that topic stale, a change of a wildcard filter all entries, by
//! a generation number. Nothing here recurses over topic levels.

mod cache;
mod subscribers;
mod tree;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::fast::RandomState;
use slab::Slab;

use crate::proto::packet::{QoS, SubscriptionOptions};
use crate::proto::{ShareName, TopicFilter};
use cache::Cache;
use subscribers::{Subscriber, Subscribers};
use tree::FilterTree;

/// Where a session stands in the router's table.
pub(crate) type SessionSlot = u32;

/// Where a filter stands in `Subscriptions::filters`.
type FilterId = u32;

/// What a client asked for with one Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The options, with the QoS that was granted.
    pub(crate) options: SubscriptionOptions,
    /// Subscription Identifier.
    pub(crate) id: Option<u32>,
}

/// All subscriptions of all sessions.
///
/// The receivers of a topic that was asked for before cost one hash lookup. A subscription to a filter of its own takes
/// about 100 bytes and the filter's text; its levels as many again if it has wildcards.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    filters: Slab<Filter>,
    by_text: HashMap<Box<str>, FilterId, RandomState>,
    /// The filters with wildcards.
    tree: FilterTree,
    groups: Slab<(NonZeroU32, Group)>,
    /// By `name/filter`; a Share Name holds no `/`.
    group_by_text: HashMap<Box<str>, GroupId, RandomState>,
    /// Makes each [`GroupId`] unique.
    groups_made: NonZeroU32,
    cache: Cache,
    len: usize,
    scratch: Scratch,
}

/// A Topic Filter with at least one subscriber or group. Its text is the key in `by_text`.
#[derive(Debug, Default)]
struct Filter {
    direct: Option<Subscribers>,
    groups: Option<Box<FilterGroups>>,
}

/// The groups of a filter; boxed, because few filters have any.
#[derive(Debug, Default)]
struct FilterGroups(Vec<GroupId>);

/// Buffers that are used again.
#[derive(Debug, Default)]
struct Scratch {
    matched: Vec<FilterId>,
    subscribers: Vec<Subscriber>,
    text: String,
    /// The receivers of a topic too long to be cached.
    receivers: Receivers,
}

/// Who receives the messages of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Receivers {
    /// Sessions with subscriptions of their own, each once.
    pub(crate) direct: Vec<Receiver>,
    /// Groups of Shared Subscriptions; one member of each receives.
    pub(crate) groups: Vec<GroupId>,
}

impl Receivers {
    /// Nobody receives.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }

    fn clear(&mut self) {
        self.direct.clear();
        self.groups.clear();
    }

    fn count(&self) -> usize {
        self.direct.len() + self.groups.len()
    }
}

/// A session that receives the messages of a topic, all its matching subscriptions merged into one.
///
/// Source: MQTT 5.0 §3.3.4 [MQTT-3.3.4-2], §3.8.3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// The session.
    pub(crate) slot: SessionSlot,
    /// The highest granted QoS.
    pub(crate) qos: QoS,
    /// At least one of the subscriptions keeps the RETAIN flag.
    pub(crate) retain_as_published: bool,
    /// All of the subscriptions are No Local.
    pub(crate) no_local: bool,
    /// The Subscription Identifiers, one for each subscription that has one.
    pub(crate) ids: Option<Arc<[u32]>>,
    /// If some of the subscriptions are No Local and some are not: those that are not. The receiver to use if the
    /// session is the publisher itself.
    pub(crate) without_local: Option<Box<Self>>,
}

impl Receiver {
    /// What counts if the message was published by the session itself (`own`). `None`: it is not sent back.
    /// [MQTT-3.8.3-3]
    pub(crate) fn for_publisher(&self, own: bool) -> Option<&Self> {
        match (own, &self.without_local) {
            (false, _) => Some(self),
            (true, Some(without_local)) => Some(without_local),
            (true, None) => (!self.no_local).then_some(self),
        }
    }
}

/// Names a [`Group`]; never used again for another one while it may be remembered somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId {
    index: u32,
    number: NonZeroU32,
}

/// The subscribers of one Shared Subscription: same Share Name, same Topic Filter.
///
/// Source: MQTT 5.0 §4.8.2.
#[derive(Debug)]
pub(crate) struct Group {
    /// Share Name.
    pub(crate) name: ShareName,
    /// `$share/name/filter`.
    pub(crate) text: ByteString,
    /// The members, at least one, each session once, in the order in which they came.
    pub(crate) members: Vec<Member>,
    /// Who is next in turn: an index into `members`.
    pub(crate) next: usize,
}

/// A session in a [`Group`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// The session.
    pub(crate) slot: SessionSlot,
    /// The options, with the QoS that was granted.
    pub(crate) options: SubscriptionOptions,
    /// Subscription Identifier.
    pub(crate) id: Option<u32>,
}

impl Group {
    /// `false`: the session was no member before.
    fn join(&mut self, member: Member) -> bool {
        match self.position(member.slot) {
            Some(index) => {
                self.members[index] = member;
                true
            }
            None => {
                self.members.push(member);
                false
            }
        }
    }

    /// `false`: the session is no member.
    fn leave(&mut self, slot: SessionSlot) -> bool {
        let Some(index) = self.position(slot) else {
            return false;
        };
        self.members.remove(index);
        if index < self.next {
            self.next -= 1;
        }
        if self.next >= self.members.len() {
            self.next = 0;
        }
        true
    }

    fn position(&self, slot: SessionSlot) -> Option<usize> {
        self.members.iter().position(|member| member.slot == slot)
    }
}

/// One subscription, as [`Subscriptions::iter`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    /// The session.
    pub(crate) slot: SessionSlot,
    /// Topic Filter.
    pub(crate) filter: &'a str,
    /// Share Name of a Shared Subscription.
    pub(crate) share: Option<&'a str>,
    /// What was asked for.
    pub(crate) subscription: Subscription,
}

impl Subscriptions {
    /// No subscription.
    pub(crate) fn new() -> Self {
        Self {
            filters: Slab::new(),
            by_text: HashMap::default(),
            tree: FilterTree::new(),
            groups: Slab::new(),
            group_by_text: HashMap::default(),
            groups_made: NonZeroU32::MIN,
            cache: Cache::new(),
            len: 0,
            scratch: Scratch::default(),
        }
    }

    /// How many subscriptions there are; a Shared Subscription counts once for each member.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a subscription of the session `slot`, or replaces the one with the same filter and Share Name. `true`: there
    /// was one before. [MQTT-3.8.4-3]
    pub(crate) fn subscribe(
        &mut self,
        slot: SessionSlot,
        filter: &TopicFilter,
        share: Option<&ShareName>,
        subscription: Subscription,
    ) -> bool {
        let filter_id = self.filter_id(filter);
        let existed = match share {
            None => self.join_filter(filter_id, filter, Subscriber { slot, subscription }),
            Some(name) => {
                let member = Member {
                    slot,
                    options: subscription.options,
                    id: subscription.id,
                };
                self.join_group(filter_id, filter, name, member)
            }
        };
        self.len += usize::from(!existed);
        existed
    }

    /// Removes the subscription of the session `slot` with this filter and Share Name. `false`: there was none.
    pub(crate) fn unsubscribe(
        &mut self,
        slot: SessionSlot,
        filter: &TopicFilter,
        share: Option<&ShareName>,
    ) -> bool {
        let Some(&filter_id) = self.by_text.get(filter.as_str()) else {
            return false;
        };
        let existed = match share {
            None => self.leave_filter(filter_id, filter, slot),
            Some(name) => self.leave_group(filter_id, filter, name, slot),
        };
        self.len -= usize::from(existed);
        if self.filters[key(filter_id)].is_unused() {
            self.filters.remove(key(filter_id));
            self.by_text.remove(filter.as_str());
            if filter.has_wildcard() {
                self.tree.remove(filter);
            }
        }
        existed
    }

    /// Who receives the messages published to `topic`, a valid Topic Name.
    pub(crate) fn receivers(&mut self, topic: &str) -> &Receivers {
        if topic.len() > MAX_CACHED_TOPIC_BYTES {
            let mut receivers = std::mem::take(&mut self.scratch.receivers);
            self.collect(topic, &mut receivers);
            self.scratch.receivers = receivers;
            return &self.scratch.receivers;
        }
        let place = match self.cache.find(topic) {
            Some(place) if self.cache.is_fresh(place) => return self.cache.receivers(place),
            Some(place) => place,
            None => self.cache.make_place(topic),
        };
        let mut receivers = self.cache.take(place);
        self.collect(topic, &mut receivers);
        self.cache.fill(place, receivers)
    }

    /// The group `id`, unless its last member has left.
    pub(crate) fn group(&self, id: GroupId) -> Option<&Group> {
        let (number, group) = self.groups.get(key(id.index))?;
        (*number == id.number).then_some(group)
    }

    /// The group of a Shared Subscription.
    pub(crate) fn group_id(&mut self, filter: &TopicFilter, name: &ShareName) -> Option<GroupId> {
        compose(&mut self.scratch.text, name, filter);
        self.group_by_text.get(self.scratch.text.as_str()).copied()
    }

    /// The group `id`, unless its last member has left.
    pub(crate) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        let (number, group) = self.groups.get_mut(key(id.index))?;
        (*number == id.number).then_some(group)
    }

    /// All subscriptions, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        self.by_text.iter().flat_map(|(text, filter_id)| {
            let filter = &self.filters[key(*filter_id)];
            let direct = filter.direct.iter().flat_map(Subscribers::iter);
            let direct = direct.map(move |subscriber| Listed {
                slot: subscriber.slot,
                filter: text,
                share: None,
                subscription: subscriber.subscription,
            });
            let groups = filter.group_ids().filter_map(|id| self.group(id));
            let shared = groups.flat_map(move |group| {
                group.members.iter().map(move |member| Listed {
                    slot: member.slot,
                    filter: text,
                    share: Some(group.name.as_str()),
                    subscription: Subscription {
                        options: member.options,
                        id: member.id,
                    },
                })
            });
            direct.chain(shared)
        })
    }

    /// Finds the filter, or makes it.
    fn filter_id(&mut self, filter: &TopicFilter) -> FilterId {
        if let Some(&filter_id) = self.by_text.get(filter.as_str()) {
            return filter_id;
        }
        let filter_id = index(self.filters.insert(Filter::default()));
        self.by_text.insert(filter.as_str().into(), filter_id);
        if filter.has_wildcard() {
            self.tree.insert(filter, filter_id);
        }
        filter_id
    }

    fn join_filter(
        &mut self,
        filter_id: FilterId,
        filter: &TopicFilter,
        subscriber: Subscriber,
    ) -> bool {
        let direct = &mut self.filters[key(filter_id)].direct;
        let before = match direct {
            Some(subscribers) => subscribers.insert(subscriber),
            None => {
                *direct = Some(Subscribers::One(subscriber));
                None
            }
        };
        if before != Some(subscriber.subscription) {
            self.expire(filter);
        }
        before.is_some()
    }

    fn leave_filter(
        &mut self,
        filter_id: FilterId,
        filter: &TopicFilter,
        slot: SessionSlot,
    ) -> bool {
        let direct = &mut self.filters[key(filter_id)].direct;
        let Some(subscribers) = direct else {
            return false;
        };
        if !subscribers.remove(slot) {
            return false;
        }
        if subscribers.is_empty() {
            *direct = None;
        }
        self.expire(filter);
        true
    }

    fn join_group(
        &mut self,
        filter_id: FilterId,
        filter: &TopicFilter,
        name: &ShareName,
        member: Member,
    ) -> bool {
        compose(&mut self.scratch.text, name, filter);
        let known = self.group_by_text.get(self.scratch.text.as_str()).copied();
        if let Some(group) = known.and_then(|id| self.group_mut(id)) {
            return group.join(member);
        }
        self.groups_made = self.groups_made.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let number = self.groups_made;
        let group = Group {
            name: name.clone(),
            text: ByteString::from(format!("$share/{}", self.scratch.text)),
            members: vec![member],
            next: 0,
        };
        let id = GroupId {
            index: index(self.groups.insert((number, group))),
            number,
        };
        self.group_by_text
            .insert(self.scratch.text.as_str().into(), id);
        let groups = &mut self.filters[key(filter_id)].groups;
        groups.get_or_insert_default().0.push(id);
        self.expire(filter);
        false
    }

    fn leave_group(
        &mut self,
        filter_id: FilterId,
        filter: &TopicFilter,
        name: &ShareName,
        slot: SessionSlot,
    ) -> bool {
        compose(&mut self.scratch.text, name, filter);
        let known = self.group_by_text.get(self.scratch.text.as_str()).copied();
        let Some((id, group)) = known.and_then(|id| Some((id, self.group_mut(id)?))) else {
            return false;
        };
        if !group.leave(slot) {
            return false;
        }
        if group.members.is_empty() {
            self.groups.remove(key(id.index));
            self.group_by_text.remove(self.scratch.text.as_str());
            self.filters[key(filter_id)].remove_group(id);
            self.expire(filter);
        }
        true
    }

    /// The receivers of the topics that `filter` matches have changed.
    fn expire(&mut self, filter: &TopicFilter) {
        if filter.has_wildcard() {
            self.cache.expire_all();
        } else {
            self.cache.expire(filter.as_str());
        }
    }

    /// Matches `topic` against all filters and puts who receives into `receivers`.
    fn collect(&mut self, topic: &str, receivers: &mut Receivers) {
        receivers.clear();
        let Scratch {
            matched,
            subscribers,
            ..
        } = &mut self.scratch;
        matched.clear();
        matched.extend(self.by_text.get(topic));
        self.tree.collect(topic, matched);
        let filters = matched.iter().map(|id| &self.filters[key(*id)]);
        for filter in filters.clone() {
            receivers.groups.extend(filter.group_ids());
        }
        let direct = filters.filter_map(|filter| filter.direct.as_ref());
        match matched.as_slice() {
            // A session stands in one filter once.
            [_] => receivers.direct.extend(
                direct
                    .flat_map(Subscribers::iter)
                    .map(|subscriber| merge(&[subscriber])),
            ),
            _ => {
                subscribers.clear();
                subscribers.extend(direct.flat_map(Subscribers::iter));
                subscribers.sort_by_key(|subscriber| subscriber.slot);
                let sessions = subscribers.chunk_by(|one, other| one.slot == other.slot);
                receivers.direct.extend(sessions.map(merge));
            }
        }
        if subscribers.capacity() > MAX_SCRATCH_SUBSCRIBERS {
            *subscribers = Vec::new();
        }
    }
}

impl Filter {
    fn is_unused(&self) -> bool {
        self.direct.is_none() && self.groups.is_none()
    }

    fn group_ids(&self) -> impl Iterator<Item = GroupId> {
        self.groups
            .iter()
            .flat_map(|groups| groups.0.iter().copied())
    }

    fn remove_group(&mut self, id: GroupId) {
        if let Some(groups) = &mut self.groups {
            groups.0.retain(|other| *other != id);
            if groups.0.is_empty() {
                self.groups = None;
            }
        }
    }
}

/// The subscriptions of one session to one topic, at least one, as one receiver.
fn merge(subscribers: &[Subscriber]) -> Receiver {
    let local = |subscriber: &&Subscriber| !subscriber.subscription.options.no_local;
    let local_count = subscribers.iter().filter(local).count();
    let no_local = local_count == 0;
    let mixed = !no_local && local_count < subscribers.len();
    let mut merged = merge_all(subscribers.iter(), no_local);
    if mixed {
        let without_local = merge_all(subscribers.iter().filter(local), false);
        merged.without_local = Some(Box::new(without_local));
    }
    merged
}

fn merge_all<'a>(
    subscribers: impl Iterator<Item = &'a Subscriber> + Clone,
    no_local: bool,
) -> Receiver {
    // [MQTT-3.3.4-3], [MQTT-3.3.4-4]
    let mut ids = subscribers
        .clone()
        .filter_map(|subscriber| subscriber.subscription.id)
        .peekable();
    let mut merged = Receiver {
        slot: 0,
        qos: QoS::AtMostOnce,
        retain_as_published: false,
        no_local,
        ids: ids.peek().is_some().then(|| ids.collect()),
        without_local: None,
    };
    for Subscriber { slot, subscription } in subscribers {
        merged.slot = *slot;
        merged.qos = merged.qos.max(subscription.options.qos);
        merged.retain_as_published |= subscription.options.retain_as_published;
    }
    merged
}

/// The key of a group in `group_by_text`.
fn compose(text: &mut String, name: &ShareName, filter: &TopicFilter) {
    text.clear();
    text.push_str(name.as_str());
    text.push('/');
    text.push_str(filter.as_str());
}

/// A slab's key as it is kept.
#[expect(
    clippy::expect_used,
    reason = "more than 4 billion entries do not fit into memory"
)]
fn index(key: usize) -> u32 {
    u32::try_from(key).expect("a slab has fewer than 2^32 entries")
}

/// A slab's key as it is used.
fn key(index: u32) -> usize {
    index as usize
}

/// Longer topics are matched each time, so that the cache's memory is bounded.
const MAX_CACHED_TOPIC_BYTES: usize = 512;

/// A larger buffer is given back after use.
const MAX_SCRATCH_SUBSCRIBERS: usize = 65_536;

#[cfg(test)]
mod tests;
