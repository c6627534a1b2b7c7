//! Decides what to do with an order that arrived. Pure.
//!
//! The generation fences: a lower one is stale, the same one renews, a higher one is judged by the host's own
//! rules, which no coordinator can change: pinned keys, platform, allow-list.

use sluice_common::digest::Digest;
use sluice_common::keys::PublicKey;
use sluice_common::name::{AppName, Platform};
use sluice_common::order::{Desired, Generation, Order};
use sluice_common::release::SignedRelease;

use crate::config::Policy;
use crate::state::{AppState, Wanted};

/// What to do with an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is older than what was accepted.
    Stale {
        /// What was accepted.
        accepted: Generation,
    },
    /// It repeats what was accepted: its time to live begins anew.
    Renews,
    /// It carries an accepted generation but asks for something else: never obeyed.
    Conflicts,
    /// It is new and obeyed.
    Accept,
    /// It is new and breaks a rule of this host.
    Refuse {
        /// Which, in words.
        reason: String,
    },
}

/// The rules of this host.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Keys whose releases may run here.
    pub(crate) trusted_keys: Vec<PublicKey>,
    /// What may be deployed here.
    pub(crate) policy: Policy,
    /// What this host runs.
    pub(crate) platform: Platform,
}

/// Judges `order` against what was accepted before and the host's rules.
pub(crate) fn judge(order: &Order, accepted: Option<&AppState>, rules: &Rules) -> Verdict {
    if let Some(state) = accepted {
        if order.generation < state.generation {
            return Verdict::Stale { accepted: state.generation };
        }
        if order.generation == state.generation {
            let same = state.wanted == Wanted::of(&order.desired) && state.rollout == order.rollout;
            return if same { Verdict::Renews } else { Verdict::Conflicts };
        }
    }
    match objection(order, rules) {
        Some(reason) => Verdict::Refuse { reason },
        None => Verdict::Accept,
    }
}

/// Returns why the host's rules forbid `order`.
fn objection(order: &Order, rules: &Rules) -> Option<String> {
    if !rules.policy.may_deploy(&order.app) {
        return Some(format!(
            "application {} is not on this host's allow-list; add it to [policy] apps in agent.toml",
            order.app
        ));
    }
    match &order.desired {
        Desired::Absent => None,
        Desired::Release { release, package, .. } => release_objection(&order.app, release, package, rules),
    }
}

