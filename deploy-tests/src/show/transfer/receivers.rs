//! Fifty receivers of one plan at once, beside nginx with TLS and a file of the same bytes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use sluice_common::tree::Tree;

use super::work::Work;
use crate::lab::{AgentOptions, Lab, PATIENCE, Process, memory_of, receive, wait_for};
use crate::measure::{self, cpu_of};
use crate::peers::Tool;
use crate::show::board::Board;
use crate::show::main_job::demo_executable;
use crate::trees::{Pair, text};

const RECEIVERS: u32 = 50;
/// Connections that one host's identity takes beside its agent's own two.
const RECEIVERS_PER_HOST: u32 = 2;
const MEBIBYTE: f64 = (1 << 20) as f64;
const APP: &str = "tree";

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    let pair = if work.options.quick { Pair::Ruff } else { Pair::Python };
    let Some((_, tree)) = Work::trees(board, pair)? else { return Ok(()) };
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::start(&demo_executable()?, &scratch.path().join("lab"))?;
    let hosts = RECEIVERS / RECEIVERS_PER_HOST;
    for number in 0..hosts {
        lab.add_host(&format!("h{number}"), "berlin", AgentOptions::default())?;
    }
    lab.wait_connected()?;
    lab.release(APP, "1", &tree)?;
    // A standing order of each host names the package: only then may it fetch it.
    lab.operator().run(["rollout", "start", APP, "1", "--all-at-once", "--bake", "0s"])?;
    let target = Tree::scan(&tree)?.manifest().digest();
    let coordinator = lab.coordinator_process()?.id();
    // From here on the kernel counts the peak anew: what the push and the rollout have taken at most would hide the receivers.
    fs_err::write(format!("/proc/{coordinator}/clear_refs"), "5")?;
    let (cpu, memory) = (cpu_of(coordinator)?, memory_of(coordinator)?.resident);
    let received = receive(&lab, target, RECEIVERS as usize)?;
    let seconds = (cpu_of(coordinator)? - cpu).as_secs_f64();
    let grown = memory_of(coordinator)?.resident_peak.saturating_sub(memory);
    let gigabytes = received.bytes as f64 / 1e9;
    let ours = seconds / gigabytes;
    println!(
        "       {gigabytes:.2} GB to {RECEIVERS} receivers of {} in {:.1} s",
        text(&tree)?,
        received.wall.as_secs_f64()
    );
    let per_receiver = grown as f64 / MEBIBYTE / f64::from(RECEIVERS);
    let figure = format!("{per_receiver:.2} MiB a receiver");
    board.line("coordinator's memory, grown by", &figure, "<= 1 MiB", per_receiver <= 1.0);
    lab.stop()?;
    let what = "coordinator's CPU per GB received";
    match nginx(scratch.path(), received.bytes / u64::from(RECEIVERS))? {
        Some(theirs) => {
            let ratio = ours / theirs;
            let figure = format!("{ours:.2} s / {theirs:.2} s = {ratio:.2}x");
            board.line(what, &figure, "<= 2x nginx with TLS", ratio <= 2.0);
        }
        None => board.skip(what, "nginx, openssl or curl is not installed, and cannot be installed here"),
    }
    Ok(())
}

/// Returns the CPU seconds per GB of nginx that serves a file of `bytes` to as many clients at once.
fn nginx(scratch: &Path, bytes: u64) -> Result<Option<f64>> {
    if !Tool::Nginx.is_available(scratch) {
        return Ok(None);
    }
    let dir = scratch.join("nginx");
    fs_err::create_dir_all(&dir)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    fs_err::write(dir.join("nginx.conf"), config(&dir, port))?;
    let prepare = r#"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -keyout "$DIR/key.pem" -out "$DIR/cert.pem"
head -c "$BYTES" /dev/urandom > "$DIR/file"; command -v curl"#;
    let bytes_text = bytes.to_string();
    if measure::shell(prepare, &[("DIR", dir.as_os_str()), ("BYTES", bytes_text.as_ref())]).is_err() {
        return Ok(None);
    }
    let mut command = Command::new("nginx");
    command.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(&dir);
    let server = Process::start("nginx", command, &dir.join("log"))?;
    wait_for("nginx to listen", PATIENCE, || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
    let before = cpu_of(server.id())?;
    let fetch = r#"pids=; for i in $(seq "$COUNT"); do curl -sk --fail -o /dev/null "https://127.0.0.1:$PORT/file" & pids="$pids $!"; done
for pid in $pids; do wait "$pid"; done"#;
    let (port, count) = (port.to_string(), RECEIVERS.to_string());
    measure::shell(fetch, &[("PORT", port.as_ref()), ("COUNT", count.as_ref())])?;
    let seconds = (cpu_of(server.id())? - before).as_secs_f64();
    server.stop()?;
    ensure!(seconds > 0.0, "nginx took no time");
    Ok(Some(seconds / (bytes as f64 * f64::from(RECEIVERS) / 1e9)))
}

/// One process in the foreground, so that its CPU time is all of nginx's.
fn config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{
    listen 127.0.0.1:{port} ssl; root {dir};
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.3;
  }}
}}
"
    )
}
