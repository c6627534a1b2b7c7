//! What must be refused, with a clear error and without a trace on the host.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sluice_common::codec::{put_bytes, put_varint};
use sluice_common::digest::Digest;
use sluice_common::transfer::encode_manifest;
use sluice_proto::v1;
use sluice_proto::v1::packages_client::PackagesClient;
use sluice_proto::v1::push_request::Message as Push;

use super::Options;
use super::board::Board;
use super::kills::{start_app, wait_ended};
use super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, PATIENCE, wait_for, write_tree};

pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    lab.add_host("h1", "berlin", AgentOptions::default())?;
    lab.wait_connected()?;
    let before = outside(&lab)?;
    unknown_key(board, &lab, scratch.path())?;
    tokens(board, &lab)?;
    foreign_certificate(board, &lab, scratch.path())?;
    hostile_manifests(board, &lab)?;
    hostile_trees(board, &lab, scratch.path())?;
    let new: Vec<_> = outside(&lab)?.difference(&before).cloned().collect();
    board.line(
        "names outside of the agent's roots afterwards",
        &format!("{new:?}"),
        "none new",
        new.is_empty(),
    );
    lab.stop()
}

/// Returns what stands in the directory above the agent's roots.
fn outside(lab: &Lab) -> Result<BTreeSet<String>> {
    let names = |dir: &Path| -> Result<Vec<String>> {
        fs_err::read_dir(dir)?.map(|entry| Ok(entry?.path().display().to_string())).collect()
    };
    Ok(names(lab.dir())?.into_iter().chain(names(lab.hosts()[0].dir())?).collect())
}

/// Shows that a message says what is wrong.
fn refused(board: &mut Board, what: &str, message: &str, expected: &str) {
    let line = message.lines().find(|line| line.contains(expected)).unwrap_or(message).trim();
    println!("       {}", line.chars().take(300).collect::<String>());
    board.line(
        what,
        if message.contains(expected) { "refused" } else { "other answer" },
        &format!("says {expected:?}"),
        message.contains(expected),
    );
}

fn unknown_key(board: &mut Board, lab: &Lab, scratch: &Path) -> Result<()> {
    let (key, tree) = (scratch.join("other.key"), scratch.join("unknown"));
    let (key, tree_text) = (key.to_str().context("path")?, tree.to_str().context("path")?);
    write_tree(&tree, &[("file", b"unsigned by anyone pinned".to_vec(), false)])?;
    lab.operator().run(["key", "new", key])?;
    lab.operator().run([
        "release",
        "create",
        "--app",
        "rogue",
        "--version",
        "1",
        "--package",
        tree_text,
        "--key",
        key,
    ])?;
    let id = start_app(lab, "rogue", "1", &[])?;
    let rollout = wait_ended(lab, &id)?;
    let report = rollout.batches.iter().flat_map(|batch| &batch.hosts).find_map(|host| host.report.clone());
    let reason = report.and_then(|report| report.reason).unwrap_or_default();
    refused(board, "release signed by an unknown key", &reason, "not pinned");
    let log = fs_err::read_to_string(lab.hosts()[0].log())?;
    let releases = lab.hosts()[0].app_dir("rogue").join("releases");
    let staged = fs_err::read_dir(&releases).map_or(0, Iterator::count);
    let figure =
        format!("{staged} staged, {}", if log.contains("not pinned") { "logged" } else { "not logged" });
    board.line(
        "  nothing of it on the host, and a line in its log",
        &figure,
        "0 staged, logged",
        figure == "0 staged, logged",
    );
    Ok(())
}

