//! Plan, differences and layout as Mermaid diagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::output::one_line;
use super::super::view::environment::{Diff, Layout, Need, Plan};
use super::render;

/// Draws a plan: steps from left to right, arrows from what is needed to what needs it.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = String::from("flowchart LR\n");
    let steps: BTreeSet<u32> = plan.apps.iter().map(|app| app.step).collect();
    let mut nodes = Nodes::default();
    for step in steps {
        let _ = writeln!(text, "  subgraph step{step} [\"step {step}\"]");
        for app in plan.apps.iter().filter(|app| app.step == step) {
            let changing = app.hosts - app.hosts_settled.min(app.hosts);
            let label = format!(
                "{} {}<br/>{changing} of {} hosts",
                quoted(&app.app),
                quoted(&app.release),
                app.hosts
            );
            let _ = writeln!(text, "    {}[\"{label}\"]", nodes.of(&app.app));
        }
        text += "  end\n";
    }
    for app in &plan.apps {
        needs(&mut text, &mut nodes, &app.app, &app.needs, &app.configuration);
    }
    text
}

/// Draws what differs: each site with its hosts that are not as declared.
pub(super) fn diff(diff: &Diff) -> String {
    let mut text = String::from("flowchart LR\n");
    let mut nodes = Nodes::default();
    let mut sites: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for difference in &diff.differences {
        let of = |version: &Option<String>| version.clone().unwrap_or_else(|| "nothing".to_owned());
        let label = format!(
            "{}<br/>{} {}: {} instead of {}",
            quoted(&difference.host),
            quoted(&difference.app),
            difference.kind,
            quoted(&of(&difference.reported)),
            quoted(&of(&difference.declared))
        );
        let node = nodes.of(&format!("{} {}", difference.host, difference.app));
        sites.entry(&difference.site).or_default().push(format!("    {node}[\"{label}\"]"));
    }
    subgraphs(&mut text, &sites);
    text
}

/// Draws what runs where: each site with its hosts, each host with its applications; arrows between applications.
pub(super) fn layout(layout: &Layout) -> String {
    let mut text = String::from("flowchart LR\n");
    let mut nodes = Nodes::default();
    for app in &layout.apps {
        let label = format!("{} {}", quoted(&app.app), quoted(&app.release));
        let _ = writeln!(text, "  {}([\"{label}\"])", nodes.of(&app.app));
    }
    let mut sites: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for host in layout.apps.iter().flat_map(|app| &app.hosts) {
        let node = format!("    {}[\"{}\"]", nodes.of(&format!("host {}", host.host)), quoted(&host.host));
        sites.entry(&host.site).or_default().insert(node);
    }
    let sites = sites.into_iter().map(|(site, hosts)| (site, hosts.into_iter().collect())).collect();
    subgraphs(&mut text, &sites);
    for app in &layout.apps {
        needs(&mut text, &mut nodes, &app.app, &app.needs, &app.configuration);
        for host in &app.hosts {
            let (from, to) = (nodes.of(&app.app), nodes.of(&format!("host {}", host.host)));
            let _ = writeln!(text, "  {from} -. {} .- {to}", render::host_state(app, host));
        }
    }
    text
}

fn subgraphs(text: &mut String, sites: &BTreeMap<&str, Vec<String>>) {
    for (number, (site, lines)) in sites.iter().enumerate() {
        let _ = writeln!(text, "  subgraph site{number} [\"{}\"]", quoted(site));
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        *text += "  end\n";
    }
}

fn needs(text: &mut String, nodes: &mut Nodes, app: &str, needs: &[Need], configuration: &[String]) {
    let to = nodes.of(app);
    for need in needs {
        let Some(from) = nodes.known(&need.app) else { continue };
        let _ = match &need.contract {
            Some(contract) => writeln!(text, "  {from} -->|\"contract {}\"| {to}", quoted(contract)),
            None => writeln!(text, "  {from} --> {to}"),
        };
    }
    for name in configuration {
        if let Some(from) = nodes.known(name) {
            let _ = writeln!(text, "  {from} -->|configures| {to}");
        }
    }
}

/// Ids of nodes: Mermaid takes few characters, and some words not at all.
#[derive(Default)]
struct Nodes(BTreeMap<String, usize>);

impl Nodes {
    fn of(&mut self, name: &str) -> String {
        let next = self.0.len();
        format!("n{}", self.0.entry(name.to_owned()).or_insert(next))
    }

    fn known(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|number| format!("n{number}"))
    }
}

/// Makes a text safe within quotes.
fn quoted(text: &str) -> String {
    one_line(text).replace('"', "#quot;").replace('<', "#lt;")
}
