//! The files around the program: the man page, the completions and the README's flags are made from the flags,
//! and versions and descriptions are those of Cargo.toml.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::{Arg, CommandFactory as _, ValueHint};
use clap_complete::{Shell, generate};
use roff::{Roff, bold, italic, roman};
use wsecho::cli::Config;

use crate::support::has_programs;

const VERSION: &str = env!("CARGO_PKG_VERSION");

const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn packaging(file: &str) -> PathBuf {
    path("packaging").join(file)
}

pub fn read(file: &str) -> String {
    fs::read_to_string(path(file)).expect(file)
}

/// The flags as the program reads them, in the order of its help.
fn command() -> clap::Command {
    // No file is offered where none belongs.
    let hint = |flag: Arg| match (flag.get_action().takes_values(), flag.get_value_hint()) {
        (true, ValueHint::Unknown) => flag.value_hint(ValueHint::Other),
        _ => flag,
    };
    let mut command = Config::command().mut_args(hint);
    command.build();
    command
}

/// Fails unless the file has `content` between `open` and `close`.
#[track_caller]
pub fn assert_has_between(file: &str, open: &str, close: &str, content: &str) {
    let text = read(file);
    let (before, _, after) = cut(&text, open, close);
    assert_is_current(file, &format!("{before}{content}{after}"));
}

/// What is before and with `open`, between it and `close`, and from there on.
pub fn cut<'t>(text: &'t str, open: &str, close: &str) -> (&'t str, &'t str, &'t str) {
    let start = text.find(open).unwrap_or_else(|| panic!("no {open}")) + open.len();
    let len = text[start..].find(close).unwrap_or_else(|| panic!("no {close} behind {open}"));
    (&text[..start], &text[start..start + len], &text[start + len..])
}

/// Fails unless the file has this text. With `RENEW` in the environment it is written.
#[track_caller]
fn assert_is_current(file: &str, text: &str) {
    let path = path(file);
    let is_current = fs::read_to_string(&path).is_ok_and(|present| present == text);
    if !is_current && std::env::var_os("RENEW").is_some() {
        // At once, since other tests read it.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        return fs::rename(new, path).unwrap();
    }
    assert!(
        is_current,
        "{file} is behind what it is made from: run\n    \
         RENEW=1 cargo test --test it -- app::made packaging::"
    );
}

fn run(program: &str, args: &[&str], path: &Path) -> Output {
    Command::new(program).args(args).arg(path).output().unwrap()
}

// The man page

#[test]
fn the_man_page_has_the_present_flags_and_version() {
    let page = read("packaging/wsecho.1");
    let (_, from_name) = page.split_once(".SH NAME\n").unwrap();
    let (before, rest) = from_name.split_once(".SH OPTIONS\n").unwrap();
    let (_, after) = rest.split_once(".SH SIGNALS\n").unwrap();
    let title = format!(".TH WSECHO 1 {} \"wsecho {VERSION}\" \"User Commands\"", released());
    let options = options();
    assert_is_current(
        "packaging/wsecho.1",
        &format!("{title}\n.SH NAME\n{before}.SH OPTIONS\n{options}.SH SIGNALS\n{after}"),
    );
}

/// When this version was released, as the change log says.
fn released() -> String {
    let log = include_str!("../../CHANGELOG.md");
    let heading = format!("## {VERSION} (");
    let date = log.lines().find_map(|line| line.strip_prefix(&heading)?.strip_suffix(')'));
    date.expect("CHANGELOG.md has this version and its date").into()
}

/// Each group of flags as a subsection.
fn options() -> String {
    let command = command();
    let mut headings = Vec::new();
    for heading in command.get_arguments().map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    // Help and version have none.
    headings.sort_by_key(Option::is_none);
    let mut page = Roff::new();
    for heading in headings {
        page.control("SS", [heading.unwrap_or("Other")]);
        for flag in command.get_arguments().filter(|flag| flag.get_help_heading() == heading) {
            describe(flag, &mut page);
        }
    }
    page.to_roff().replace('\'', r"\(aq").replace('“', r"\(lq").replace('”', r"\(rq")
}

