//! The traffic of the scenarios that are nothing but traffic.

use crate::traffic::{Pace, Shape};

pub(super) fn pair(qos: u8, payload_bytes: usize) -> Shape {
    let window = if qos == 0 { 500 } else { 100 };
    Shape {
        publishers: 1,
        receivers: 1,
        streams: 1,
        to_all: false,
        qos,
        payload_bytes,
        pace: Pace::Window {
            window,
            refill: window / 2,
        },
        topic: |stream| format!("b/{stream}"),
        filters: |receiver, _, _| vec![format!("b/{receiver}")],
        keeps_latency: false,
    }
}

/// 64 messages at a time, two such batches on their way.
pub(super) fn fan_out(receivers: usize) -> Shape {
    Shape {
        receivers,
        to_all: true,
        pace: Pace::Window {
            window: 128,
            refill: 64,
        },
        filters: |_, _, _| vec!["b/0".to_owned()],
        ..pair(0, 64)
    }
}

pub(super) fn fan_in(publishers: usize) -> Shape {
    Shape {
        publishers,
        streams: publishers,
        pace: Pace::Window {
            window: 2,
            refill: 1,
        },
        filters: |_, _, _| vec!["b/+".to_owned()],
        ..pair(0, 64)
    }
}

pub(super) fn ping(qos: u8) -> Shape {
    Shape {
        pace: Pace::Window {
            window: 1,
            refill: 1,
        },
        keeps_latency: true,
        ..pair(qos, 16)
    }
}

/// Every topic matches one filter; a third of the filters each is exact, has a `+` at the front, ends in `#`.
pub(super) fn filters(receivers: usize, streams: usize) -> Shape {
    Shape {
        receivers,
        streams,
        topic: |stream| format!("f/{stream}/value"),
        filters: |receiver, receivers, streams| {
            let filter = |stream: usize| match stream / receivers % 3 {
                0 => format!("f/{stream}/value"),
                1 => format!("+/{stream}/value"),
                _ => format!("f/{stream}/#"),
            };
            (receiver..streams).step_by(receivers).map(filter).collect()
        },
        ..pair(0, 64)
    }
}
