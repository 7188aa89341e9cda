//! The Autobahn cases: which there are, how they are played and how they are judged.

mod client;

use std::fmt::Write as _;
use std::time::Duration;

use client::{Client, Flaw, State};
use wsecho::app::cases::case::{Behavior, CloseBehavior, Id};
use wsecho::app::cases::results;
use wsecho::app::connection::Service;

use crate::driver::{self, Driver};

/// Plays a case to a client, and returns the verdict.
fn play(service: &Service, id: Id, flaw: Flaw) -> (Behavior, CloseBehavior) {
    let mut driver = Driver::new(service);
    let target = format!("/runCase?casetuple={id}&agent=client");
    driver.receive(driver::upgrade(&target, "").as_bytes());
    driver.forget_response();
    let mut client = Client::new(flaw);
    while driver.ended.is_none() {
        client.receive(&driver.take());
        let output = client.take_output();
        if flaw == Flaw::Late && !output.is_empty() {
            driver.wait_until(driver.now + Duration::from_secs(2));
        }
        driver.receive(&output);
        if client.state == State::Ended {
            driver.end_stream();
            break;
        }
        if output.is_empty() && driver.sent.is_empty() {
            let wait = driver.wait().expect("a case ends");
            driver.suspend_until(driver.now + wait);
        }
    }
    match service.cases.results.state("client", id) {
        Some(results::State::Judged(report)) => (report.behavior, report.close),
        _ => panic!("no verdict on {id}"),
    }
}

#[test]
fn dump() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut out = String::from("{");
    for (flaw, name) in [
        (Flaw::None, "right"),
        (Flaw::NoPong, "nopong"),
        (Flaw::EmptyPong, "emptypong"),
        (Flaw::UnaskedPong, "unaskedpong"),
        (Flaw::NoUtf8Check, "noutf8"),
        (Flaw::LateUtf8Check, "lateutf8"),
        (Flaw::WrongCode, "code1000"),
        (Flaw::DropOnError, "droponerror"),
        (Flaw::SwallowErrors, "swallow"),
        (Flaw::StrayContinuation, "straycont"),
        (Flaw::Interleaved, "interleave"),
        (Flaw::TextAsBinary, "asbinary"),
        (Flaw::EchoTwice, "twice"),
        (Flaw::EchoTruncated, "truncated"),
        (Flaw::EchoFragments, "fragecho"),
        (Flaw::Late, "late"),
        (Flaw::Silent, "silent"),
        (Flaw::CloseAtOnce, "closeatonce"),
        (Flaw::Unmasked, "unmasked"),
        (Flaw::AnyCloseCode, "anycode"),
        (Flaw::NoCloseAnswer, "noclose"),
        (Flaw::NoReservedBitsCheck, "norsv"),
        (Flaw::LongPing, "longping"),
        (Flaw::DropAtOnce, "dropatonce"),
    ] {
        write!(out, "\"w-{name}\":{{").unwrap();
        let ids: Vec<_> = service
            .cases
            .suite
            .ids()
            .iter()
            .filter(|id| !matches!(id.group(), 9 | 12 | 13))
            .collect();
        for (n, id) in ids.iter().enumerate() {
            let (b, c) = play(&service, **id, flaw);
            write!(
                out,
                "{}\"{id}\":{{\"behavior\":\"{}\",\"behaviorClose\":\"{}\",\"remoteCloseCode\":0}}",
                if n > 0 { "," } else { "" },
                b.as_str(),
                c.as_str()
            )
            .unwrap();
        }
        out += if name == "dropatonce" { "}" } else { "}," };
    }
    std::fs::write("/tmp/w/cases-rig/out/sim.json", out + "}").unwrap();
}
