//! An environment from one file: five applications onto twelve empty agents with one command, a bad release that stops at its
//! canary and stops the line, a coordinator that is killed on the way, and hosts that come later.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde_json::Value;

use super::super::Options;
use super::super::board::Board;
use super::super::main_job::demo_executable;
use crate::lab::{AgentOptions, Lab, Output, PATIENCE, compare, wait_for, write_tree};

/// The hosts: name, site, role.
const HOSTS: [(&str, &str, &str); 12] = [
    ("d1", "berlin", "data"),
    ("d2", "berlin", "data"),
    ("a1", "berlin", "app"),
    ("a2", "berlin", "app"),
    ("a3", "berlin", "app"),
    ("a4", "berlin", "app"),
    ("a5", "berlin", "app"),
    ("a6", "berlin", "app"),
    ("e1", "lisbon", "edge"),
    ("e2", "lisbon", "edge"),
    ("e3", "lisbon", "edge"),
    ("e4", "lisbon", "edge"),
];
/// Time that bringing twelve empty agents up may take: a deployment no more exciting than a daily build.
const APPLIED_MAX: Duration = Duration::from_secs(120);

/// The applications, each with the role of its hosts and how it says that it works. `web` runs beside `api`, and works only
/// where that serves the contract and its own settings are there: the order shows on the hosts themselves.
const APPS: [(&str, &str, &str); 5] = [
    ("store", "data", "test -s data/schema"),
    ("api", "app", "grep -q ok health"),
    ("settings", "app", "test -s settings.conf"),
    (
        "web",
        "app",
        "grep -qx 1 ../../../api/current/contract && test -s ../../../settings/current/settings.conf",
    ),
    ("edge", "edge", "grep -q ok health"),
];
pub(super) fn run(board: &mut Board, _: &Options) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut scene = Scene::set(scratch.path())?;
    scene.first_time(board)?;
    scene.bad_release(board)?;
    scene.killed(board)?;
    scene.later(board)?;
    scene.end(board)
}