fn describe(flag: &Arg, page: &mut Roff) {
    let names = [
        flag.get_short().map(|short| format!("-{short}")),
        flag.get_long().map(|long| format!("--{long}")),
    ];
    let mut line = Vec::new();
    for name in names.into_iter().flatten() {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.push(bold(name));
    }
    let takes_values = flag.get_action().takes_values();
    for name in flag.get_value_names().unwrap_or_default().iter().filter(|_| takes_values) {
        line.extend([roman(" "), italic(name.as_str())]);
    }
    page.control("TP", []).text(line);

    // The first paragraph is for -h, where a flag has one line.
    let help = flag.get_long_help().or(flag.get_help()).unwrap_or_default().to_string();
    let details = help.split_once("\n\n").map_or(&*help, |(_, details)| details);
    let mut sentences = vec![details.trim_end_matches('.').to_owned() + "."];
    let defaults: Vec<_> = flag.get_default_values().iter().map(|text| text.display()).collect();
    if let ([default], true) = (&defaults[..], takes_values) {
        sentences.push(format!("The default is “{default}”."));
    }
    // Short lines, since they become longer when they are escaped.
    let mut line = String::new();
    for word in sentences.join(" ").split(' ') {
        if line.len() + word.len() > 60 {
            page.text([roman(line.trim_end())]);
            line.clear();
        }
        line += word;
        line.push(' ');
    }
    page.text([roman(line.trim_end())]);
}

#[test]
fn the_man_page_names_each_flag_once_and_only_flags_that_there_are() {
    let page = read("packaging/wsecho.1");
    let page = page.replace(r"\-", "-").replace(r"\fB", "");
    let longs: BTreeSet<_> = command()
        .get_arguments()
        .map(|flag| format!("--{}", flag.get_long().expect("each has a long name")))
        .collect();
    let words = page.split(|char: char| !char.is_ascii_alphanumeric() && char != '-');
    let named: BTreeSet<_> = words.filter(|word| word.starts_with("--")).map(Into::into).collect();
    assert_eq!(named, longs);
}

#[test]
fn the_man_page_is_rendered_without_a_warning() {
    let page = packaging("wsecho.1");
    if has_programs(&["groff"]) {
        let output = run("groff", &["-ww", "-man", "-Tutf8", "-z"], &page);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    if has_programs(&["mandoc"]) {
        let output = run("mandoc", &["-T", "lint", "-W", "style"], &page);
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && found.is_empty(), "{found}");
    }
}

// The README

#[test]
fn the_readme_has_the_short_help() {
    let help = command().term_width(80).render_help().to_string();
    assert_has_between("README.md", "details of each flag:\n\n```text\n", "```", &help);
}

