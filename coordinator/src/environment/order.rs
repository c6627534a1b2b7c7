//! The order in which applications come: what is needed first, as far as needs say; otherwise by name.
//!
//! Applications that say `atomic = true` and need one another make one unit, which begins and goes back as one. A cycle of
//! anything else is an error that names its edges. The way back is the reverse.

use std::collections::{BTreeMap, BTreeSet};

use sluice_common::name::AppName;

use super::graph::Edge;

/// Applications that come together; mostly one.
pub type Unit = Vec<AppName>;

/// A cycle that no atomic unit closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{edges}: a cycle has no first; let them switch as one, with atomic = true for each of {members}, or take one of these needs out",
    edges = .edges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    members = .edges.iter().map(|edge| edge.from.as_str()).collect::<Vec<_>>().join(", ")
)]
pub struct Cycle {
    /// Its edges, each beginning where the one before ends.
    pub edges: Vec<Edge>,
}

/// Returns the units in the order in which they come. Stable: it depends on names and edges alone.
pub fn order(
    apps: &BTreeSet<AppName>,
    is_atomic: impl Fn(&AppName) -> bool,
    edges: &[Edge],
) -> Result<Vec<Unit>, Cycle> {
    let unit_of = units(apps, is_atomic, edges);
    // Of each unit, named by the first of its applications: the units that it waits for.
    let mut waits: BTreeMap<&AppName, BTreeSet<&AppName>> =
        unit_of.values().map(|unit| (*unit, BTreeSet::new())).collect();
    for edge in edges {
        let (from, to) = (unit_of[&edge.from], unit_of[&edge.to]);
        let is_within = from == to && edge.from != edge.to;
        if !is_within {
            waits.entry(from).or_default().insert(to);
        }
    }
    let mut ordered = Vec::new();
    while !waits.is_empty() {
        let Some(next) = waits.iter().find(|(_, waits)| waits.is_empty()).map(|(unit, _)| *unit) else {
            return Err(cycle(edges, &unit_of, &waits));
        };
        waits.remove(next);
        waits.values_mut().for_each(|others| {
            others.remove(next);
        });
        ordered
            .push(unit_of.iter().filter(|(_, unit)| **unit == next).map(|(app, _)| (*app).clone()).collect());
    }
    Ok(ordered)
}

/// Joins atomic applications that need one another; every application is mapped to the first of its unit.
fn units<'a>(
    apps: &'a BTreeSet<AppName>,
    is_atomic: impl Fn(&AppName) -> bool,
    edges: &[Edge],
) -> BTreeMap<&'a AppName, &'a AppName> {
    let mut unit_of: BTreeMap<&AppName, &AppName> = apps.iter().map(|app| (app, app)).collect();
    for edge in edges.iter().filter(|edge| is_atomic(&edge.from) && is_atomic(&edge.to)) {
        let (one, other) = (unit_of[&edge.from], unit_of[&edge.to]);
        let (first, second) = (one.min(other), one.max(other));
        unit_of.values_mut().filter(|unit| **unit == second).for_each(|unit| *unit = first);
    }
    unit_of
}

