//! Case tables of what is decided: strategies and calendars, each case with what must come of it. The tests of this crate
//! run them, and the list of promises counts them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sluice_common::digest::Digest;

use super::batches::{Candidate, lower};
use super::calendar::{Calendar, Closed, Verdict};
use super::spec::Strategy;

mod calendars;

/// What became of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What it is of.
    pub name: &'static str,
    /// How many cases it has.
    pub cases: usize,
    /// Those that came out otherwise.
    pub wrong: Vec<String>,
}

/// Runs every table.
pub fn run() -> Vec<Table> {
    [("strategies", strategies())]
        .into_iter()
        .chain(calendars::run())
        .map(|(name, cases)| table(name, cases))
        .collect()
}

/// A case: what is asked, what came of it, and what must.
pub(crate) type Case = (String, String, String);

pub(crate) fn table(name: &'static str, cases: Vec<Case>) -> Table {
    let count = cases.len();
    let wrong = cases.into_iter().filter(|(_, found, expected)| found != expected);
    let wrong =
        wrong.map(|(asked, found, expected)| format!("{asked}: {found} instead of {expected}")).collect();
    Table { name, cases: count, wrong }
}

/// Five hosts at two sites, one of them of another platform.
fn fleet() -> Vec<Candidate> {
    let host = |(host, site, platform): (&str, &str, &str)| Candidate {
        host: host.parse().expect("a name"),
        site: site.parse().expect("a name"),
        domain: None,
        platform: platform.parse().expect("a platform"),
        package: Digest::of(platform.as_bytes()),
        settled: false,
    };
    let hosts = [
        ("web-4", "rome", "linux-arm"),
        ("web-2", "berlin", "linux-x86_64"),
        ("web-3", "rome", "linux-x86_64"),
        ("web-1", "berlin", "linux-x86_64"),
        ("web-0", "rome", "linux-x86_64"),
    ];
    hosts.map(host).to_vec()
}

fn batches(strategy: &Strategy, candidates: Vec<Candidate>) -> String {
    let names = |batch: &Vec<Candidate>| batch.iter().map(|c| c.host.as_str()).collect::<Vec<_>>().join(" ");
    lower(strategy, candidates).iter().map(names).collect::<Vec<_>>().join(" | ")
}

fn strategies() -> Vec<Case> {
    let share = |text: &str| text.parse().expect("a share");
    let canary = |canary, batch| Strategy::Canary { canary: share(canary), batch: share(batch) };
    let rolling = |batch| Strategy::Rolling { batch: share(batch) };
    let waves = |text: &str| Strategy::Waves { waves: text.split(',').map(share).collect() };
    let growing = |first| Strategy::Exponential { first: share(first) };
    let blue_green = |batch| Strategy::BlueGreen { batch: share(batch) };
    let one_first = |batch| Strategy::OneHostFirst { batch: share(batch) };
    let cases = [
        (Strategy::AllAtOnce, "web-1 web-2 web-0 web-3 web-4"),
        (rolling("2"), "web-1 web-2 | web-0 web-3 | web-4"),
        (rolling("50%"), "web-1 web-2 web-0 | web-3 web-4"),
        (rolling("99"), "web-1 web-2 web-0 web-3 web-4"),
        (rolling("1%"), "web-1 | web-2 | web-0 | web-3 | web-4"),
        // One host asked for, but there are two platforms.
        (canary("1", "2"), "web-1 web-4 | web-2 web-0 | web-3"),
        (canary("60%", "100%"), "web-1 web-2 web-4 | web-0 web-3"),
        (canary("100%", "1"), "web-1 web-2 web-0 web-3 web-4"),
        (waves("1,60%,100%"), "web-1 web-4 | web-2 | web-0 web-3"),
        // What the platforms have taken already is not taken twice, and the rest follows the last wave.
        (waves("1,2,3"), "web-1 web-4 | web-2 | web-0 web-3"),
        (waves("100%"), "web-1 web-2 web-0 web-3 web-4"),
        (growing("1"), "web-1 web-4 | web-2 | web-0 web-3"),
        (growing("2"), "web-1 web-4 | web-2 web-0 web-3"),
        // One, though there are two platforms.
        (one_first("2"), "web-1 | web-2 web-0 | web-3 web-4"),
        (blue_green("100%"), "web-1 web-2 web-0 web-3 web-4"),
        (blue_green("40%"), "web-1 web-2 | web-0 web-3 | web-4"),
        (one_first("100%"), "web-1 | web-2 web-0 web-3 web-4"),
    ];
    let asked = cases.into_iter().map(|(strategy, expected)| {
        (format!("{strategy:?}"), batches(&strategy, fleet()), expected.to_owned())
    });
    let mut settled = fleet();
    settled[3].settled = true;
    let hosts_that_run_it = "a host that runs the release already is no canary".to_owned();
    let expected = "web-2 web-4 | web-0 web-3 web-1".to_owned();
    let none = ("nobody".to_owned(), batches(&canary("1", "1"), Vec::new()), String::new());
    asked.chain([(hosts_that_run_it, batches(&canary("1", "100%"), settled), expected), none]).collect()
}

fn moment(text: &str) -> Timestamp {
    let (local, zone) = text.rsplit_once(' ').expect("a moment with its zone");
    let local: DateTime = local.replace(' ', "T").parse().expect("a moment");
    let zone = TimeZone::get(zone).expect("a zone");
    zone.to_ambiguous_zoned(local).compatible().expect("a moment of the zone").timestamp()
}

/// Says a calendar's verdict in short words.
fn verdict(calendar: &Calendar, now: &str, needs: Duration) -> String {
    match calendar.look(moment(now), needs) {
        Verdict::Open => "open".to_owned(),
        Verdict::Closed(Closed { freeze, is_short, opens }) => {
            let why = freeze.map_or(if is_short { "short" } else { "shut" }, |_| "frozen");
            let opens =
                opens.map_or("never".to_owned(), |opens| opens.strftime("%a %d %H:%M %Z").to_string());
            format!("{why} until {opens}")
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_comes_out_as_it_must() {
        let tables = super::run();
        let wrong: Vec<_> = tables.iter().flat_map(|table| &table.wrong).collect();
        assert_eq!(wrong, Vec::<&String>::new());
        assert!(tables.iter().map(|table| table.cases).sum::<usize>() > 50, "{tables:?}");
    }
}
