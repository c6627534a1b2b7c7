//! Checks against a real server on loopback, and real programs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;

use super::testing::server;
use super::*;

fn about() -> About {
    About {
        rollout: "r7".parse().unwrap(),
        app: "shop".parse().unwrap(),
        version: "1.2".parse().unwrap(),
        batch: 1,
        batches: 3,
        hosts: vec!["h1".parse().unwrap(), "h2".parse().unwrap()],
    }
}

async fn ask(commands: Option<&Path>, text: &str) -> (Outcome, String) {
    let check: Check = text.parse().unwrap();
    Checks::new(Outbound::default(), commands.map(Path::to_owned), Credentials::default())
        .probe(&check, &about())
        .await
}

#[tokio::test]
async fn a_webhook_is_told_what_it_is_about_and_its_result_is_taken() {
    use Outcome::{Fail, Inconclusive, Pass};
    let (address, _server) = server(|head, body| {
        assert!(head.starts_with("POST /gate") && head.contains("content-type: application/json"), "{head}");
        let asked: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((asked["rollout"].as_str(), asked["batch"].as_u64()), (Some("r7"), Some(2)));
        assert_eq!((asked["hosts"][1].as_str(), asked["version"].as_str()), (Some("h2"), Some("1.2")));
        let path = head.split_whitespace().nth(1).unwrap();
        match path.split_once('?').unwrap().1 {
            "pass" => (200, r#"{"result": "pass", "reason": "all\n  green"}"#.into()),
            "fail" => (200, r#"{"result": "fail"}"#.into()),
            "later" => (200, r#"{"result": "inconclusive", "reason": "warming up"}"#.into()),
            "value" => (200, r#"{"value": 0.25}"#.into()),
            "odd" => (200, r#"{"result": "perhaps"}"#.into()),
            "text" => (200, "pass".into()),
            "huge" => (200, " ".repeat(caps::OUTBOUND_ANSWER_BYTES_MAX + 1)),
            "moved" => (302, r#"{"result": "pass"}"#.into()),
            _ => (503, r#"{"result": "pass"}"#.into()),
        }
    })
    .await;
    for (query, bound, outcome, words) in [
        ("pass", "", Pass, "all green"),
        ("fail", "", Fail, "fail"),
        ("later", "", Inconclusive, "warming up"),
        ("value", " < 0.3", Pass, "0.25 < 0.3"),
        ("value", " > 0.3", Fail, "0.25 is not > 0.3"),
        ("pass", " > 0.3", Inconclusive, "all green"),
        ("odd", "", Inconclusive, "none of pass, fail"),
        ("text", "", Inconclusive, "not understood"),
        ("huge", "", Inconclusive, "cannot be read"),
        ("moved", "", Inconclusive, "302"),
        ("down", "", Inconclusive, "503"),
    ] {
        let (seen, said) = ask(None, &format!("c=webhook {address}/gate?{query}{bound}")).await;
        assert_eq!(seen, outcome, "{query}{bound}: {said}");
        assert!(said.contains(words), "{query}{bound}: {said}");
    }
}

#[tokio::test]
async fn a_server_is_shown_what_is_kept_for_it_and_the_check_never_says_it() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs_err::write(&token, "s3cret\n").unwrap();
    fs_err::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (address, _server) = server(|head, _| {
        let head = head.to_lowercase();
        match head.contains("authorization: bearer s3cret") && head.contains("x-scope-orgid: shop") {
            true if head.contains("/api/v1/query") => {
                (200, r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.4"]}}"#.into())
            }
            true => (200, r#"{"result": "pass"}"#.into()),
            false => (401, String::new()),
        }
    })
    .await;
    let known = format!("[{address:?}]\nbearer_file = {token:?}\nheaders = {{ X-Scope-OrgID = \"shop\" }}");
    let known: Credentials = toml::from_str(&known).unwrap();
    for probe in [format!("webhook {address}/gate"), format!("prometheus {address} up < 1")] {
        let check: Check = format!("c={probe}").parse().unwrap();
        let asked = async |credentials| {
            let checks = Checks::new(Outbound::default(), None, credentials);
            checks.probe(&check, &about()).await
        };
        let (seen, said) = asked(known.clone()).await;
        assert_eq!(seen, Outcome::Pass, "{probe}: {said}");
        assert_eq!(asked(Credentials::default()).await.0, Outcome::Inconclusive, "{probe}");
        fs_err::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (seen, said) = asked(known.clone()).await;
        assert_eq!((seen, said.contains("chmod 600")), (Outcome::Inconclusive, true), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        fs_err::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[tokio::test]
async fn who_does_not_answer_is_neither_good_nor_bad() {
    let (outcome, said) = ask(None, "c=webhook http://127.0.0.1:1/").await;
    assert_eq!((outcome, said.contains("refused")), (Outcome::Inconclusive, true), "{said}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let (outcome, said) = ask(None, &format!("c(timeout=100ms)=webhook http://{silent}/")).await;
    assert_eq!((outcome, said.as_str()), (Outcome::Inconclusive, "no answer within 100ms"));
}

#[tokio::test]
async fn a_query_is_held_against_its_bound_and_no_data_is_no_success() {
    use Outcome::{Fail, Inconclusive, Pass};
    let (address, _server) = server(|head, _| {
        let path = head.split_whitespace().nth(1).unwrap();
        let vector = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
        };
        match path.strip_prefix("/prefix/api/v1/query?query=").unwrap() {
            "up%7Ba%3D%22b%22%7D" => (200, vector(r#"{"metric":{"a":"b"},"value":[1,"0.4"]}"#)),
            "two" => (
                200,
                vector(
                    r#"{"metric":{"host":"h1"},"value":[1,"0.4"]},{"metric":{"host":"h2"},"value":[1,"0.6"]}"#,
                ),
            ),
            "nan" => (200, vector(r#"{"metric":{},"value":[1,"NaN"]}"#)),
            "none" => (200, vector("")),
            "scalar" => (200, r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.1"]}}"#.into()),
            "matrix" => (200, r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into()),
            "bad" => (400, r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.into()),
            other => panic!("{other}"),
        }
    })
    .await;
    for (query, outcome, words) in [
        (r#"up{a="b"}"#, Pass, "0.4 < 0.5"),
        ("two", Fail, "0.6 is not < 0.5 (host=h2)"),
        ("nan", Inconclusive, "NaN"),
        ("none", Inconclusive, "no data"),
        ("scalar", Pass, "0.1 < 0.5"),
        ("matrix", Inconclusive, "matrix"),
        ("bad", Inconclusive, "parse error"),
    ] {
        let (seen, said) = ask(None, &format!("c=prometheus {address}/prefix/ {query} < 0.5")).await;
        assert_eq!(seen, outcome, "{query}: {said}");
        assert!(said.contains(words), "{query}: {said}");
    }
}

#[tokio::test]
async fn programs_run_only_from_their_directory_and_are_ended_whole() {
    use Outcome::{Fail, Inconclusive, Pass};
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("good", "echo \"$1 $APPLICATION_NAME $RELEASE_VERSION $BATCH/$BATCHES $BATCH_HOSTS $HOME\"");
    program("bad", "echo broken >&2; exit 3");
    program("later", "exit 21");
    program("slow", "sleep 60 & echo $! > child; wait");
    program("loud", "head -c 10000000 /dev/zero | tr '\\0' x; exit 1");
    program("parent", "sleep 60 & echo $! > child");
    for (command, outcome, words) in [
        ("good --fast", Pass, "status 0: --fast shop 1.2 2/3 h1 h2"),
        ("bad", Fail, "broken"),
        ("later", Inconclusive, "21"),
        ("loud", Fail, "xxx"),
        ("missing", Inconclusive, "cannot start"),
        ("slow", Inconclusive, "no end within"),
    ] {
        let (seen, said) = ask(Some(dir.path()), &format!("c(timeout=1s)=command {command}")).await;
        assert_eq!(seen, outcome, "{command}: {said}");
        assert!(said.contains(words) && said.len() < 2_000, "{command}: {said}");
    }
    gone(dir.path()).await;
    let (seen, said) = ask(Some(dir.path()), "c(timeout=10s)=command parent").await;
    assert_eq!(seen, Pass, "{said}");
    gone(dir.path()).await;
    let (seen, said) = ask(None, "c=command good").await;
    assert!(seen == Inconclusive && said.contains("check_commands"), "{said}");
}

/// Waits until the child whose number a program wrote has ended.
async fn gone(dir: &Path) {
    let child = fs_err::read_to_string(dir.join("child")).unwrap();
    let status = format!("/proc/{}/stat", child.trim());
    let runs = || fs_err::read_to_string(&status).is_ok_and(|text| !text.contains(") Z "));
    for _ in 0..500 {
        if !runs() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} outlived its check", child.trim());
}