/// Finds a cycle among units each of which waits for another.
fn cycle(
    edges: &[Edge],
    unit_of: &BTreeMap<&AppName, &AppName>,
    waits: &BTreeMap<&AppName, BTreeSet<&AppName>>,
) -> Cycle {
    let next = |unit: &AppName| {
        edges.iter().find(|edge| {
            let (from, to) = (unit_of[&edge.from], unit_of[&edge.to]);
            from == unit && waits[unit].contains(to) && (from != to || edge.from == edge.to)
        })
    };
    let mut path: Vec<&Edge> = Vec::new();
    let mut unit = *waits.keys().next().expect("asked only where units are left");
    loop {
        if let Some(begin) = path.iter().position(|edge| unit_of[&edge.from] == unit) {
            return Cycle { edges: path.split_off(begin).into_iter().cloned().collect() };
        }
        let edge = next(unit).expect("a unit that is left waits for another that is");
        path.push(edge);
        unit = unit_of[&edge.to];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::graph::Why;
    use super::*;

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    /// Reads `b>a` as: b needs a.
    fn read(text: &str) -> (BTreeSet<AppName>, Vec<Edge>) {
        let (mut apps, mut edges) = (BTreeSet::new(), Vec::new());
        for word in text.split_whitespace() {
            let (from, to) = word.split_once('>').unwrap_or((word, ""));
            apps.insert(app(from));
            if !to.is_empty() {
                apps.insert(app(to));
                let why = Why::Contract(None);
                edges.push(Edge { from: app(from), to: app(to), why, optional: false });
            }
        }
        (apps, edges)
    }

    fn ordered(text: &str, atomic: &str) -> Result<String, String> {
        let (apps, edges) = read(text);
        let is_atomic = |app: &AppName| atomic.split_whitespace().any(|name| name == app.as_str());
        let units = order(&apps, is_atomic, &edges).map_err(|cycle| cycle.to_string())?;
        let unit = |unit: &Unit| unit.iter().map(AppName::as_str).collect::<Vec<_>>().join("+");
        Ok(units.iter().map(unit).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn shapes() {
        for (name, edges, atomic, expected) in [
            ("nothing", "", "", ""),
            ("without needs, by name", "c a b", "", "a b c"),
            ("chain", "a>b b>c", "", "c b a"),
            ("diamond", "a>b a>c b>d c>d", "", "d b c a"),
            ("two chains", "b>a d>c", "", "a b c d"),
            ("atomic cycle", "a>b b>a", "a b", "a+b"),
            ("atomic cycle in the middle", "z>b b>c c>b c>a", "b c", "a b+c z"),
            ("atomic chain", "a>b b>c", "a b", "c a+b"),
            ("atomic without needs between them", "a b", "a b", "a b"),
        ] {
            assert_eq!(ordered(edges, atomic).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_cycle_is_named_edge_by_edge() {
        for (name, edges, atomic, expected) in [
            ("of one", "a>a", "", "a needs a: a cycle"),
            ("of one, though atomic", "a>a", "a", "a needs a: a cycle"),
            ("of two", "a>b b>a", "", "a needs b, b needs a: a cycle"),
            ("half atomic", "a>b b>a", "a", "a needs b, b needs a: a cycle"),
            ("behind a chain", "a>b b>c c>d d>b", "", "b needs c, c needs d, d needs b: a cycle"),
            ("through an atomic unit", "a>b b>c c>a", "a b", "b needs c, c needs a: a cycle"),
        ] {
            let error = ordered(edges, atomic).unwrap_err();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
        assert!(ordered("a>b b>a", "").unwrap_err().contains("atomic = true for each of a, b"));
    }

    proptest! {
        #[test]
        fn every_edge_is_respected(
            pairs in prop::collection::vec((0_u8..12, 0_u8..12), 0..30),
            atomic in prop::collection::btree_set(0_u8..12, 0..6),
        ) {
            let name = |number: u8| app(&format!("a{number:02}"));
            let apps: BTreeSet<AppName> = (0..12).map(name).collect();
            let edge = |(from, to): &(u8, u8)| Edge {
                from: name(*from), to: name(*to), why: Why::Contract(None), optional: false,
            };
            let edges: Vec<Edge> = pairs.iter().map(edge).collect();
            let is_atomic = |app: &AppName| atomic.iter().any(|number| name(*number) == *app);
            match order(&apps, is_atomic, &edges) {
                Ok(units) => {
                    let place = |app: &AppName| units.iter().position(|unit| unit.contains(app)).unwrap();
                    prop_assert_eq!(units.iter().map(Vec::len).sum::<usize>(), apps.len());
                    for edge in &edges {
                        let (from, to) = (place(&edge.from), place(&edge.to));
                        let is_one = from == to && is_atomic(&edge.from) && is_atomic(&edge.to);
                        prop_assert!(to < from || is_one && edge.from != edge.to, "{} in {:?}", edge, units);
                    }
                    prop_assert_eq!(order(&apps, is_atomic, &edges), Ok(units));
                }
                Err(cycle) => {
                    prop_assert!(!cycle.edges.is_empty());
                    for edge in &cycle.edges {
                        prop_assert!(edges.contains(edge));
                    }
                }
            }
        }
    }
}
