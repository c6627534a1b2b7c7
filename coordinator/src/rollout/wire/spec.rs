//! Specs on the wire, and back.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use sluice_common::selector::Selector;
use sluice_common::units::Share;
use sluice_proto::convert::{Invalid, millis, parse};
use sluice_proto::v1;

use crate::rollout::calendar::Calendar;
use crate::rollout::floor::Floor;
use crate::rollout::spec::{OnFailure, PerDomain, Spec, Strategy};

/// Reads a spec; what is not said takes its default.
pub(in crate::rollout) fn spec(message: v1::RolloutSpec) -> Result<Spec, Invalid> {
    let (kind, on_failure) = (message.strategy(), message.on_failure());
    let v1::RolloutSpec {
        selector,
        strategy: _,
        canary,
        batch,
        bake_ms,
        max_unavailable,
        max_failures,
        on_failure: _,
        host_deadline_ms,
        stage_first,
        waves,
        domain_label,
        domain_max_unavailable,
        domain_max_failures,
        windows,
        freezes,
        approvals,
        emergency,
        checks,
        first_site_bake_ms,
        floors,
    } = message;
    let standard = Spec::default();
    let strategy = strategy(kind, &canary, &batch, &waves)?;
    Ok(Spec {
        selector: if selector.is_empty() {
            Selector::everything()
        } else {
            parse("spec.selector", &selector)?
        },
        max_unavailable: share("spec.max_unavailable", &max_unavailable, strategy.default_max_unavailable())?,
        strategy,
        bake: Duration::from_millis(bake_ms),
        max_failures: share("spec.max_failures", &max_failures, standard.max_failures)?,
        on_failure: match on_failure {
            v1::OnFailure::Unspecified | v1::OnFailure::RollBack => OnFailure::Rollback,
            v1::OnFailure::Pause => OnFailure::Pause,
        },
        host_deadline: match host_deadline_ms {
            0 => standard.host_deadline,
            millis => Duration::from_millis(millis),
        },
        stage_first: share("spec.stage_first", &stage_first, standard.stage_first)?,
        per_domain: match domain_label.is_empty() {
            true => None,
            false => Some(PerDomain {
                label: domain_label,
                max_unavailable: share(
                    "spec.domain_max_unavailable",
                    &domain_max_unavailable,
                    Share::Count(1),
                )?,
                max_failures: match domain_max_failures.is_empty() {
                    true => None,
                    false => Some(parse("spec.domain_max_failures", &domain_max_failures)?),
                },
            }),
        },
        calendar: Calendar {
            windows: lines("spec.windows", &windows)?,
            freezes: lines("spec.freezes", &freezes)?,
        },
        approvals,
        checks: lines("spec.checks", &checks)?,
        emergency: (!emergency.is_empty()).then_some(emergency),
        first_site_bake: (first_site_bake_ms > 0).then(|| Duration::from_millis(first_site_bake_ms)),
        floors: floors.into_iter().map(floor).collect::<Result<_, _>>()?,
        retry: None,
        origin: None,
    })
}

fn strategy(
    kind: v1::StrategyKind,
    canary: &str,
    batch: &str,
    waves: &[String],
) -> Result<Strategy, Invalid> {
    let batch = share("spec.batch", batch, Share::Percent(25))?;
    match kind {
        v1::StrategyKind::AllAtOnce => Ok(Strategy::AllAtOnce),
        v1::StrategyKind::Rolling => Ok(Strategy::Rolling { batch }),
        v1::StrategyKind::Unspecified | v1::StrategyKind::Canary => {
            Ok(Strategy::Canary { canary: share("spec.canary", canary, Share::Count(1))?, batch })
        }
        v1::StrategyKind::Waves => {
            let waves = waves.iter().map(|wave| parse("spec.waves", wave)).collect::<Result<_, _>>()?;
            Ok(Strategy::Waves { waves })
        }
        v1::StrategyKind::OneHostFirst => Ok(Strategy::OneHostFirst { batch }),
        v1::StrategyKind::BlueGreen => Ok(Strategy::BlueGreen { batch }),
        v1::StrategyKind::Exponential => {
            Ok(Strategy::Exponential { first: share("spec.canary", canary, Share::Count(1))? })
        }
    }
}

fn lines<T: FromStr<Err: Display>>(field: &'static str, texts: &[String]) -> Result<Vec<T>, Invalid> {
    texts.iter().map(|text| parse(field, text)).collect()
}

fn share(field: &'static str, text: &str, standard: Share) -> Result<Share, Invalid> {
    if text.is_empty() { Ok(standard) } else { parse(field, text) }
}

