//! Help, usage errors, completions.

use crate::sluice;

/// Every command with a help of its own.
const COMMANDS: &[&[&str]] = &[
    &["login"],
    &["whoami"],
    &["key"],
    &["key", "new"],
    &["key", "show"],
    &["package"],
    &["package", "build"],
    &["package", "push"],
    &["package", "list"],
    &["package", "show"],
    &["package", "plans"],
    &["package", "cost"],
    &["release"],
    &["release", "create"],
    &["release", "list"],
    &["release", "where"],
    &["simulate"],
    &["rollout"],
    &["rollout", "start"],
    &["rollout", "plan"],
    &["rollout", "list"],
    &["rollout", "show"],
    &["rollout", "watch"],
    &["rollout", "pause"],
    &["rollout", "resume"],
    &["rollout", "abort"],
    &["rollout", "rollback"],
    &["rollout", "retry"],
    &["rollout", "approve"],
    &["rollout", "override"],
    &["app"],
    &["app", "history"],
    &["app", "show"],
    &["app", "reopen"],
    &["host"],
    &["host", "list"],
    &["host", "show"],
    &["host", "history"],
    &["host", "revoke"],
    &["site"],
    &["site", "list"],
    &["site", "set-limit"],
    &["token"],
    &["token", "create"],
    &["operator"],
    &["operator", "list"],
    &["operator", "revoke"],
    &["depot"],
    &["depot", "show"],
    &["depot", "collect"],
    &["notify"],
    &["notify", "add"],
    &["notify", "list"],
    &["notify", "test"],
    &["notify", "remove"],
    &["audit"],
    &["audit", "list"],
    &["audit", "verify"],
    &["completions"],
];

#[test]
fn every_command_has_a_help_and_every_leaf_an_example() {
    for command in COMMANDS {
        let ran = sluice(&[*command, &["--help"]].concat()).expect(0);
        assert!(ran.stdout.contains("Usage: sluice"), "{command:?}: {}", ran.stdout);
        let is_leaf = !ran.stdout.contains("Commands:");
        assert_eq!(ran.stdout.contains("Example"), is_leaf, "{command:?}: {}", ran.stdout);
        assert_eq!(ran.stderr, "");
    }
    let help = sluice(&["--help"]).expect(0).stdout;
    assert!(help.contains("Exit codes:") && help.contains("First steps:"), "{help}");
    assert!(sluice(&["--version"]).expect(0).stdout.starts_with("sluice "));
}

#[test]
fn mistakes_on_the_command_line_exit_with_2_and_say_what_is_wrong() {
    for (args, expected) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&[], "Usage:"),
        (&["rollout", "start", "shop"], "VERSION"),
        (&["rollout", "start", "Shop", "1"], "application name \"Shop\" is not valid"),
        (&["rollout", "start", "shop", "1", "--batch", "120%"], "share of hosts"),
        (&["rollout", "start", "shop", "1", "--bake", "30"], "time span"),
        (&["rollout", "start", "shop", "1", "--all-at-once", "--canary", "1"], "cannot be used with"),
        (&["rollout", "start", "shop", "1", "--detach", "--timeout", "1s"], "cannot be used with"),
        (&["rollout", "start", "shop", "1", "-l", "site=="], "is not valid"),
        (&["rollout", "start", "shop", "1", "--window", "mon 20:00 UTC"], "has no beginning and end"),
        (&["rollout", "start", "shop", "1", "--freeze", "2026-12-23"], "is not valid"),
        (&["rollout", "start", "shop", "1", "--check", "smoke"], "has no \"=\""),
        (&["rollout", "start", "shop", "1", "--detach", "--wait"], "cannot be used with"),
        (&["host", "history", "h1", "--at", "noon"], "minutes ago"),
        (&["rollout", "start", "shop", "1", "--emergency"], "--reason"),
        (&["rollout", "start", "shop", "1", "--reason", "x"], "--emergency"),
        (&["rollout", "override", "r1", "--reason", " "], "is empty"),
        (&["app", "reopen", "shop"], "--cause"),
        (&["site", "set-limit", "berlin", "8Mbit"], "byte rate"),
        (&["token", "create"], "--site"),
        (&["token", "create", "--site", "a", "--operator", "b", "--role", "admin"], "cannot be used with"),
        (&["token", "create", "--operator", "b"], "--role"),
        (&["token", "create", "--operator", "b", "--role", "root"], "is not a role"),
        (&["token", "create", "--site", "a", "--label", "site=b"], "not by a label"),
        (&["release", "create", "--app", "a", "--version", "1", "--key", "k"], "--package"),
        (&["login", "http://x"], "not a coordinator's address"),
        (&["package", "cost", "a", "b", "--effort", "much"], "quick, best"),
    ] {
        let ran = sluice(args).expect(2);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn completions_name_every_noun() {
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef sluice"), ("fish", "complete -c sluice")]
    {
        let script = sluice(&["completions", shell]).expect(0).stdout;
        assert!(script.contains(sign), "{shell}");
        for noun in ["rollout", "package", "set-limit", "rollback"] {
            assert!(script.contains(noun), "{shell}: {noun}");
        }
    }
}
