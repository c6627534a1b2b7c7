//! Parallel production over two hosts with the real programs, under requests that never fail: a first release, one that takes its
//! place, and one whose candidate does not come up on one of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fs_err as fs;
use serde_json::Value;
use sluice_deploy_tests::lab::{AgentOptions, Lab, PATIENCE, wait_for, write_tree};

const APP: &str = "shop";
const HOSTS: [&str; 2] = ["h1", "h2"];

/// The port of a slot is the host's to say; the switch tells it to whoever asks for it.
const SPEC: &str = r#"
[parallel]
slots = { blue = { SIDE = "left" }, green = { SIDE = "right" } }

[service]
exec = ["bin/serve"]
stop_timeout = "10s"

[hooks.switch]
command = ["bin/route"]

[gate]
deadline = "10s"
bake = "1s"

[[health]]
type = "command"
command = ["bin/well"]
interval = "100ms"
"#;
const PORT: &str = "#!/bin/bash\nset -e\nport=$GREEN; if [ \"$SLOT\" = blue ]; then port=$BLUE; fi\n";
const SERVE: &str = "sleep infinity | \"$WEB\" role web --root \"$RELEASE_DIR\" --port \"$port\"\n";
const ROUTE: &str = "echo \"$port\" > \"$ROUTE.new\"; mv \"$ROUTE.new\" \"$ROUTE\"\n";
const WELL: &str = "[ \"$NAME\" != \"$(cat \"$RELEASE_DIR/ill-on\")\" ]\n\
    exec 3<>/dev/tcp/127.0.0.1/$port; printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; grep -q ' 200 ' <&3\n";

fn release(lab: &Lab, dir: &Path, version: &str, ill_on: &str) {
    let script = |text: &str| format!("{PORT}{text}").into_bytes();
    let tree = dir.join(version);
    let files = [
        ("sluice.toml", SPEC.as_bytes().to_vec(), false),
        ("bin/serve", script(SERVE), true),
        ("bin/route", script(ROUTE), true),
        ("bin/well", script(WELL), true),
        ("index.txt", format!("shop {version}\n").into_bytes(), false),
        ("health", b"ok\n".to_vec(), false),
        ("ill-on", ill_on.as_bytes().to_vec(), false),
    ];
    write_tree(&tree, &files).unwrap();
    lab.release(APP, version, &tree).unwrap();
}

/// Finds ports that nobody uses, below those that the system gives to clients.
fn free_ports() -> impl Iterator<Item = String> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (10_000..32_000).rev().filter(is_free).map(|port| port.to_string())
}

/// Asks where the traffic goes, then asks there.
fn ask(route: &Path) -> Result<String, String> {
    let port = fs::read_to_string(route).map_err(|error| error.to_string())?;
    let told = |error: std::io::Error| format!("port {}: {error}", port.trim());
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", port.trim())).map_err(told)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(told)?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: shop\r\n\r\n").map_err(told)?;
    // Nothing more is asked: the server ends the connection with its answer.
    stream.shutdown(Shutdown::Write).map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    if answer.contains(" 200 ") { Ok(answer) } else { Err(answer) }
}

/// Requests to one host, one after another, until they are ended.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Traffic {
    fn start(route: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut failed) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                asked += 1;
                failed.extend(ask(&route).err());
                std::thread::sleep(Duration::from_millis(2));
            }
            (asked, failed)
        });
        Self { stop, thread }
    }

    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn start(lab: &Lab, version: &str) -> (i32, Value) {
    let args = ["rollout", "start", APP, version, "--blue-green", "--bake", "2s", "--detach", "--json"];
    let started: Value = serde_json::from_str(&lab.operator().run(args).unwrap().stdout).unwrap();
    let id = started["id"].as_str().unwrap().to_owned();
    let code = lab.operator().watch(["rollout", "watch", &id]).unwrap();
    let shown = lab.operator().run(["rollout", "show", &id, "--json"]).unwrap().stdout;
    (code, serde_json::from_str(&shown).unwrap())
}

#[test]
fn candidates_come_up_everywhere_before_the_traffic_moves_and_no_request_fails() {
    let dir = tempfile::tempdir().unwrap();
    let executable = Path::new(env!("CARGO_BIN_EXE_sluice-demo"));
    let mut lab = Lab::start(executable, &dir.path().join("lab")).unwrap();
    let route = |host: &str| dir.path().join(format!("route-{host}"));
    let mut ports = free_ports();
    for host in HOSTS {
        let variable = |name: &str, value: &str| (APP.to_owned(), name.to_owned(), value.to_owned());
        let variables = vec![
            variable("WEB", executable.to_str().unwrap()),
            variable("NAME", host),
            variable("BLUE", &ports.next().unwrap()),
            variable("GREEN", &ports.next().unwrap()),
            variable("ROUTE", route(host).to_str().unwrap()),
        ];
        lab.add_host(host, "berlin", AgentOptions { variables, ..AgentOptions::default() }).unwrap();
    }
    lab.wait_connected().unwrap();
    for (version, ill_on) in [("1.0", "nobody"), ("1.1", "nobody"), ("1.2", "h2")] {
        release(&lab, dir.path(), version, ill_on);
    }
    let (code, first) = start(&lab, "1.0");
    assert_eq!(code, 0, "{first:#}");

    let traffic = HOSTS.map(|host| Traffic::start(route(host)));
    let serves =
        |version: &str| HOSTS.iter().all(|host| ask(&route(host)).is_ok_and(|page| page.contains(version)));
    let (code, second) = start(&lab, "1.1");
    assert_eq!(code, 0, "{second:#}");
    assert!(serves("shop 1.1"));

    // One candidate does not come up: no host has switched, and none keeps anything beside what is live.
    let (code, third) = start(&lab, "1.2");
    assert_eq!(third["state"].as_str(), Some("rolled_back"), "{code} {third:#}");
    assert!(third["reason"].as_str().unwrap().contains("h2 could not bring up its candidate"), "{third:#}");
    assert!(serves("shop 1.1"));
    let is_dropped = |host: &str| {
        let dir = lab.hosts().iter().find(|known| known.name() == host).unwrap().app_dir(APP);
        fs::symlink_metadata(dir.join("candidate")).is_err()
    };
    wait_for("candidates to be dropped", PATIENCE, || {
        Ok(HOSTS.iter().all(|host| is_dropped(host)).then_some(()))
    })
    .unwrap();
    let history = lab.operator().run(["host", "history", "h1", "--json"]).unwrap().stdout;
    assert!(!history.contains("\"1.2\""), "{history}");

    for traffic in traffic {
        let (asked, failed) = traffic.end();
        assert_eq!(failed, Vec::<String>::new(), "of {asked}");
        assert!(asked > 100, "{asked}");
    }
    lab.stop().unwrap();
    end_applications(&lab);
}

/// Ends the applications, which outlive their agents.
fn end_applications(lab: &Lab) {
    for host in lab.hosts() {
        let Ok(slots) = fs::read_dir(host.app_dir(APP).join("service")) else { continue };
        for slot in slots {
            let socket = slot.unwrap().path().join("control.sock");
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                stream.write_all(b"stop\n").unwrap();
            }
            let ended = || Ok((!socket.exists()).then_some(()));
            wait_for("an application to end", PATIENCE, ended).unwrap();
        }
    }
}
