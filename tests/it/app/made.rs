//! What is made from the table of parameters, from the cases and from the pages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use wsecho::app::behavior::{PARAMETERS, Parameter};
use wsecho::app::cases::case::Case;
use wsecho::app::cases::suite::{Pattern, Suite};

use crate::packaging::{assert_has_between, cut, read};

// One test, since the policy's hashes are of the page with its list.
#[test]
fn the_pages_their_policies_and_the_guide_are_made_from_what_the_source_has() {
    assert_has_between("static/client.html", "const PARAMETERS = [\n", "];", &list());
    for name in ["client.html", "cases.html"] {
        let page = read(&format!("static/{name}"));
        let [script, style] = ["script", "style"].map(|element| {
            let (_, content, _) = cut(&page, &format!("<{element}>"), &format!("</{element}>"));
            BASE64_STANDARD.encode(Sha256::digest(content))
        });
        let open = format!("static/{name}\"),\n    script: \"sha256-");
        let hashes = format!("{script}\",\n    style: \"sha256-{style}");
        assert_has_between("src/app/page.rs", &open, "\",\n    directives", &hashes);
    }
    assert_has_between("docs/behaviors.md", "|---|---|---|\n", "\nAt most one", &rows());
}

#[test]
fn the_tables_of_the_cases_beyond_the_suite_are_made_from_the_cases() {
    for group in 14..=18 {
        let header = format!("| {group} | the server | the client | rule |\n|---|---|---|---|\n");
        assert_has_between("docs/beyond.md", &header, "\n\n", &cases(group));
    }
}

/// The parameters as JavaScript.
fn list() -> String {
    let object = |Parameter { name, effect, allowed, form, words }: &Parameter| {
        let words: Vec<_> =
            words.iter().map(|(word, effect)| format!("[{word:?}, {effect:?}]")).collect();
        format!(
            "  {{ name: {name:?}, form: {form:?}, effect: {effect:?}, allowed: {allowed:?}, words: [{}] }},\n",
            words.join(", ")
        )
    };
    PARAMETERS.iter().map(object).collect()
}

/// The parameters as rows of a table in Markdown.
fn rows() -> String {
    let mut rows = String::new();
    for Parameter { name, effect, allowed, form, words } in PARAMETERS {
        let forms: Vec<_> = form.split('/').map(|form| format!("`{name}={form}`")).collect();
        let forms = if form.is_empty() { format!("`{name}`") } else { forms.join(", ") };
        rows += &format!("| {forms} | {effect} | {allowed} |\n");
        for (word, effect) in *words {
            rows += &format!("| `{name}={word}` | {effect} | |\n");
        }
    }
    rows
}

/// The cases of a group beyond the suite as rows of a table in Markdown, without the last line end.
fn cases(group: u8) -> String {
    let row = |case: &Case| {
        // The sentence of the RFC is for /getCaseInfo; here its section is enough.
        let rule: Vec<_> = case.rule.splitn(4, ' ').take(3).collect();
        let rule = rule.join(" ");
        let expectation = case.expectation();
        let expectation = expectation.strip_suffix(case.rule).unwrap().trim_end();
        let (id, description) = (case.id, case.description());
        format!("| {id} | {description} | {expectation} | {} |", rule.trim_end_matches(':'))
    };
    let group = Pattern::parse(&format!("{group}.*")).unwrap();
    let suite = Suite::select(&[group], &[], 1000).unwrap();
    suite.cases().map(|case| row(&case)).collect::<Vec<_>>().join("\n")
}
