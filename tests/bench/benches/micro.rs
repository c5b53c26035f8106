//! Micro-benchmarks: what one packet, one match, one routed message costs, and how often it allocates.
//!
//!     cargo bench --manifest-path tests/bench/Cargo.toml --features micro

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up ends")]

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use hbmqtt::broker::measure::{Filters, Routing};
use hbmqtt::proto::packet::ack::encode_bare;
use hbmqtt::proto::packet::publish::{PublishHead, PublishView, encode_head};
use hbmqtt::proto::{Decoder, PacketId, PacketType, ProtocolVersion, QoS};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Packets in one batch, as one read of a busy connection brings them.
const BATCH: u16 = 100;

fn head(qos: QoS, id: u16) -> PublishHead<'static> {
    PublishHead {
        dup: false,
        qos,
        retain: false,
        topic: "bench/topic",
        packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
        properties: None,
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: &[],
    }
}

fn publishes(version: ProtocolVersion, qos: QoS, payload_bytes: usize) -> Bytes {
    let mut buffer = Vec::new();
    for id in 1..=BATCH {
        encode_head(&head(qos, id), version, payload_bytes, &mut buffer).unwrap();
        buffer.resize(buffer.len() + payload_bytes, 0x2a);
    }
    buffer.into()
}

mod decode {
    use super::*;

    fn views(bencher: Bencher<'_, '_>, version: ProtocolVersion, qos: QoS, payload_bytes: usize) {
        let packets = publishes(version, qos, payload_bytes);
        let decoder = Decoder::new(version);
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let mut rest = &packets[..];
            while let Some(frame) = decoder.frame(rest).unwrap() {
                black_box(PublishView::decode(&decoder, frame, rest).unwrap());
                rest = &rest[frame.total_bytes as usize..];
            }
        });
    }

    #[divan::bench(args = [16, 1024])]
    fn publish_qos0(bencher: Bencher<'_, '_>, payload_bytes: usize) {
        views(
            bencher,
            ProtocolVersion::V311,
            QoS::AtMostOnce,
            payload_bytes,
        );
    }

    #[divan::bench]
    fn publish_qos1(bencher: Bencher<'_, '_>) {
        views(bencher, ProtocolVersion::V311, QoS::AtLeastOnce, 16);
    }

    #[divan::bench]
    fn publish_qos1_version5(bencher: Bencher<'_, '_>) {
        views(bencher, ProtocolVersion::V5, QoS::AtLeastOnce, 16);
    }

    #[divan::bench]
    fn puback(bencher: Bencher<'_, '_>) {
        let mut packets = Vec::new();
        for id in 1..=BATCH {
            encode_bare(PacketType::Puback, PacketId::new(id).unwrap(), &mut packets);
        }
        let packets = Bytes::from(packets);
        let decoder = Decoder::new(ProtocolVersion::V311);
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let mut at = 0;
            while let Some(frame) = decoder.frame(&packets[at..]).unwrap() {
                let end = at + frame.total_bytes as usize;
                black_box(decoder.decode(frame, &packets.slice(at..end)).unwrap());
                at = end;
            }
        });
    }
}

mod encode {
    use super::*;

    #[divan::bench(args = [QoS::AtMostOnce, QoS::AtLeastOnce])]
    fn publish_head(bencher: Bencher<'_, '_>, qos: QoS) {
        let mut out = Vec::with_capacity(64 * usize::from(BATCH));
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            out.clear();
            for id in 1..=BATCH {
                encode_head(&head(qos, id), ProtocolVersion::V311, 16, &mut out).unwrap();
            }
            black_box(out.len())
        });
    }

    #[divan::bench]
    fn puback(bencher: Bencher<'_, '_>) {
        let mut out = Vec::with_capacity(4 * usize::from(BATCH));
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            out.clear();
            for id in 1..=BATCH {
                encode_bare(PacketType::Puback, PacketId::new(id).unwrap(), &mut out);
            }
            black_box(out.len())
        });
    }
}

/// Filters of which a third each is exact, has a `+` at the front, ends in `#`; every topic matches one.
mod matching {
    use super::*;

    const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

    fn filters(count: u32) -> Filters {
        Filters::new((0..count).map(|number| match number % 3 {
            0 => format!("f/{number}/value"),
            1 => format!("+/{number}/value"),
            _ => format!("f/{number}/#"),
        }))
    }

    /// Asks for `topics` in turn, a batch in each round. All were asked for before.
    fn known(bencher: Bencher<'_, '_>, mut filters: Filters, topics: &[String]) {
        for topic in topics {
            assert_eq!(filters.matching(topic), 1);
        }
        let mut turn = topics.iter().cycle();
        bencher
            .counter(ItemsCount::new(BATCH))
            .bench_local(|| -> usize {
                let batch = turn.by_ref().take(usize::from(BATCH));
                batch.map(|topic| filters.matching(topic)).sum()
            });
    }

    #[divan::bench(args = SIZES)]
    fn one_topic_again(bencher: Bencher<'_, '_>, count: u32) {
        known(bencher, filters(count), &["f/2/value".to_owned()]);
    }

    /// In an order that no cache of the processor foresees. 100,000 are more than the broker's cache holds.
    #[divan::bench(args = SIZES)]
    fn every_topic(bencher: Bencher<'_, '_>, count: u32) {
        let topics: Vec<String> = (0..count)
            .map(|number| u64::from(number) * 7_919 % u64::from(count))
            .map(|number| format!("f/{number}/value"))
            .collect();
        known(bencher, filters(count), &topics);
    }

    /// Topics that nobody asked for before: the tree is walked.
    #[divan::bench(args = SIZES)]
    fn new_topics(bencher: Bencher<'_, '_>, count: u32) {
        let mut filters = filters(count);
        let mut made = 0_u64;
        bencher
            .counter(ItemsCount::new(BATCH))
            .with_inputs(|| {
                made += 1;
                let topic = |number| format!("f/2/new/{made}/{number}");
                (0..BATCH).map(topic).collect::<Vec<String>>()
            })
            .bench_local_refs(|topics| -> usize {
                topics.iter().map(|topic| filters.matching(topic)).sum()
            });
    }
}

mod route {
    use super::*;

    fn rounds(bencher: Bencher<'_, '_>, receivers: usize, qos: QoS, payload_bytes: usize) {
        let mut routing = Routing::new(receivers, qos, payload_bytes, BATCH);
        bencher
            .counter(ItemsCount::new(usize::from(BATCH) * receivers))
            .bench_local(|| routing.round());
    }

    #[divan::bench(args = [1, 10, 500])]
    fn qos0_16_bytes(bencher: Bencher<'_, '_>, receivers: usize) {
        rounds(bencher, receivers, QoS::AtMostOnce, 16);
    }

    #[divan::bench(args = [1, 10])]
    fn qos0_1_kib(bencher: Bencher<'_, '_>, receivers: usize) {
        rounds(bencher, receivers, QoS::AtMostOnce, 1024);
    }

    /// The receivers' acknowledgements included.
    #[divan::bench(args = [1, 10])]
    fn qos1_16_bytes(bencher: Bencher<'_, '_>, receivers: usize) {
        rounds(bencher, receivers, QoS::AtLeastOnce, 16);
    }
}