/// The releases that a file asks for, in the order of [`APPS`].
type Versions = [&'static str; 5];

struct Scene {
    lab: Lab,
    dir: PathBuf,
}

impl Scene {
    fn set(dir: &Path) -> Result<Self> {
        let mut lab = Lab::start(&demo_executable()?, &dir.join("lab"))?;
        for (name, site, role) in HOSTS {
            lab.add_host(name, site, labelled(role))?;
        }
        lab.wait_connected()?;
        let scene = Self { lab, dir: dir.to_owned() };
        for (app, _, check) in APPS {
            for version in ["1", "2", "bad"] {
                scene.release(app, version, check)?;
            }
        }
        Ok(scene)
    }

    fn tree(&self, app: &str, version: &str) -> PathBuf {
        self.dir.join("trees").join(app).join(version)
    }

    fn release(&self, app: &str, version: &str, check: &str) -> Result<()> {
        let health = if version == "bad" { "false" } else { check };
        let files = [
            ("sluice.toml", spec(app, health).into_bytes(), false),
            ("health", b"ok\n".to_vec(), false),
            ("contract", b"1\n".to_vec(), false),
            ("settings.conf", format!("colour = {version}\n").into_bytes(), false),
        ];
        let tree = self.tree(app, version);
        write_tree(&tree, &files)?;
        self.lab.release(app, version, &tree)?;
        Ok(())
    }

    /// Writes the file that asks for these releases; returns its path.
    fn file(&self, versions: Versions) -> Result<String> {
        let [store, api, settings, web, edge] = versions;
        let text = format!(
            r#"environment = "shop"

[rollout]
canary = "1"
batch = "50%"
bake = "200ms"

[sites.lisbon]
windows = ["daily 00:00-12:00 UTC", "daily 12:00-00:00 UTC"]

[applications.store]
release = "{store}"
selector = "role=data"
provides = ["sql"]

[applications.api]
release = "{api}"
selector = "role=app"
provides = ["1"]
needs = [{{ app = "store", contract = "sql" }}]

[applications.settings]
release = "{settings}"
selector = "role=app"

[applications.web]
release = "{web}"
selector = "role=app"
configuration = ["settings"]
needs = [
  {{ app = "api", contract = "1" }},
  {{ app = "search", optional = true, fallback = "lists everything" }},
]

[applications.edge]
release = "{edge}"
sites = ["lisbon"]
needs = [{{ app = "web" }}]
"#
        );
        let path = self.dir.join(format!("{}.toml", versions.join("-")));
        fs::write(&path, text)?;
        path.into_os_string().into_string().ok().context("the path is not UTF-8")
    }

    fn sluice(&self, args: &[&str]) -> Result<Output> {
        self.lab.operator().try_run(args)
    }

    fn apply(&self, versions: Versions) -> Result<Output> {
        self.sluice(&["env", "apply", &self.file(versions)?, "--yes", "--wait", "--timeout", "5m"])
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.lab.operator().run(args.iter().chain(&["--json"]))?;
        Ok(serde_json::from_str(output.stdout.trim())?)
    }

    /// Counts the pairs of host and application that are not as `versions` ask.
    fn wrong(&self, versions: Versions) -> Result<usize> {
        let mut wrong = 0;
        for host in self.lab.hosts() {
            for ((app, role, _), version) in APPS.into_iter().zip(versions) {
                if !host.name().starts_with(&role[..1]) {
                    wrong += usize::from(fs::symlink_metadata(host.current(app)).is_ok());
                    continue;
                }
                let is_right = host.current(app).exists()
                    && compare(&self.tree(app, version), &host.current(app))?.iter().all(is_linked);
                wrong += usize::from(!is_right);
            }
        }
        Ok(wrong)
    }

    /// Returns how often the shared data was migrated, on all hosts together.
    fn migrations(&self) -> usize {
        let of = |host: &crate::lab::LabHost| {
            let schema = host.app_dir("store").join("shared/data/migrated");
            fs::read_to_string(schema).map_or(0, |text| text.lines().count())
        };
        self.lab.hosts().iter().map(of).sum()
    }

    fn first_time(&self, board: &mut Board) -> Result<()> {
        let versions = ["1"; 5];
        let file = self.file(versions)?;
        let before = self.sluice(&["env", "plan", &file])?;
        let begun = Instant::now();
        let applied = self.apply(versions)?;
        let took = begun.elapsed();
        ensure!(applied.code == 0, "env apply ended with {}: {}", applied.code, applied.stderr);
        let wrong = self.wrong(versions)?;
        board.line(
            "5 applications on 12 empty agents, one command",
            &format!("{:.1} s, {wrong} wrong", took.as_secs_f64()),
            "< 120 s, 0",
            took < APPLIED_MAX && wrong == 0,
        );
        let order = self.order()?;
        board.line(
            "in the order of needs",
            &order.join(" "),
            "settings, store, api, web, edge",
            is_ordered(&order),
        );
        let migrations = self.migrations();
        board.line("migrations of the shared data", &migrations.to_string(), "1", migrations == 1);
        let codes =
            [before.code, self.sluice(&["env", "plan", &file])?.code, self.sluice(&["env", "diff"])?.code];
        board.line(
            "exit codes: plan before, plan and diff after",
            &format!("{codes:?}"),
            "[1, 0, 0]",
            codes == [1, 0, 0],
        );
        let diagram = self.sluice(&["env", "layout", "--format", "mermaid"])?.stdout;
        let layout = self.json(&["env", "layout"])?;
        let places = layout["apps"].as_array().context("no apps")?.iter();
        let places = places.filter_map(|app| app["hosts"].as_array()).flatten();
        let ok = places.clone().filter(|host| host["settled"] == true).count();
        let drawn = diagram.matches("-. ok .-").count();
        board.line(
            "places in the layout and in its diagram",
            &format!("{ok}, {drawn}"),
            "24, 24",
            (ok, drawn) == (24, 24),
        );
        Ok(())
    }

    /// Returns the applications in the order in which their rollouts were started.
    fn order(&self) -> Result<Vec<String>> {
        let list = self.json(&["rollout", "list"])?;
        let apps = list["rollouts"].as_array().context("no rollouts")?.iter().rev();
        Ok(apps.filter_map(|rollout| rollout["app"].as_str().map(str::to_owned)).collect())
    }

    fn bad_release(&self, board: &mut Board) -> Result<()> {
        let asked = ["1", "bad", "1", "2", "1"];
        let applied = self.apply(asked)?;
        let wrong = self.wrong(["1"; 5])?;
        let rollout = self.lab.operator().newest_rollout("api")?.context("no rollout of api")?;
        let hosts = rollout.batches.iter().flat_map(|batch| &batch.hosts);
        let switched =
            hosts.filter(|host| host.report.as_ref().is_some_and(|r| r.switch_time_us > 0)).count();
        let touched = rollout.batches.first().map_or(0, |batch| batch.hosts.len());
        board.line(
            "a bad release of one: exit code, canaries, hosts left wrong",
            &format!("{}, {touched}, {wrong}", applied.code),
            "4, 1, 0",
            (applied.code, touched, wrong) == (4, 1, 0) && switched <= touched,
        );
        let web = self.lab.operator().newest_rollout("web")?.map(|rollout| rollout.version);
        board.line(
            "what depends on it",
            &format!("web stays at {web:?}"),
            "not begun",
            web.as_deref() == Some("1"),
        );
        let again = self.apply(asked)?;
        let says = again.stderr.contains("closed to new rollouts");
        let figure = format!("exit {}, says so: {says}", again.code);
        board.line("the line is stopped: the file again", &figure, "exit 1", again.code == 1 && says);
        self.lab.operator().run(["app", "reopen", "api", "--cause", "health check of a wrong path"])?;
        let history = self.json(&["app", "show", "api"])?.to_string();
        let has_cause = history.contains("health check of a wrong path");
        board.line("reopened with a cause", &format!("recorded: {has_cause}"), "recorded", has_cause);
        Ok(())
    }

    /// Applies what is right, and kills the coordinator as soon as a rollout is under way. Nobody waits for it.
    fn killed(&mut self, board: &mut Board) -> Result<()> {
        let versions = ["2"; 5];
        let file = self.file(versions)?;
        self.lab.operator().run(["env", "apply", &file, "--yes"])?;
        wait_for("a rollout of version 2", PATIENCE, || {
            let show = self.json(&["env", "show", "shop"])?;
            ensure!(show["state"] == "applying", "the run is {}: {show}", show["state"]);
            let newest = self.lab.operator().newest_rollout("api")?;
            Ok(newest.filter(|rollout| rollout.version == "2"))
        })?;
        self.lab.kill_coordinator()?;
        self.lab.start_coordinator()?;
        self.stands()?;
        let wrong = self.wrong(versions)?;
        board.line("coordinator killed on the way: hosts wrong", &wrong.to_string(), "0", wrong == 0);
        let migrations = self.migrations();
        board.line("migrations of both releases", &migrations.to_string(), "2", migrations == 2);
        Ok(())
    }

    fn stands(&self) -> Result<()> {
        wait_for("the environment to stand", PATIENCE, || {
            let show = self.json(&["env", "show", "shop"])?;
            Ok((show["state"] == "standing").then_some(()))
        })
    }

    /// Two more hosts enrol; nobody says anything.
    fn later(&mut self, board: &mut Board) -> Result<()> {
        let begun = Instant::now();
        self.lab.add_host("a7", "berlin", labelled("app"))?;
        self.lab.add_host("d3", "berlin", labelled("data"))?;
        wait_for("the new hosts to come up", PATIENCE, || {
            let diff = self.sluice(&["env", "diff"])?;
            Ok((diff.code == 0).then_some(()))
        })?;
        let took = begun.elapsed();
        let (wrong, migrations) = (self.wrong(["2"; 5])?, self.migrations());
        board.line(
            "hosts that enrol later: time, wrong, further migrations",
            &format!("{:.1} s, {wrong}, {}", took.as_secs_f64(), migrations - 2),
            "< 60 s, 0, 0",
            took < Duration::from_secs(60) && wrong == 0 && migrations == 2,
        );
        let exported = self.lab.operator().run(["env", "export", "shop"])?.stdout;
        let path = self.dir.join("exported.toml");
        fs::write(&path, exported)?;
        let path = path.to_str().context("the path is not UTF-8")?;
        let code = self.sluice(&["env", "plan", path])?.code;
        board.line("a plan of what was exported", &format!("exit {code}"), "exit 0", code == 0);
        let audit = self.sluice(&["audit", "verify"])?.code;
        board.line("the audit log", &format!("exit {audit}"), "exit 0", audit == 0);
        Ok(())
    }
}

impl Scene {
    /// Looks at every host once its agent has ended: a check that is just being started would hold its locks.
    fn end(&mut self, board: &mut Board) -> Result<()> {
        self.lab.stop()?;
        for host in self.lab.hosts() {
            host.fsck(self.lab.executable())?;
        }
        let hosts = self.lab.hosts().len();
        board.line("hosts that fsck finds sound", &hosts.to_string(), "14", hosts == HOSTS.len() + 2);
        Ok(())
    }
}

fn labelled(role: &str) -> AgentOptions {
    AgentOptions { labels: vec![format!("role={role}")], ..AgentOptions::default() }
}

/// Says whether a difference is the link to what outlives releases, which no package brings.
fn is_linked(difference: &crate::lab::Difference) -> bool {
    difference.path.starts_with("data")
}

fn is_ordered(order: &[String]) -> bool {
    let place = |app: &str| order.iter().position(|other| other == app);
    let before = |one: &str, other: &str| place(one).is_some() && place(one) < place(other);
    order.len() == APPS.len()
        && before("store", "api")
        && before("api", "web")
        && before("settings", "web")
        && before("web", "edge")
}

/// Returns the `sluice.toml` of an application: a check of one line, and what its kind asks for.
fn spec(app: &str, check: &str) -> String {
    let head = match app {
        "store" => {
            "kind = \"shared-data\"\nlinked = [\"data\"]\n\
            [hooks.snapshot]\ncommand = [\"sh\", \"-c\", \"cp -r data/. ../../shared/kept 2>/dev/null; echo kept\"]\n\
            [hooks.migrate]\ncommand = [\"sh\", \"-c\", \"echo $RELEASE_VERSION > data/schema; echo $RELEASE_VERSION >> data/migrated\"]\n\
            [hooks.start]\ncommand = [\"sh\", \"-c\", \"test -s data/schema || echo $RELEASE_VERSION > data/schema\"]\n"
        }
        "settings" => "kind = \"configuration\"\nof = \"web\"\n",
        _ => "",
    };
    format!(
        "{head}[gate]\ndeadline = \"3s\"\n[[health]]\ntype = \"command\"\ncommand = [\"sh\", \"-c\", {check:?}]\ninterval = \"100ms\"\nsuccesses = 1\n"
    )
}