/// Returns why the host's rules forbid to run `release` of `app` as `package`; asked again before a switch, since a key may
/// have been unpinned.
pub(crate) fn release_objection(
    app: &AppName,
    release: &SignedRelease,
    package: &Digest,
    rules: &Rules,
) -> Option<String> {
    if let Err(error) = release.verify(&rules.trusted_keys) {
        return Some(format!("{error}; add the key to trusted_keys in agent.toml if it is to be trusted"));
    }
    let statement = &release.release;
    if statement.app != *app {
        return Some(format!("the signed release is of application {}, not of {app}", statement.app));
    }
    match statement.package_for(&rules.platform) {
        None => Some(format!(
            "release {} has no package for this host's platform {}",
            statement.version, rules.platform
        )),
        Some(own) if own != *package => Some(format!(
            "the signed release names the package {own} for this host's platform {}, not {package}",
            rules.platform
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use sluice_common::keys::SecretKey;
    use sluice_common::order::Stage;
    use sluice_common::release::Release;

    use super::*;
    use crate::clock::BootTime;

    struct World {
        key: SecretKey,
        rules: Rules,
    }

    fn world() -> World {
        let key = SecretKey::generate().unwrap();
        let rules = Rules {
            trusted_keys: vec![key.public()],
            policy: Policy::default(),
            platform: "linux-x86_64".parse().unwrap(),
        };
        World { key, rules }
    }

    fn release(key: &SecretKey, app: &str, platform: &str) -> SignedRelease {
        Release {
            app: app.parse().unwrap(),
            version: "1".parse().unwrap(),
            packages: BTreeMap::from([(platform.parse().unwrap(), Digest::of(b"p"))]),
            notes: String::new(),
        }
        .sign(key)
        .unwrap()
    }

    fn order(generation: u64, release: SignedRelease) -> Order {
        Order {
            app: "shop".parse().unwrap(),
            generation: Generation(generation),
            rollout: "r1".parse().unwrap(),
            desired: Desired::Release { stage: Stage::Active, release, package: Digest::of(b"p") },
            ttl: Duration::from_secs(1),
            confirmed: false,
            migrates: true,
            needs: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn rules_of_the_host_are_kept() {
        let world = world();
        let stranger = SecretKey::generate().unwrap();
        let mut forged = release(&world.key, "shop", "any");
        forged.release.notes = "x".into();
        let closed =
            Rules { policy: Policy { apps: Some(["web".parse().unwrap()].into()) }, ..world.rules.clone() };
        let mut other_package = order(1, release(&world.key, "shop", "any"));
        if let Desired::Release { package, .. } = &mut other_package.desired {
            *package = Digest::of(b"other");
        }
        for (name, order, rules, expected) in [
            ("good", order(1, release(&world.key, "shop", "any")), &world.rules, None),
            ("own platform", order(1, release(&world.key, "shop", "linux-x86_64")), &world.rules, None),
            ("unknown key", order(1, release(&stranger, "shop", "any")), &world.rules, Some("not pinned")),
            ("forged", order(1, forged), &world.rules, Some("does not fit")),
            ("other app", order(1, release(&world.key, "web", "any")), &world.rules, Some("not of shop")),
            (
                "other platform",
                order(1, release(&world.key, "shop", "linux-arm")),
                &world.rules,
                Some("no package"),
            ),
            ("other package", other_package, &world.rules, Some("names the package")),
            ("not allowed", order(1, release(&world.key, "shop", "any")), &closed, Some("allow-list")),
        ] {
            match (judge(&order, None, rules), expected) {
                (Verdict::Accept, None) => {}
                (Verdict::Refuse { reason }, Some(text)) => {
                    assert!(reason.contains(text), "{name}: {reason}");
                }
                (verdict, _) => panic!("{name}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn the_same_generation_renews_only_the_same_order() {
        let world = world();
        let first = order(5, release(&world.key, "shop", "any"));
        let now = BootTime::at("b", Duration::ZERO);
        let state = AppState::accepted(&first, now, 1);
        assert_eq!(judge(&first, Some(&state), &world.rules), Verdict::Renews);
        let other = Order { desired: Desired::Absent, ..first.clone() };
        assert_eq!(judge(&other, Some(&state), &world.rules), Verdict::Conflicts);
        let stale = Order { generation: Generation(4), ..first };
        assert_eq!(judge(&stale, Some(&state), &world.rules), Verdict::Stale { accepted: Generation(5) });
    }

    proptest! {
        #[test]
        fn the_accepted_generation_never_goes_back(sequence in proptest::collection::vec(0_u64..20, 1..60)) {
            let rules = world().rules;
            let mut state: Option<AppState> = None;
            for generation in sequence {
                let order = Order {
                    app: "shop".parse().unwrap(),
                    generation: Generation(generation),
                    rollout: "r1".parse().unwrap(),
                    desired: Desired::Absent,
                    ttl: Duration::from_secs(1),
                    confirmed: false,
                    migrates: true,
                    needs: std::collections::BTreeMap::new(),
                };
                let before = state.as_ref().map(|s| s.generation);
                if judge(&order, state.as_ref(), &rules) == Verdict::Accept {
                    state = Some(AppState::accepted(&order, BootTime::at("b", Duration::ZERO), 1));
                }
                prop_assert!(state.as_ref().map(|s| s.generation) >= before);
            }
        }
    }
}
