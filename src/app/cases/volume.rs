//! Groups 9, 12 and 13: large messages and many messages, plain and compressed.

use std::time::Duration;

use crate::app::cases::case::{Case, ExpectedClose, Id, Limit, Play, RoundTrips, Writes};
use crate::app::cases::data::Data;
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

/// The maximum number of round trips of a case, as in the suite.
pub(super) const MAX_MESSAGES: u32 = 1000;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const TEXT: Data = Data::Repeated(b"0123456789");
const BINARY: Data = Data::Repeated(b"\x00\xFE\x23\xFA\xF0");

/// No terms of the server's own: the client's offer decides.
pub(super) const PLAIN: Parameters = Parameters {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: None,
    client_max_window_bits: None,
};
const NO_TAKEOVER: Parameters = Parameters { client_no_context_takeover: true, ..PLAIN };

/// The terms of 13.1 to 13.6.
const TERMS: [Parameters; 6] = [
    PLAIN,
    NO_TAKEOVER,
    Parameters { client_max_window_bits: Some(9), ..PLAIN },
    Parameters { client_max_window_bits: Some(15), ..PLAIN },
    Parameters { client_max_window_bits: Some(9), ..NO_TAKEOVER },
    Parameters { client_max_window_bits: Some(15), ..NO_TAKEOVER },
];

/// The terms of 13.7.
const ANY_TERMS: [Parameters; 3] = [TERMS[4], TERMS[1], TERMS[0]];

/// Size, fragment and time limit in seconds of the 18 cases of each section of 12 and 13.
const COMPRESSED: [(usize, Option<usize>, u64); 18] = [
    (16, None, 60),
    (64, None, 60),
    (256, None, 120),
    (KIB, None, 240),
    (4 * KIB, None, 480),
    (8 * KIB, None, 480),
    (16 * KIB, None, 480),
    (32 * KIB, None, 480),
    (64 * KIB, None, 480),
    (128 * KIB, None, 480),
    (8 * KIB, Some(256), 480),
    (16 * KIB, Some(256), 480),
    (32 * KIB, Some(256), 480),
    (64 * KIB, Some(256), 480),
    (128 * KIB, Some(256), 480),
    (128 * KIB, Some(KIB), 480),
    (128 * KIB, Some(4 * KIB), 480),
    (128 * KIB, Some(32 * KIB), 480),
];

pub(super) fn plain() -> Vec<Case> {
    let mut cases = Vec::new();
    // Text and binary have the same cases, in sections of their own.
    for (other, kind, data) in [(0_u8, Kind::Text, TEXT), (1, Kind::Binary, BINARY)] {
        let message = |size| RoundTrips {
            kind,
            data,
            size,
            count: 1,
            fragment: None,
            writes: Writes::Together,
        };
        let mut add = |section: u8, number, trips, secs| {
            cases.push(case(Id::new(9, section + other, number), trips, secs, &[]));
        };
        let sizes = [
            (64 * KIB, 10),
            (256 * KIB, 10),
            (MIB, 100),
            (4 * MIB, 100),
            (8 * MIB, 100),
            (16 * MIB, 100),
        ];
        for (number, (size, secs)) in (1..).zip(sizes) {
            add(1, number, message(size), secs);
        }
        for (number, power) in (1..).zip((6..=22).step_by(2)) {
            add(3, number, RoundTrips { fragment: Some(1 << power), ..message(4 * MIB) }, 100);
        }
        for (number, power) in (1..).zip(6..=11) {
            add(
                5,
                number,
                RoundTrips { writes: Writes::Chopped(1 << power), ..message(MIB) },
                1000,
            );
        }
        let sizes = [(0, 60), (16, 60), (64, 60), (256, 120), (KIB, 240), (4 * KIB, 480)];
        for (number, (size, secs)) in (1..).zip(sizes) {
            add(7, number, RoundTrips { count: MAX_MESSAGES, ..message(size) }, secs);
        }
    }
    cases.sort_by_key(|case| case.id);
    cases
}

pub(super) fn compressed() -> Vec<Case> {
    [
        (Kind::Text, Data::Json),
        (Kind::Binary, Data::Picture),
        (Kind::Binary, Data::Prose),
        (Kind::Text, Data::Html),
        (Kind::Binary, Data::Document),
    ]
    .into_iter()
    .zip(1..)
    .flat_map(|((kind, data), number)| section([12, number], kind, data, &TERMS[..1]))
    .collect()
}

pub(super) fn agreements() -> Vec<Case> {
    TERMS
        .chunks(1)
        .chain([&ANY_TERMS[..]])
        .zip(1..)
        .flat_map(|(terms, number)| section([13, number], Kind::Text, Data::Json, terms))
        .collect()
}

/// The 18 cases of a section.
fn section(
    [group, section]: [u8; 2],
    kind: Kind,
    data: Data,
    terms: &'static [Parameters],
) -> impl Iterator<Item = Case> {
    (1..).zip(COMPRESSED).map(move |(number, (size, fragment, secs))| {
        let (count, writes) = (MAX_MESSAGES, Writes::Together);
        let trips = RoundTrips { kind, data, size, count, fragment, writes };
        case(Id::new(group, section, number), trips, secs, terms)
    })
}

fn case(id: Id, trips: RoundTrips, secs: u64, terms: &'static [Parameters]) -> Case {
    let limit = Limit::Close(Duration::from_secs(secs));
    let case = Case::new(id, Play::RoundTrips(trips), ExpectedClose::by_server(), limit);
    Case { terms, ..case }
}
