//! The verdict as Markdown, as JUnit XML and as a badge.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use wsecho::app::cases::case::{Behavior, CloseBehavior, Id};
use wsecho::app::cases::results::Report;
use wsecho::app::cases::suite::{Pattern, Suite};
use wsecho::app::service::Service;

use super::client::Flaw;
use super::{empty_report, get, play_as, report};
use crate::driver::{self, Driver};
use crate::support::python_with;

/// An agent whose name is markup in every format.
const AGENT: &str = "a`|]]><b a=\"&\">'\u{FFFF}\u{202E}";
const AGENT_IN_QUERY: &str = "a%60%7C%5D%5D%3E%3Cb+a%3D%22%26%22%3E'%EF%BF%BF%E2%80%AE";

/// A service with these cases, each played to [`AGENT`].
fn played(cases: &[&str], flaw: Flaw) -> Service {
    let mut service = driver::service(1 << 24, 1 << 30);
    let patterns: Vec<_> = cases.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    service.cases.suite = Suite::select(&patterns, &[], 1).unwrap();
    for id in service.cases.suite.ids() {
        play_as(&service, *id, "x", flaw);
        service.cases.results.finish(AGENT, Report::clone(&report(&service, &id.to_string())));
    }
    service
}

/// The verdict in a format, with its status.
fn verdict(service: &Service, parameters: &str) -> String {
    get(service, &format!("/verdict?agent={AGENT_IN_QUERY}&{parameters}"))
}

#[test]
fn a_table_counts_each_group_and_names_what_failed() {
    let service = played(&["2.*", "7.9.1", "7.13.1"], Flaw::NoPong);
    assert_eq!(
        verdict(&service, "format=markdown"),
        "422 `a'|]]><b a=\"&\">'\u{FFFD}\u{FFFD}`, 13 cases: 8 FAILED, 4 OK, 1 INFORMATIONAL\n\
         \n\
         | group | passed | verdicts | failed |\n\
         |---|---|---|---|\n\
         | 2 Pings and pongs | 3 of 11 | 8 FAILED, 3 OK | 2.1, 2.2, 2.3, 2.4, 2.6, 2.9, 2.10, 2.11 |\n\
         | 7 Closing | 2 of 2 | 1 OK, 1 INFORMATIONAL |  |\n"
    );
    let service = played(&["6.6.*"], Flaw::NoUtf8Check);
    let table = verdict(&service, "format=markdown");
    assert!(table.contains("6.6.1, 6.6.3, 6.6.4, 6.6.6, 6.6.8, 6.6.10 |"), "{table}");
    let service = played(&["6.14.*", "6.13.*"], Flaw::NoUtf8Check);
    let table = verdict(&service, "format=markdown");
    assert!(table.contains(", 6.14.5 and 5 more |\n"), "{table}");
}

#[test]
fn a_badge_says_how_many_cases_it_is_about() {
    let service = played(&["2.*", "7.13.1"], Flaw::NoPong);
    assert_eq!(
        verdict(&service, "format=badge"),
        "422 {\"schemaVersion\": 1, \"label\": \"WebSocket cases\", \"message\": \"4 of 12 passed\", \
         \"color\": \"red\"}\n"
    );
    let passed = verdict(&service, "format=badge&except=2.*");
    let badge: Value = serde_json::from_str(passed.strip_prefix("200 ").unwrap()).unwrap();
    assert_eq!(
        (&badge["message"], &badge["color"]),
        (&"1 of 1 passed".into(), &"brightgreen".into())
    );
}

