//! Files that are right, and what is said of those that are not.

use super::*;

const WHOLE: &str = r#"
environment = "shop"
on_failure = "rollback"

[rollout]
bake = "1m"
windows = ["mon-fri 20:00-23:00 Europe/Berlin"]

[sites.lisbon]
windows = ["daily 02:00-05:00 Europe/Lisbon"]

[applications.catalogue]
release = "7"
selector = "role=data"
provides = ["1", "2"]
rollout = { strategy = "rolling", batch = "1" }

[applications.shop]
release = "1.2.0"
selector = "role=web"
sites = ["berlin", "lisbon"]
configuration = ["shop-config"]
needs = [
  { app = "catalogue", contract = "2" },
  { app = "search", optional = true, fallback = "lists by name" },
]

[applications.shop-config]
release = "2026-11-21"
selector = "role=web"
"#;

fn error_of(text: &str) -> String {
    Environment::parse(text).unwrap_err().to_string()
}

fn order_of(environment: &Environment) -> String {
    environment.units().iter().map(list).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_file_is_read_whole() {
    let environment = Environment::parse(WHOLE).unwrap();
    assert_eq!(order_of(&environment), "catalogue shop-config shop");
    let shop = "shop".parse().unwrap();
    let lisbon = "lisbon".parse().unwrap();
    let selector = environment.selector(&shop).unwrap().to_string();
    assert_eq!(selector, "role=web,site in (berlin,lisbon)");
    let first = environment.spec(&shop, None, &[]).unwrap();
    assert_eq!(first.selector.to_string(), "role=web,site in (berlin,lisbon),site!=lisbon");
    assert_eq!(first.calendar.windows[0].to_string(), "mon-fri 20:00-23:00 Europe/Berlin");
    let second = environment.spec(&shop, Some(&lisbon), &["w9".parse().unwrap()]).unwrap();
    assert_eq!(second.selector.to_string(), "role=web,site in (berlin,lisbon),site=lisbon,host=w9");
    assert_eq!(second.calendar.windows[0].to_string(), "daily 02:00-05:00 Europe/Lisbon");
    assert_eq!(environment.part(&lisbon), Some(&lisbon));
    assert_eq!(environment.part(&"berlin".parse().unwrap()), None);
}

#[test]
fn what_is_written_again_says_the_same() {
    let environment = Environment::parse(WHOLE).unwrap();
    let text = toml::to_string(environment.file()).unwrap();
    assert_eq!(Environment::parse(&text).unwrap(), environment, "{text}");
}

#[test]
fn mistakes_name_the_field_and_what_to_write() {
    let app = |name: &str, body: &str| {
        format!("[applications.{name}]\nrelease = \"1\"\nselector = \"*\"\n{body}\n")
    };
    let file = |apps: &[String]| format!("environment = \"e\"\n{}", apps.concat());
    for (name, text, expected) in [
        ("unknown field", "environment = \"e\"\nowner = \"x\"".to_owned(), "unknown field `owner`"),
        ("no application", "environment = \"e\"\n[applications]".to_owned(), "applications: is empty"),
        ("name", file(&[app("a", "")]).replace("\"e\"", "\"E e\""), "environment name \"E e\" is not valid"),
        (
            "no selection",
            file(&[app("a", "")]).replace("selector = \"*\"", ""),
            "applications.a.selector: is missing",
        ),
        ("selector", file(&[app("a", "")]).replace("*", "role="), "line 4"),
        (
            "unknown application",
            file(&[app("a", "needs = [{ app = \"b\" }]")]),
            "applications.a.needs[0].app: b is not in the file; add [applications.b], or make it optional",
        ),
        (
            "no fallback",
            file(&[app("a", "needs = [{ app = \"b\", optional = true }]")]),
            "needs[0].fallback: is missing",
        ),
        (
            "fallback of what is required",
            file(&[app("a", "needs = [{ app = \"a\", fallback = \"x\" }]")]),
            "needs[0].fallback: goes with optional",
        ),
        (
            "contract mismatch",
            file(&[app("a", "needs = [{ app = \"b\", contract = \"2\" }]"), app("b", "provides = [\"1\"]")]),
            "applications.a.needs[0].contract: is 2, and b 1 provides 1;",
        ),
        (
            "contract of none",
            file(&[app("a", "needs = [{ app = \"b\", contract = \"2\" }]"), app("b", "")]),
            "provides none",
        ),
        (
            "unknown fallback",
            file(&[app("a", "needs = [{ app = \"b\", optional = true, fallback = { app = \"c\" } }]")]),
            "needs[0].fallback.app: c is not in the file",
        ),
        (
            "unknown configuration",
            file(&[app("a", "configuration = [\"c\"]")]),
            "applications.a.configuration[0]: c is not in the file",
        ),
        (
            "cycle",
            file(&[app("a", "needs = [{ app = \"b\" }]"), app("b", "needs = [{ app = \"a\" }]")]),
            "applications.a.needs: a needs b, b needs a: a cycle",
        ),
        (
            "strategy",
            file(&[app("a", "rollout = { strategy = \"rolling\", canary = \"1\" }")]),
            "applications.a.rollout.canary: does not go with",
        ),
        (
            "defaults",
            format!("{}\n[rollout]\nhost_deadline = \"1s\"", file(&[app("a", "")])),
            "rollout.host_deadline: is 1s",
        ),
        ("window", file(&[app("a", "rollout = { windows = [\"whenever\"] }")]), "whenever"),
    ] {
        let error = error_of(&text);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn an_optional_need_that_is_missing_has_its_fallback() {
    let text = "environment = \"e\"\n[applications.a]\nrelease = \"1\"\nselector = \"*\"\n\
        needs = [{ app = \"search\", optional = true, contract = \"1\", fallback = { app = \"stub\" } }]\n\
        [applications.stub]\nrelease = \"1\"\nselector = \"*\"\nprovides = [\"1\"]\n";
    let environment = Environment::parse(text).unwrap();
    assert_eq!(order_of(&environment), "stub a");
    let edge = &environment.edges()[0];
    assert_eq!((edge.to_string().as_str(), edge.optional), ("a needs stub in place of search", false));
    // Where the application is there, it is waited for, and its substitute only where that comes to nobody.
    let with =
        format!("{text}[applications.search]\nrelease = \"1\"\nselector = \"*\"\nprovides = [\"1\"]\n");
    let environment = Environment::parse(&with).unwrap();
    assert_eq!(order_of(&environment), "search stub a");
    assert!(environment.edges().iter().all(|edge| edge.optional));
}

#[test]
fn what_dependents_need_in_service_is_a_floor() {
    let text = WHOLE.replace("contract = \"2\" }", "contract = \"2\", min_healthy = 2 }");
    let text =
        text.replace("batch = \"1\" }", "batch = \"1\", min_healthy = \"60%\", first_site_bake = \"10m\" }");
    let environment = Environment::parse(&text).unwrap();
    let spec = environment.spec(&"catalogue".parse().unwrap(), None, &[]).unwrap();
    let floors: Vec<(Option<String>, String)> = spec
        .floors
        .iter()
        .map(|floor| (floor.by.as_ref().map(ToString::to_string), floor.min_healthy.to_string()))
        .collect();
    assert_eq!(floors, [(None, "60%".to_owned()), (Some("shop".to_owned()), "2".to_owned())]);
    assert_eq!(spec.first_site_bake, Some(std::time::Duration::from_secs(600)));
    assert!(environment.spec(&"shop".parse().unwrap(), None, &[]).unwrap().floors.is_empty());
    let again = toml::to_string(environment.file()).unwrap();
    assert_eq!(Environment::parse(&again).unwrap(), environment, "{again}");
    let none = text.replace("min_healthy = 2", "min_healthy = 0");
    assert!(
        error_of(&none).starts_with("applications.shop.needs[0].min_healthy: is 0; it must be at least 1")
    );
}

#[test]
fn a_fallback_is_a_line_that_hooks_can_be_told() {
    for words in ["", "two\\nlines", "nul\\u0000"] {
        let error = error_of(&WHOLE.replace("lists by name", words));
        assert!(error.starts_with("applications.shop.needs[1].fallback: is told to hooks"), "{error}");
    }
}

#[test]
fn the_example_of_the_reference_is_right() {
    let text = include_str!("../../../../docs/fleet-toml.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let environment = Environment::parse(example).unwrap();
    assert_eq!(order_of(&environment), "mail-queue orders-db shop-settings users-api shop");
    let shop = "shop".parse().unwrap();
    let spec = environment.spec(&shop, Some(&"lisbon".parse().unwrap()), &[]).unwrap();
    assert_eq!((spec.approvals, spec.checks.len(), spec.calendar.freezes.len()), (1, 1, 1));
}
