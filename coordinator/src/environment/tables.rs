//! Case tables of needs: the order that follows from them, what cannot be, what takes the place of what is missing, and the
//! way back. The tests of this crate run them, and the list of promises counts them.

use sluice_common::digest::Digest;
use sluice_common::order::Installed;
use sluice_common::selector::Labels;

use super::blocker::Blocker;
use super::next::{Action, next};
use super::spec::Environment;
use super::state::State;
use super::view::{AppView, Attempt, HostView, View};
use crate::rollout::tables::{Case, Table, table};

/// Runs every table.
pub fn run() -> Vec<Table> {
    let tables = [
        ("the order of needs", order()),
        ("needs that cannot be met", refused()),
        ("optional needs and what takes their place", optional()),
        ("the way back", back()),
    ];
    tables.into_iter().map(|(name, cases)| table(name, cases)).collect()
}

/// Writes a file of applications, each a name and the lines of its table.
fn file(apps: &[(&str, &str)]) -> String {
    let app = |(name, lines): &(&str, &str)| {
        format!("[applications.{name}]\nrelease = \"2\"\nselector = \"*\"\n{lines}\n")
    };
    format!("environment = \"e\"\n{}", apps.iter().map(app).collect::<String>())
}

/// Reads `b>a,c c! d`: b needs a and c, c is atomic.
fn sketch(text: &str) -> String {
    let app = |word: &str| {
        let (head, needs) = word.split_once('>').unwrap_or((word, ""));
        let name = head.trim_end_matches('!');
        let needs: Vec<String> = needs
            .split(',')
            .filter(|need| !need.is_empty())
            .map(|need| format!("{{ app = \"{need}\" }}"))
            .collect();
        let lines = format!("atomic = {}\nneeds = [{}]", head != name, needs.join(", "));
        file(&[(name, &lines)]).replace("environment = \"e\"\n", "")
    };
    format!("environment = \"e\"\n{}", text.split_whitespace().map(app).collect::<String>())
}