/// The README is a part of the crate.
#[test]
fn the_readme_links_to_files_that_the_crate_has() {
    let list = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--quiet"])
        .current_dir(path(""))
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let files: BTreeSet<_> = list.lines().collect();
    let readme = read("README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let links: BTreeSet<_> = links.collect();
    assert!(links.contains("static/screenshot.png") && links.contains("docs/releasing.md"));
    let missing: Vec<_> = links.difference(&files).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

// Versions and descriptions

#[test]
fn the_version_is_that_of_cargo_toml_everywhere() {
    let heading = format!("# Changelog\n\n## {VERSION} (");
    assert!(read("CHANGELOG.md").starts_with(&heading), "the change log begins with {VERSION}");
    let first = format!("wsecho ({VERSION}-1) ");
    assert!(read("packaging/debian/changelog").starts_with(&first), "and Debian's");
    for lock in ["Cargo.lock", "benches/Cargo.lock", "fuzz/Cargo.lock"] {
        let package = format!("name = \"wsecho\"\nversion = \"{VERSION}\"\n");
        assert!(read(lock).contains(&package), "{lock}: run cargo check in its folder");
    }
    // The names of files, images and tags in guides.
    let kustomization = "packaging/kubernetes/kustomization.yaml";
    for guide in ["README.md", "docs/install.md", "docs/releasing.md", kustomization] {
        let text = read(guide);
        for name in ["wsecho-0.", "wsecho_0.", "wsecho:0.", " v0."] {
            for rest in text.split(name).skip(1) {
                assert!(format!("0.{rest}").starts_with(VERSION), "{guide}: {name}{rest}");
            }
        }
    }
    // These take it from Cargo.toml when they are built.
    assert!(read("packaging/python/pyproject.toml").contains("\ndynamic = [\"version\", "));
    assert!(!read("packaging/npm/package.json").contains("\"version\""));
}

#[test]
fn the_description_is_that_of_cargo_toml_everywhere() {
    assert_eq!(command().get_about().unwrap().to_string(), DESCRIPTION);
    for file in [
        "README.md",
        "packaging/npm/README.md",
        "packaging/python/README.md",
        "packaging/wsecho.1",
        "packaging/Containerfile",
    ] {
        assert!(read(file).contains(DESCRIPTION), "{file}");
    }
    // The Debian package, the wheel and the npm packages take it from Cargo.toml.
    assert!(!read("packaging/python/pyproject.toml").contains("\ndescription"));
    assert!(!read("packaging/npm/package.json").contains("\"description\""));
}

// The completions

#[test]
fn the_completions_have_the_present_flags() {
    for (shell, file) in [
        (Shell::Bash, "packaging/completions/wsecho.bash"),
        (Shell::Zsh, "packaging/completions/_wsecho"),
        (Shell::Fish, "packaging/completions/wsecho.fish"),
    ] {
        let mut command = command();
        if shell == Shell::Zsh {
            // clap_complete leaves a colon as it is, and what follows it would be run as a command.
            command = command.mut_args(|flag| match flag.get_id() == "addr" {
                true => flag.value_name(r"HOST\:PORT"),
                false => flag,
            });
        }
        let mut script = Vec::new();
        generate(shell, &mut command, "wsecho", &mut script);
        let mut script = String::from_utf8(script).unwrap();
        if shell == Shell::Bash {
            // To bash, --flag=value is three words, and clap_complete expects two.
            let prev = "    prev=\"$3\"\n";
            assert_eq!(script.matches(prev).count(), 1);
            script = script.replace(
                prev,
                &format!(
                    "{prev}    if [[ \"${{prev}}\" == \"=\" ]]; then\n        \
                     prev=\"${{COMP_WORDS[COMP_CWORD-2]}}\"\n    fi\n"
                ),
            );
        }
        assert_is_current(file, &script);
    }
}

#[test]
fn bash_and_fish_complete_flags_and_their_values() {
    for (typed, expected) in [
        ("--max-c", &["--max-connections", "--max-connections-per-ip"][..]),
        ("--compression c", &["context-takeover"]),
        ("--compression=n", &["no-context-takeover"]),
        ("--behaviors=", &["off", "on"]),
        ("--tls-cert tls/e", &["tls/ec.crt", "tls/ec.key"]),
    ] {
        // The words as bash splits them. The last one is empty behind a = that is typed last.
        let words = typed.replace('=', " = ");
        let in_bash = format!(
            r#"compopt() {{ :; }}; source ../packaging/completions/wsecho.bash; COMP_WORDS=(wsecho {words})
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); cur=${{COMP_WORDS[-1]}}
            _wsecho wsecho "${{cur#=}}" "${{COMP_WORDS[-2]}}"; printf '%s\n' "${{COMPREPLY[@]}}""#
        );
        let in_fish = format!(
            "source ../packaging/completions/wsecho.fish; complete -C 'wsecho {typed}' | \
             string replace -r '^--[a-z]+=' ''"
        );
        for (shell, script) in [("bash", &in_bash), ("fish", &in_fish)] {
            if has_programs(&[shell]) {
                let mut completed = lines(shell, script);
                completed.sort_unstable();
                assert_eq!(completed, expected, "{shell}, {typed}");
            }
        }
    }
}

/// In a terminal zsh completes by the specifications that it is given for the flags.
#[test]
fn zsh_has_a_well_formed_specification_of_each_flag() {
    if !has_programs(&["zsh"]) {
        return;
    }
    let script = "compdef() { :; }; source ../packaging/completions/_wsecho; \
                  _arguments() { print -rl -- ${(M)@:#*--*\\[*}; }; _wsecho";
    let mut flags = BTreeSet::new();
    for specification in lines("zsh", script) {
        let (flag, rest) = specification.split_once('[').unwrap();
        flags.insert(flag.trim_matches(['*', '=']).to_owned());
        let rest = rest.replace(r"\]", "").replace(r"\:", "");
        let (_, value) = rest.split_once(']').unwrap();
        // Two colons come before a value that may be left out.
        let value = value.strip_prefix(':').filter(|rest| rest.starts_with(':')).unwrap_or(value);
        let action = value.rsplit_once(':').map_or("", |(_, action)| action);
        assert!(matches!(value.matches(':').count(), 0 | 2), "{specification}");
        assert!(matches!(action, "" | "_files") || action.starts_with('('), "{specification}");
    }
    let longs = command()
        .get_arguments()
        .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
        .collect();
    assert_eq!(flags, longs);
}

/// The first word of each line that a script of this shell writes.
fn lines(shell: &str, script: &str) -> Vec<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(shell).args(["-c", script]).current_dir(tests).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap_or_default().into()).collect()
}
