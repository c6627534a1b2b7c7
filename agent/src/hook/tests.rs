use super::*;

fn call(script: &str, timeout_ms: u64) -> (tempfile::TempDir, Call) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("hook.sh"), script).unwrap();
    let call = Call {
        command: ["/bin/sh", "hook.sh", "${PORT}"].map(str::to_owned).to_vec(),
        release: dir.path().to_owned(),
        environment: [("PORT".to_owned(), "8080".to_owned())].into(),
        timeout: Duration::from_millis(timeout_ms),
        user: None,
        id: new_id("test"),
    };
    (dir, call)
}

async fn run_script(script: &str, timeout_ms: u64) -> (Ended, Call) {
    let (_dir, call) = call(script, timeout_ms);
    let ended = run(&call, &CancellationToken::new()).await;
    assert_eq!(descendants::count_marked(&call.id), 0, "survivors");
    (ended, call)
}

#[tokio::test]
async fn a_hook_sees_its_own_environment_and_nothing_else() {
    let (ended, call) = run_script("env | cut -d= -f1 | sort | tr '\\n' ' '; echo arg $1; pwd", 60_000).await;
    assert_eq!(ended.end, End::Succeeded);
    let expected = format!("LANG PATH PORT PWD SLUICE_HOOK_ID arg 8080\n{}\n", call.release.display());
    let shown: String = ended.output.replace("OLDPWD ", "").replace("SHLVL ", "").replace("_ ", "");
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (script, expected) in [("exit 3", "exited with status 3"), ("kill -9 $$", "ended by signal 9")] {
        let (ended, _) = run_script(script, 60_000).await;
        assert!(matches!(&ended.end, End::Failed(reason) if reason.contains(expected)), "{ended:?}");
    }
    let (_dir, mut missing) = call("", 1_000);
    missing.command = vec!["bin/none".into()];
    let ended = run(&missing, &CancellationToken::new()).await;
    assert!(matches!(&ended.end, End::Failed(reason) if reason.contains("cannot run bin/none")), "{ended:?}");
    missing.command = vec!["echo".into(), "${NONE}".into()];
    let ended = run(&missing, &CancellationToken::new()).await;
    assert!(matches!(&ended.end, End::Failed(reason) if reason.contains("NONE")), "{ended:?}");
}

#[tokio::test]
async fn a_hook_has_its_own_session_and_may_ask_to_be_tried_later() {
    let (ended, _) = run_script("echo one; echo two; ps -o sid= -p $$; echo $$; echo; exit 21", 60_000).await;
    assert_eq!(ended.end, End::TryLater);
    let numbers: Vec<&str> = ended.output.split_whitespace().skip(2).collect();
    assert_eq!(numbers[0], numbers[1], "it leads its session");
    assert_eq!(ended.last_line.as_deref(), Some(numbers[1]));
}

#[tokio::test]
async fn a_hook_runs_as_the_user_that_it_names() {
    let (_dir, mut call) = call("id -u; id -G; echo $HOME $USER; echo out > file", 60_000);
    for (user, expected) in [("no-such-user", "create that user"), ("nobody", "")] {
        call.user = Some(user.into());
        let ended = run(&call, &CancellationToken::new()).await;
        if !expected.is_empty() {
            assert!(matches!(&ended.end, End::Failed(reason) if reason.contains(expected)), "{ended:?}");
        } else if rustix::process::geteuid().is_root() {
            // The directory is root's alone.
            fs_err::set_permissions(&call.release, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            let ended = run(&call, &CancellationToken::new()).await;
            assert!(matches!(ended.end, End::Failed(_)), "it may not write: {ended:?}");
            assert!(
                ended.output.starts_with("65534\n65534\n") && ended.output.contains(" nobody\n"),
                "{ended:?}"
            );
        } else {
            assert!(
                matches!(&ended.end, End::Failed(reason) if reason.contains("runs as root")),
                "{ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended_with_its_children() {
    let (ended, _) = run_script("echo begun; sleep 1000 & sleep 1000", 300).await;
    assert_eq!(ended.end, End::Failed("took longer than 300ms".into()));
    assert!(ended.output.starts_with("begun\n"), "{}", ended.output);
}

#[tokio::test]
async fn a_daemon_that_holds_the_output_is_neither_waited_for_nor_left() {
    let script = "setsid sh -c 'sleep 1000' & echo started";
    let (ended, _) = run_script(script, 60_000).await;
    assert_eq!(ended.end, End::Succeeded);
    assert!(ended.output.starts_with("started\n") && ended.output.contains("were ended"), "{}", ended.output);
}

#[tokio::test]
async fn output_is_kept_by_head_and_tail() {
    let (ended, _) =
        run_script("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last", 60_000).await;
    assert_eq!(ended.end, End::Succeeded);
    assert!(ended.output.len() <= caps::HOOK_OUTPUT_BYTES_MAX + 200, "{}", ended.output.len());
    assert!(ended.output.starts_with("first\n") && ended.output.ends_with("last\n"));
    assert!(ended.output.contains("bytes left out"));
}

#[tokio::test]
async fn a_stopping_agent_ends_its_hooks() {
    let (_dir, call) = call("sleep 1000", 60_000);
    let token = CancellationToken::new();
    let stop = async {
        while descendants::count_marked(&call.id) == 0 {
            tokio::task::yield_now().await;
        }
        token.cancel();
    };
    let (ended, ()) = tokio::join!(run(&call, &token), stop);
    assert_eq!(ended.end, End::Interrupted);
    assert_eq!(descendants::count_marked(&call.id), 0);
}