#[test]
fn junit_xml_has_a_suite_for_each_group_and_a_test_for_each_case() {
    let service = played(&["2.4", "2.5", "7.13.1", "12.1.1"], Flaw::NoPong);
    let case = service.cases.suite.case(Id::new(2, 4, 0)).unwrap();
    let about = format!("{}\n{}", case.description(), case.expectation());
    assert_eq!(
        verdict(&service, "format=junit&allow=UNIMPLEMENTED"),
        r#"422 <?xml version="1.0" encoding="UTF-8"?>
<testsuites name="AGENT" tests="4" failures="1" errors="0" skipped="1" time="1.000">
  <testsuite name="2 Pings and pongs" tests="2" failures="1" errors="0" skipped="0" time="1.000">
    <testcase classname="AGENT" name="2.4" time="1.000"><failure type="FAILED" message="FAILED: received []">ABOUT</failure></testcase>
    <testcase classname="AGENT" name="2.5" time="0.000"/>
  </testsuite>
  <testsuite name="7 Closing" tests="1" failures="0" errors="0" skipped="0" time="0.000">
    <testcase classname="AGENT" name="7.13.1" time="0.000"/>
  </testsuite>
  <testsuite name="12 Compressed messages" tests="1" failures="0" errors="0" skipped="1" time="0.000">
    <testcase classname="AGENT" name="12.1.1" time="0.000"><skipped message="UNIMPLEMENTED"/></testcase>
  </testsuite>
</testsuites>
"#
        .replace("AGENT", "a`|]]&gt;&lt;b a=&quot;&amp;&quot;&gt;'\u{FFFD}\u{202E}")
        .replace("ABOUT", &about)
    );
    // It is the verdict that fails, or that is not there.
    let junit = verdict(&service, "format=junit&except=2.*");
    assert!(
        junit.starts_with("422 ") && junit.contains("<failure type=\"UNIMPLEMENTED\""),
        "{junit}"
    );
    play_as(&service, service.cases.suite.ids()[0], "crashed", Flaw::None);
    let junit = get(&service, "/verdict?agent=crashed&format=junit");
    assert_eq!(
        junit.matches("<failure type=\"not run\" message=\"not run\">").count(),
        3,
        "{junit}"
    );
}

/// Prints how many tests there are in all and with which names, and the text of the first failure.
const PARSE: &str = "
import sys, xml.etree.ElementTree as tree
root = tree.fromstring(sys.stdin.buffer.read())
tests = root.findall('testsuite/testcase')
assert len(tests) == int(root.get('tests')) == sum(int(s.get('tests')) for s in root)
for kind, count in ('failure', 'failures'), ('skipped', 'skipped'):
    assert len(root.findall('testsuite/testcase/' + kind)) == int(root.get(count))
for suite in root:
    assert len(suite) == int(suite.get('tests'))
    assert len(suite.findall('testcase/failure')) == int(suite.get('failures'))
assert {test.get('classname') for test in tests} == {root.get('name')}
sys.stdout.buffer.write(f\"{len(tests)} {len({test.get('name') for test in tests})} {root.get('name')}\".encode())
";

#[test]
fn a_parser_that_we_did_not_write_reads_the_longest_junit_xml() {
    let Some(mut python) = python_with("xml.etree.ElementTree") else { return };
    let service = driver::service(1 << 24, 1 << 30);
    // The longest name, of characters that are longest in XML.
    let quotes = 100 - AGENT.chars().count();
    let agent = AGENT.to_owned() + &"\"".repeat(quotes);
    for id in service.cases.suite.ids() {
        let report = Report {
            behavior: Behavior::Failed,
            close: CloseBehavior::Unclean,
            close_result: "\"&<>".repeat(100),
            received: "\"".repeat(512),
            duration: Duration::from_secs(1000),
            ..empty_report(*id)
        };
        service.cases.results.finish(&agent, report);
    }
    let agent_in_query = AGENT_IN_QUERY.to_owned() + &"%22".repeat(quotes);
    let junit = get(&service, &format!("/verdict?agent={agent_in_query}&format=junit"));
    let xml = junit.strip_prefix("422 ").unwrap();
    assert!(xml.len() < 1 << 20, "{}", xml.len());
    let mut python =
        python.args(["-c", PARSE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let name = agent.replace('\u{FFFF}', "\u{FFFD}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("517 517 {name}"));
}

#[test]
fn each_format_has_its_media_type_and_an_unknown_one_is_refused() {
    let service = played(&["2.1"], Flaw::None);
    for (format, media_type) in [
        ("text", "text/plain; charset=utf-8"),
        ("markdown", "text/markdown; charset=utf-8"),
        ("junit", "application/xml"),
        ("badge", "application/json"),
    ] {
        let target = format!("/verdict?agent={AGENT_IN_QUERY}&format={format}");
        let mut driver = Driver::new(&service);
        driver.receive(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let response = String::from_utf8(driver.take()).unwrap();
        let line = format!("\r\nContent-Type: {media_type}\r\n");
        assert!(response.starts_with("HTTP/1.1 200 ") && response.contains(&line), "{response}");
        assert!(get(&service, &format!("/verdict?agent=y&format={format}")).starts_with("404 "));
    }
    assert_eq!(verdict(&service, "format=text"), verdict(&service, ""));
    let refused = verdict(&service, "format=html");
    assert_eq!(refused, "400 format is text, markdown, junit or badge\n");
}