fn tokens(board: &mut Board, lab: &Lab) -> Result<()> {
    let enrol = |name: &str, token: &str| -> Result<String> {
        let dir = lab.dir().join("hosts").join(name);
        let mut command = crate::role::Role::Agent.command(lab.executable());
        command.args([
            "enroll",
            "--coordinator",
            &lab.address(),
            "--name",
            name,
            "--token-file",
            "-",
            "--trust",
        ]);
        command.arg(sluice_common::keys::public_path(&lab.key())).arg("--config").arg(dir.join("agent.toml"));
        command.arg("--data").arg(dir.join("data")).arg("--root").arg(dir.join("srv"));
        fs_err::create_dir_all(&dir)?;
        let token_file = dir.join("token");
        fs_err::write(&token_file, token)?;
        let output = command.stdin(fs_err::File::open(&token_file)?.into_parts().0).output()?;
        fs_err::remove_dir_all(&dir)?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let token = lab.operator().run(["token", "create", "--site", "berlin"])?.stdout;
    let first = enrol("t1", &token)?;
    ensure!(!first.contains("error"), "the first use of a token failed: {first}");
    refused(board, "join token used again", &enrol("t2", &token)?, "used");
    let token = lab.operator().run(["token", "create", "--site", "berlin", "--ttl", "1ms"])?.stdout;
    refused(board, "join token expired", &enrol("t3", &token)?, "expired");
    Ok(())
}

/// An agent that another authority enrolled comes with its own certificate; it trusts this coordinator.
fn foreign_certificate(board: &mut Board, lab: &Lab, scratch: &Path) -> Result<()> {
    let mut other = Lab::start(&demo_executable()?, &scratch.join("other-lab"))?;
    let dial = AgentOptions { dial: Some(other.address()), ..AgentOptions::default() };
    let mut stranger = other.enrol_host("stranger", "berlin", dial)?;
    let identity = stranger.dir().join("data/identity/identity.pem");
    let foreign = fs_err::read_to_string(&identity)?;
    let ours = fs_err::read_to_string(lab.hosts()[0].dir().join("data/identity/identity.pem"))?;
    let authority =
        |pem: &str| pem.rfind("-----BEGIN CERTIFICATE").context("no authority in the identity file");
    fs_err::write(&identity, format!("{}{}", &foreign[..authority(&foreign)?], &ours[authority(&ours)?..]))?;
    let config = stranger.dir().join("agent.toml");
    fs_err::write(&config, fs_err::read_to_string(&config)?.replace(&other.address(), &lab.address()))?;
    stranger.start(lab.executable())?;
    let coordinator_log = lab.dir().join("coordinator.log");
    let refusal = wait_for("the coordinator to log the refusal", PATIENCE, || {
        let log = fs_err::read_to_string(&coordinator_log)?;
        Ok(log.lines().find(|line| line.contains("WARN") && line.contains("handshake")).map(str::to_owned))
    })?;
    refused(board, "agent with a foreign certificate, in the coordinator's log", &refusal, "ertificate");
    let agent_log = stranger.log();
    let complaint = wait_for("the agent to log the refusal", PATIENCE, || {
        let log = fs_err::read_to_string(&agent_log)?;
        Ok(log.lines().find(|line| line.contains("WARN")).map(str::to_owned))
    })?;
    refused(board, "  and in the agent's", &complaint, "certificate");
    let known = lab.operator().hosts()?.iter().any(|host| host.name == "stranger");
    board.line("  hosts registered by it", if known { "1" } else { "0" }, "0", !known);
    stranger.stop()?;
    other.stop()
}

/// A manifest with one entry of the given kind.
fn manifest(kind: u8, path: &str, target: &str) -> Vec<u8> {
    let mut bytes = b"sluice-manifest\x01".to_vec();
    put_varint(&mut bytes, 1);
    bytes.push(kind);
    put_bytes(&mut bytes, path.as_bytes());
    match kind {
        3 => put_bytes(&mut bytes, target.as_bytes()),
        _ => {
            put_varint(&mut bytes, 0);
            bytes.extend_from_slice(Digest::of(b"").as_bytes());
        }
    }
    bytes
}

fn hostile_manifests(board: &mut Board, lab: &Lab) -> Result<()> {
    for (what, bytes, expected) in [
        ("manifest with ../x", manifest(1, "../x", ""), ".."),
        ("manifest with an absolute path", manifest(1, "/etc/x", ""), "absolute"),
        ("manifest with a symlink out of the tree", manifest(3, "link", "../../etc"), "leaves the package"),
    ] {
        let answer = push(lab, &bytes);
        let message = answer.err().map(|error| format!("{error:#}")).unwrap_or_default();
        refused(board, what, &message, expected);
    }
    let stored = lab.operator().run(["package", "list", "--json"])?.stdout;
    let figure = stored.matches("sha256:").count();
    // The one package of the release with the unknown key.
    board.line("  packages stored of them", &format!("{}", figure.saturating_sub(1)), "0", figure <= 1);
    Ok(())
}

/// Pushes hand-made manifest bytes, past all the checks of the command line.
fn push(lab: &Lab, manifest: &[u8]) -> Result<()> {
    let package = Digest::of(manifest).as_bytes().to_vec();
    let compressed = encode_manifest(manifest, &[])?;
    let index = encode_manifest(b"sluice-index\x01\x00\x00", &[])?;
    let description =
        v1::PushDescription { manifest_len: compressed.len() as u64, index_len: index.len() as u64 };
    let messages = [
        Push::Begin(v1::PushBegin { package }),
        Push::Description(description),
        Push::Manifest(compressed),
        Push::Index(index),
        Push::Commit(v1::PushCommit {}),
    ];
    let requests = messages.map(|message| v1::PushRequest { message: Some(message) });
    lab.operator().ask(async |channel| {
        let mut answers = PackagesClient::new(channel).push(tokio_stream::iter(requests)).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    })
}

fn hostile_trees(board: &mut Board, lab: &Lab, scratch: &Path) -> Result<()> {
    let out = scratch.join("link-out");
    fs_err::create_dir_all(&out)?;
    symlink("../../etc/passwd", out.join("link"))?;
    let setuid = scratch.join("setuid");
    write_tree(&setuid, &[("su", b"x".to_vec(), true)])?;
    fs_err::set_permissions(setuid.join("su"), std::os::unix::fs::PermissionsExt::from_mode(0o4755))?;
    for (what, tree, expected) in
        [("tree with a symlink out of it", out, "link"), ("tree with a setuid file", setuid, "setuid")]
    {
        let output = lab.operator().try_run(["package", "build", tree.to_str().context("path")?])?;
        ensure!(output.code == 1, "{what}: exit code {}", output.code);
        refused(board, what, &output.stderr, expected);
    }
    Ok(())
}
