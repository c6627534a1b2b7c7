//! Applications on machines: one that systemd runs, one that the agent supervises. Both go through the end of their agent.

use anyhow::{Result, ensure};
use sluice_proto::v1::{Phase, RolloutState};

use super::{end, expect, roll_out};
use crate::machines::{Machine, Site};
use crate::show::board::Board;
use crate::show::kills::{start_app, wait_for_phase};

/// The application that systemd runs.
pub(super) const UNIT: &str = "shop";
/// The application that the agent supervises.
const SUPERVISED: &str = "worker";

pub(super) fn run(board: &mut Board, site: &Site) -> Result<()> {
    for machine in site.machines() {
        machine.write("/etc/systemd/system/shop.service", SERVICE)?;
        machine.run("systemctl daemon-reload && systemctl enable --quiet shop.service")?;
    }
    by_systemd(board, site)?;
    through_the_end_of_the_agent(board, site)
}

/// The unit that the host has: the package does not bring it.
const SERVICE: &str = "[Service]
ExecStart=/srv/sluice/shop/current/bin/serve
[Install]
WantedBy=multi-user.target
";

/// The web server ends with its standard input, which a pipe that it holds itself does not.
const SERVE: &str = "#!/bin/sh
[ -p /run/shop.hold ] || mkfifo /run/shop.hold
exec /usr/local/bin/sluice-demo role web --root /srv/sluice/shop/current --port 8080 0<>/run/shop.hold
";

const SPEC: &str = r#"
[service]
systemd = "shop.service"
stop_timeout = "20s"

[[health]]
type = "systemd"
unit = "shop.service"
interval = "100ms"

[[health]]
type = "http"
url = "http://127.0.0.1:8080/health"
contains = "ok ${VERSION}"
interval = "100ms"

[gate]
deadline = "10s"
"#;

/// Registers a version of the application that systemd runs; `gate` goes on where the gate's table ends.
pub(super) fn release(site: &Site, version: &str, is_good: bool, gate: &str) -> Result<()> {
    let health = if is_good { format!("ok {version}\n") } else { "degraded\n".into() };
    let files = [
        ("sluice.toml", format!("{SPEC}{gate}").into_bytes(), false),
        ("bin/serve", SERVE.into(), true),
        ("index.txt", format!("shop {version}\n").into_bytes(), false),
        ("health", health.into_bytes(), false),
    ];
    site.release(UNIT, version, &files)
}

/// Says which version a machine serves.
pub(super) fn served(machine: &Machine) -> Result<String> {
    let script =
        "exec 3<>/dev/tcp/127.0.0.1/8080; printf \"GET /health HTTP/1.1\\r\\n\\r\\n\" >&3; timeout 1 cat <&3";
    let answer = machine.try_run(&format!("bash -c '{script}'"))?;
    Ok(answer.stdout.lines().last().unwrap_or_default().trim_start_matches("ok ").to_owned())
}

fn by_systemd(board: &mut Board, site: &Site) -> Result<()> {
    for (version, is_good) in [("1", true), ("2", true), ("3-bad", false)] {
        release(site, version, is_good, "")?;
        let rollout = roll_out(site, UNIT, version)?;
        let state = if is_good { RolloutState::Succeeded } else { RolloutState::RolledBack };
        expect(site, &rollout, state)?;
    }
    let mut serving = 0;
    for machine in site.machines() {
        let is_active = machine.try_run("systemctl is-active shop.service")?.code == 0;
        serving += usize::from(is_active && served(machine)? == "2");
    }
    let all = site.machines().len();
    board.line(
        "a unit deployed, updated, and a bad version back",
        &format!("{serving} serve the second"),
        &all.to_string(),
        serving == all,
    );
    Ok(())
}

/// Which process an application is, and since when.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Running(String);

/// Returns the processes of both applications.
pub(super) fn running(machine: &Machine) -> Result<Running> {
    let unit =
        machine.run("systemctl show shop.service -p MainPID -p ExecMainStartTimestampMonotonic --value")?;
    // The number of each process and the moment of its start.
    let worker = machine.run(
        "for file in $(grep -lx sleeper /proc/[0-9]*/comm); do cut -d ' ' -f 1,22 ${file%comm}stat; done",
    )?;
    ensure!(!unit.starts_with('0') && !worker.is_empty(), "not everything runs: {unit:?}, {worker:?}");
    Ok(Running(format!("{unit} {worker}")))
}

fn through_the_end_of_the_agent(board: &mut Board, site: &Site) -> Result<()> {
    let worker = [
        ("sluice.toml", b"[service]\nexec = [\"bin/sleeper\"]\n".to_vec(), false),
        ("bin/sleeper", b"#!/bin/sh\nsleep infinity\n".to_vec(), true),
    ];
    site.release(SUPERVISED, "1", &worker)?;
    expect(site, &roll_out(site, SUPERVISED, "1")?, RolloutState::Succeeded)?;
    let ends = [
        "systemctl restart sluice-agent",
        "systemctl kill --kill-whom=main --signal=KILL sluice-agent",
        "dpkg --install /root/sluice-agent.deb",
    ];
    let (mut struck, mut touched) = (0, 0);
    for (number, line) in ends.into_iter().enumerate() {
        let version = format!("4.{number}");
        release(site, &version, true, "bake = \"4s\"")?;
        let before = site.machines().iter().map(running).collect::<Result<Vec<_>>>()?;
        for machine in site.machines() {
            machine.run(line)?;
            struck += 1;
        }
        site.wait_connected(site.machines().len())?;
        let after = site.machines().iter().map(running).collect::<Result<Vec<_>>>()?;
        touched += before.iter().zip(&after).filter(|(before, after)| before != after).count();
        // Now in the middle of a rollout: the first machine is validating what has just been started.
        let id = start_app(site.lab(), UNIT, &version, &[])?;
        wait_for_phase(site.lab(), &id, Phase::Validating)?;
        let machine = &site.machines()[0];
        let before = running(machine)?;
        machine.run(line)?;
        struck += 1;
        expect(site, &end(site, UNIT, &id)?, RolloutState::Succeeded)?;
        touched += usize::from(running(machine)? != before);
    }
    board.line(
        "the agent restarted, killed, upgraded, in rollouts too",
        &format!("{touched} of {struck} touched one"),
        "no application touched",
        touched == 0,
    );
    Ok(())
}