/// Says in which order applications come, or why in none. What hints at a remedy is left out.
fn ordered(file: &str) -> String {
    match Environment::parse(file) {
        Ok(environment) => {
            let unit = |unit: &Vec<_>| unit.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
            environment.units().iter().map(unit).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string().split(';').next().unwrap_or_default().to_owned(),
    }
}

fn order() -> Vec<Case> {
    let cases = [
        ("c a b", "a b c"),
        ("a>b b>c c", "c b a"),
        ("a>b,c b>d c>d d", "d b c a"),
        ("a b>a c>a d>b,c e>d", "a b c d e"),
        ("b>a a d>c c", "a b c d"),
        // A cycle in which all say so is one.
        ("a!>b b!>a", "a+b"),
        ("a!>b b!>c c!>a", "a+b+c"),
        ("z>b b!>c c!>b,a a", "a b+c z"),
        ("a!>b b!>c c", "c a+b"),
        ("a! b!", "a b"),
        ("a!>b b!>a c!>d d!>c,a", "a+b+c+d"),
        // Any other is an error that names its edges.
        ("a>a", "applications.a.needs: a needs a: a cycle has no first"),
        ("a!>a", "applications.a.needs: a needs a: a cycle has no first"),
        ("a>b b>a", "applications.a.needs: a needs b, b needs a: a cycle has no first"),
        ("a!>b b>a", "applications.a.needs: a needs b, b needs a: a cycle has no first"),
        ("a>b b>c c>d d>b", "applications.b.needs: b needs c, c needs d, d needs b: a cycle has no first"),
        ("a!>b b!>c c>a", "applications.b.needs: b needs c, c needs a: a cycle has no first"),
    ];
    let drawn = cases
        .into_iter()
        .map(|(text, expected)| (text.to_owned(), ordered(&sketch(text)), expected.to_owned()));
    let configured = [("a", "configuration = [\"b\"]"), ("b", "")];
    let configures = [("a", "configuration = [\"b\"]"), ("b", "needs = [{ app = \"a\" }]")];
    let cycle = "applications.a.needs: a is configured by b, b needs a: a cycle has no first";
    drawn
        .chain([
            ("configuration comes first".to_owned(), ordered(&file(&configured)), "b a".to_owned()),
            ("configuration in a cycle".to_owned(), ordered(&file(&configures)), cycle.to_owned()),
        ])
        .collect()
}

fn refused() -> Vec<Case> {
    let db = ("db", "provides = [\"1\", \"2\"]");
    let cases: [(&str, &str); 8] = [
        (r#"needs = [{ app = "db", contract = "2" }]"#, "db web"),
        (
            r#"needs = [{ app = "db", contract = "3" }]"#,
            "applications.web.needs[0].contract: is 3, and db 2 provides 1, 2",
        ),
        (r#"needs = [{ app = "mq" }]"#, "applications.web.needs[0].app: mq is not in the file"),
        (
            r#"needs = [{ app = "mq", optional = true }]"#,
            "applications.web.needs[0].fallback: is missing, though mq is optional",
        ),
        (
            r#"needs = [{ app = "db", fallback = "none" }]"#,
            "applications.web.needs[0].fallback: goes with optional = true",
        ),
        (
            r#"needs = [{ app = "mq", optional = true, fallback = { app = "db" }, contract = "3" }]"#,
            "applications.web.needs[0].fallback.app: is 3, and db 2 provides 1, 2",
        ),
        (
            r#"needs = [{ app = "mq", optional = true, fallback = { app = "file" } }]"#,
            "applications.web.needs[0].fallback.app: file is not in the file",
        ),
        (r#"configuration = ["settings"]"#, "applications.web.configuration[0]: settings is not in the file"),
    ];
    let case = |(lines, expected): (&str, &str)| {
        (lines.to_owned(), ordered(&file(&[db, ("web", lines)])), expected.to_owned())
    };
    cases.into_iter().map(case).collect()
}

const SEARCH: &str = r#"needs = [{ app = "search", optional = true, fallback = "lists by name" }]"#;
const MAIL: &str = r#"needs = [{ app = "mail", optional = true, fallback = { app = "queue" } }]"#;

fn optional() -> Vec<Case> {
    let with = |lines: &str, others: &[&str]| {
        let others = others.iter().map(|name| (*name, ""));
        let apps: Vec<(&str, &str)> = [("web", lines)].into_iter().chain(others).collect();
        file(&apps)
    };
    let search = with(SEARCH, &["search"]);
    let mail = with(MAIL, &["mail", "queue"]);
    let cases = [
        ("not in the file", with(SEARCH, &[]), "", "start web"),
        ("no host is for it", search.clone(), "search=vacant", "start web"),
        ("it can come", search.clone(), "", "start search; web waits"),
        ("it comes", search.clone(), "search=running", "web waits"),
        ("it stands", search.clone(), "search=stands", "start web"),
        ("it failed", search, "search=failed", "start web"),
        ("another takes its place", with(MAIL, &["queue"]), "", "start queue; web waits"),
        ("which stands", with(MAIL, &["queue"]), "queue=stands", "start web"),
        ("which failed", with(MAIL, &["queue"]), "queue=failed", "enter stopped; web waits"),
        ("which no host is for", with(MAIL, &["queue"]), "queue=vacant", "web waits"),
        ("the preferred one stands", mail.clone(), "mail=stands queue=running", "start web"),
        ("the preferred one failed", mail.clone(), "mail=failed queue=running", "web waits"),
        ("the preferred one failed, the other stands", mail, "mail=failed queue=stands", "start web"),
    ];
    cases
        .map(|(name, file, view, expected)| (name.to_owned(), step(&file, view), expected.to_owned()))
        .to_vec()
}

fn back() -> Vec<Case> {
    let cases = [
        ("a b>a c>b", "a=stands b=stands c=stands", "take back c; a waits; b waits"),
        ("a b>a c>b", "a=stands b=stands c=failed", "take back b; a waits"),
        ("a b>a c>a", "a=stands b=stands c=running", "take back c; take back b; a waits"),
        ("a!>b b!>a c", "a=stands b=stands", "take back a; take back b"),
        ("a b>a", "", "enter rolled-back"),
    ];
    let going = State::RollingBack { reason: "slow".to_owned() };
    let case = |(text, view, expected): (&str, &str, &str)| {
        (format!("{text}: {view}"), step_of(&sketch(text), view, &going), expected.to_owned())
    };
    cases.map(case).to_vec()
}

fn step(file: &str, view: &str) -> String {
    step_of(file, view, &State::Applying)
}

/// Says what is done next, in short words. `view` says what is not merely due, such as `a=stands b=failed`.
fn step_of(file: &str, view: &str, state: &State) -> String {
    let environment = match Environment::parse(file) {
        Ok(environment) => environment,
        Err(error) => return error.to_string(),
    };
    let said = |app: &str| view.split_whitespace().find_map(|word| word.strip_prefix(app)?.strip_prefix('='));
    let apps = environment.applications().keys().enumerate();
    let view: View = apps.map(|(number, app)| (app.clone(), app_view(number, said(app.as_str())))).collect();
    let step = next(&environment, None, state, &view);
    let rollouts: Vec<(String, String)> = view
        .iter()
        .flat_map(|(app, seen)| seen.attempts.iter().map(|a| (a.rollout.to_string(), app.to_string())))
        .collect();
    let mut words: Vec<String> = Vec::new();
    for action in step.actions {
        words.push(match action {
            Action::Start { app, .. } => format!("start {app}"),
            Action::Settle { app } => format!("settle {app}"),
            Action::Enter(state) => format!("enter {state}"),
            Action::TakeBack { rollout, .. } => {
                let of = rollouts.iter().find(|(id, _)| *id == rollout.to_string());
                format!("take back {}", of.map_or("nothing", |(_, app)| app))
            }
        });
    }
    // What an application under way, lost or vacant waits for is no news.
    let is_applying = matches!(state, State::Applying);
    let is_own = |blocker: &Blocker| !is_applying || said(blocker.app.as_str()).is_none();
    let mut waits: Vec<String> = step
        .blockers
        .iter()
        .filter(|blocker| is_own(blocker))
        .map(|blocker| format!("{} waits", blocker.app))
        .collect();
    waits.sort();
    waits.dedup();
    words.extend(waits);
    words.join("; ")
}

fn app_view(number: usize, said: Option<&str>) -> AppView {
    let is_vacant = said == Some("vacant");
    let stands = said == Some("stands");
    let state = match said {
        Some("stands") => Some(crate::rollout::State::Succeeded),
        Some("running") => Some(crate::rollout::State::Running),
        Some("failed") => Some(crate::rollout::State::Failed { reason: "503".to_owned() }),
        _ => None,
    };
    let attempt = |state| Attempt {
        rollout: format!("r{number}").parse().expect("a name"),
        part: None,
        is_addition: false,
        state,
    };
    AppView {
        is_released: true,
        hosts: if is_vacant { Vec::new() } else { vec![host(stands)] },
        attempts: state.map(attempt).into_iter().collect(),
        has_stood: stands,
        ..AppView::default()
    }
}

fn host(runs: bool) -> HostView {
    let package = Digest::of(b"2");
    HostView {
        name: "h1".parse().expect("a name"),
        site: "berlin".parse().expect("a name"),
        labels: Labels::new(),
        platform: Some("linux-x86_64".parse().expect("a platform")),
        is_reachable: true,
        package: Some(package),
        running: runs.then(|| Installed { package, version: "2".parse().expect("a version") }),
        healthy: Some(true),
        is_settled: runs,
        was_tried: false,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_comes_out_as_it_must() {
        let tables = super::run();
        let wrong: Vec<_> = tables.iter().flat_map(|table| &table.wrong).collect();
        assert_eq!(wrong, Vec::<&String>::new());
        assert!(tables.iter().map(|table| table.cases).sum::<usize>() > 40, "{tables:?}");
    }
}
