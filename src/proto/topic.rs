//! Topic Names, Topic Filters and Share Names: validity, levels, matching one against one.

use bytestring::ByteString;

/// A Topic Name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

/// A Topic Filter, without the `$share/name/` prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(ByteString);

/// The Share Name of a Shared Subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(ByteString);