pub(in crate::rollout) fn message(spec: &Spec) -> v1::RolloutSpec {
    let Spec {
        selector,
        strategy,
        bake,
        max_unavailable,
        max_failures,
        on_failure,
        host_deadline,
        stage_first,
        per_domain,
        calendar: Calendar { windows, freezes },
        approvals,
        checks,
        emergency,
        first_site_bake,
        floors,
        retry: _,
        origin: _,
    } = spec;
    let (kind, canary, batch) = match strategy {
        Strategy::AllAtOnce => (v1::StrategyKind::AllAtOnce, String::new(), String::new()),
        Strategy::Rolling { batch } => (v1::StrategyKind::Rolling, String::new(), batch.to_string()),
        Strategy::Canary { canary, batch } => {
            (v1::StrategyKind::Canary, canary.to_string(), batch.to_string())
        }
        Strategy::Waves { .. } => (v1::StrategyKind::Waves, String::new(), String::new()),
        Strategy::Exponential { first } => (v1::StrategyKind::Exponential, first.to_string(), String::new()),
        Strategy::OneHostFirst { batch } => {
            (v1::StrategyKind::OneHostFirst, String::new(), batch.to_string())
        }
        Strategy::BlueGreen { batch } => (v1::StrategyKind::BlueGreen, String::new(), batch.to_string()),
    };
    let waves = match strategy {
        Strategy::Waves { waves } => waves.iter().map(Share::to_string).collect(),
        Strategy::AllAtOnce
        | Strategy::Rolling { .. }
        | Strategy::Canary { .. }
        | Strategy::Exponential { .. }
        | Strategy::OneHostFirst { .. }
        | Strategy::BlueGreen { .. } => Vec::new(),
    };
    let on_failure = match on_failure {
        OnFailure::Rollback => v1::OnFailure::RollBack,
        OnFailure::Pause => v1::OnFailure::Pause,
    };
    v1::RolloutSpec {
        selector: selector.to_string(),
        strategy: kind.into(),
        canary,
        batch,
        bake_ms: millis(*bake),
        max_unavailable: max_unavailable.to_string(),
        max_failures: max_failures.to_string(),
        on_failure: on_failure.into(),
        host_deadline_ms: millis(*host_deadline),
        stage_first: stage_first.to_string(),
        waves,
        domain_label: per_domain.as_ref().map(|domains| domains.label.clone()).unwrap_or_default(),
        domain_max_unavailable: per_domain
            .as_ref()
            .map(|domains| domains.max_unavailable.to_string())
            .unwrap_or_default(),
        domain_max_failures: per_domain
            .as_ref()
            .and_then(|domains| Some(domains.max_failures?.to_string()))
            .unwrap_or_default(),
        windows: windows.iter().map(ToString::to_string).collect(),
        freezes: freezes.iter().map(ToString::to_string).collect(),
        approvals: *approvals,
        checks: checks.iter().map(ToString::to_string).collect(),
        emergency: emergency.clone().unwrap_or_default(),
        first_site_bake_ms: first_site_bake.map_or(0, millis),
        floors: floors.iter().map(floor_message).collect(),
    }
}

fn floor(message: v1::RolloutFloor) -> Result<Floor, Invalid> {
    let v1::RolloutFloor { by, min_healthy, label } = message;
    Ok(Floor {
        by: if by.is_empty() { None } else { Some(parse("spec.floors.by", &by)?) },
        min_healthy: parse("spec.floors.min_healthy", &min_healthy)?,
        label: (!label.is_empty()).then_some(label),
    })
}

fn floor_message(floor: &Floor) -> v1::RolloutFloor {
    let Floor { by, min_healthy, label } = floor;
    v1::RolloutFloor {
        by: by.as_ref().map(ToString::to_string).unwrap_or_default(),
        min_healthy: min_healthy.to_string(),
        label: label.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spec_does_not_say_takes_its_default() {
        let standard = Spec { bake: Duration::ZERO, ..Spec::default() };
        assert_eq!(spec(v1::RolloutSpec::default()).unwrap(), standard);
        let at_once = v1::RolloutSpec { strategy: v1::StrategyKind::AllAtOnce.into(), ..Default::default() };
        assert_eq!(spec(at_once).unwrap().max_unavailable, Share::Percent(100));
    }

    #[test]
    fn a_spec_goes_over_the_wire_and_back() {
        for strategy in [
            Strategy::AllAtOnce,
            Strategy::Rolling { batch: Share::Count(3) },
            Strategy::Canary { canary: Share::Percent(5), batch: Share::Percent(20) },
            Strategy::BlueGreen { batch: Share::Percent(50) },
        ] {
            let there = Spec {
                selector: "site=berlin,role in (api,web)".parse().unwrap(),
                strategy,
                bake: Duration::from_millis(1_500),
                max_unavailable: Share::Count(2),
                max_failures: Share::Percent(3),
                on_failure: OnFailure::Pause,
                host_deadline: Duration::from_secs(77),
                calendar: Calendar {
                    windows: vec!["mon-fri 20:00-23:00 Europe/Berlin".parse().unwrap()],
                    freezes: vec!["2026-12-23 18:00 to 2027-01-02 06:00 UTC: year end".parse().unwrap()],
                },
                approvals: 2,
                checks: vec!["smoke(every=1s)=webhook http://127.0.0.1:1/".parse().unwrap()],
                emergency: Some("leak".into()),
                first_site_bake: Some(Duration::from_secs(600)),
                floors: vec![
                    Floor {
                        by: Some("web".parse().unwrap()),
                        min_healthy: Share::Percent(60),
                        label: Some("site".into()),
                    },
                    Floor { by: None, min_healthy: Share::Count(2), label: None },
                ],
                ..Spec::default()
            };
            assert_eq!(spec(message(&there)).unwrap(), there);
        }
    }

    #[test]
    fn a_field_that_does_not_parse_is_named() {
        let broken = |change: fn(&mut v1::RolloutSpec)| {
            let mut message = v1::RolloutSpec::default();
            change(&mut message);
            spec(message).unwrap_err().field
        };
        assert_eq!(broken(|m| m.selector = "a b".into()), "spec.selector");
        assert_eq!(broken(|m| m.canary = "x".into()), "spec.canary");
        assert_eq!(broken(|m| m.batch = "101%".into()), "spec.batch");
        assert_eq!(broken(|m| m.max_unavailable = "-1".into()), "spec.max_unavailable");
        assert_eq!(broken(|m| m.max_failures = "1.5".into()), "spec.max_failures");
        assert_eq!(broken(|m| m.windows = vec!["mon".into()]), "spec.windows");
        assert_eq!(broken(|m| m.freezes = vec!["mon".into()]), "spec.freezes");
    }
}
