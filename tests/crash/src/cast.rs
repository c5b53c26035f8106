//! Who takes part in the rounds.

use crate::frames::Version;
use crate::model::Stream;
use crate::publisher::Publisher;
use crate::random::Random;
use crate::subscriber::{Habits, Subscriber};

/// The topic of the will.
pub(crate) const WILL_TOPIC: &str = "w/0";

/// Four publishers, each with streams at QoS 1 and 2, retained ones among them; the last two are the markers.
pub(crate) fn publishers(random: &mut Random) -> Vec<Publisher> {
    let mut first = 0;
    let mut publishers = Vec::new();
    for (number, version) in [Version::V311, Version::V5, Version::V311, Version::V5]
        .into_iter()
        .enumerate()
    {
        let mut streams = Vec::new();
        for qos in [1, 2] {
            for part in 0..2 {
                streams.push(Stream::new(format!("c/{number}/{qos}/{part}"), qos, false));
            }
            for part in 0..3 {
                streams.push(Stream::new(format!("r/{number}/{qos}/{part}"), qos, true));
                streams.push(Stream {
                    is_quiet: true,
                    ..Stream::new(format!("r/{number}/{qos}/quiet-{part}"), qos, true)
                });
            }
        }
        for qos in [1, 2] {
            streams.push(Stream::new(format!("e/{number}/{qos}"), qos, false));
        }
        let (name, count) = (format!("publisher-{number}"), streams.len());
        let window = random.between(4, 100);
        let random = random.fork();
        let publisher = Publisher::new(name, version, first, streams, window, random);
        publishers.push(publisher);
        first += count;
    }
    publishers
}

/// Who receives, and how.
pub(crate) fn subscribers(topics: &[String], random: &mut Random) -> Vec<Subscriber> {
    use Version::{V5, V311};
    let none = Habits::default();
    let away = Habits {
        is_away: true,
        ..none
    };
    let lazy = Habits {
        is_lazy: true,
        ..none
    };
    let drops = Habits {
        drops: 40,
        is_lazy: true,
        ..none
    };
    let takes_over = Habits {
        takes_over: 30,
        is_lazy: true,
        ..none
    };
    let toggles = Habits {
        toggles: 12,
        drops: 150,
        ..none
    };
    let renews = Habits {
        renews: 15,
        drops: 60,
        is_lazy: true,
        ..none
    };
    let starts_clean = Habits {
        starts_clean: 60,
        drops: 80,
        ..none
    };
    let ends = Habits { ends: 60, ..none };
    let table: &[Row<'_>] = &[
        (("exact", V311, 1), none, &["c/0/1/0", "c/1/1/1"], &[]),
        (("all", V5, 2), lazy, &["c/#", "w/#"], &[]),
        (("away", V5, 2), away, &["c/+/2/#", "c/2/1/#"], &[]),
        (("away-311", V311, 1), away, &["c/#"], &[]),
        (("drops", V311, 2), drops, &["c/+/2/+", "c/3/1/+"], &[]),
        (
            ("takes-over", V5, 2),
            takes_over,
            &["c/0/#", "c/1/2/#"],
            &[],
        ),
        (
            ("toggles", V5, 2),
            toggles,
            &["c/3/2/0"],
            &["c/0/1/0", "c/+/2/0", "c/1/#", "r/0/#", "r/+/2/+"],
        ),
        (
            ("toggles-311", V311, 1),
            toggles,
            &[],
            &["c/0/1/+", "c/2/#", "r/#"],
        ),
        (("retained", V5, 2), drops, &["r/#"], &[]),
        (("renews", V5, 2), renews, &["r/#"], &[]),
        (("renews-311", V311, 1), renews, &["r/+/+/+"], &[]),
        (
            ("starts-clean", V5, 2),
            starts_clean,
            &["c/2/#"],
            &["c/1/2/0"],
        ),
        (
            ("starts-clean-311", V311, 2),
            starts_clean,
            &["c/+/2/1"],
            &[],
        ),
        (("ends", V5, 1), ends, &["c/+/1/0"], &[]),
        (("one-a", V5, 2), none, &["$share/one/c/0/#"], &[]),
        (("one-b", V311, 2), drops, &["$share/one/c/0/#"], &[]),
        (("one-c", V5, 2), away, &["$share/one/c/0/#"], &[]),
        (("two-a", V5, 1), lazy, &["$share/two/c/1/#"], &[]),
        (("two-b", V5, 1), ends, &["$share/two/c/1/#"], &[]),
    ];
    let subscribers = table.iter().map(|(who, habits, filters, toggled)| {
        let random = random.fork();
        Subscriber::new(*who, *habits, filters, toggled, topics.to_vec(), random)
    });
    subscribers.collect()
}

/// Name, version and QoS; habits; filters; filters that it toggles.
type Row<'a> = ((&'a str, Version, u8), Habits, &'a [&'a str], &'a [&'a str]);
